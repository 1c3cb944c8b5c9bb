from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core import stats

positive = st.floats(1e-3, 1e6)


@given(st.lists(positive, min_size=2, max_size=30))
def test_the_interval_holds_the_figure(values: list[float]) -> None:
    found = stats.location(values)
    assert found.low <= found.value * (1 + 1e-9)
    assert found.value <= found.high * (1 + 1e-9)


@given(st.lists(positive, min_size=2, max_size=20), st.floats(0.01, 100))
def test_a_common_factor_cancels_in_a_paired_ratio(values: list[float], factor: float) -> None:
    drifting = np.array(values)
    found = stats.paired_ratio(drifting * factor, drifting)
    assert found.value == pytest.approx(factor, rel=1e-6)
    assert found.high / found.low == pytest.approx(1, rel=1e-6)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = [
        found.low <= 1 <= found.high for found in (stats.location(np.exp(rng.normal(0, 0.3, 8))) for _ in range(1000))
    ]
    assert 0.93 < np.mean(covered) < 0.97


def test_one_value_has_no_interval() -> None:
    assert stats.location([3.0]) == (pytest.approx(3.0), 0.0, math.inf)


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([], [])])
def test_rounds_that_do_not_pair_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="one length"):
        stats.paired_ratio(a, b)


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_proportion_lies_in_its_interval(a: int, b: int) -> None:
    found = stats.proportion(min(a, b), max(a, b))
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value <= found.high + 1e-12 <= 1 + 2e-12


def test_wilson_of_a_known_case() -> None:
    # 3 of 10: 0.108 to 0.603, as in Newcombe (1998), Statistics in Medicine 17, 857-872, method 3 by hand
    found = stats.proportion(3, 10)
    assert (round(found.low, 3), round(found.high, 3)) == (0.108, 0.603)


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="5 of 4"):
        stats.proportion(5, 4)

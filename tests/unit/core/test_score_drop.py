from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.score_drop import accuracy_drop, f1_drop

outcomes = st.integers(2, 300).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n), st.lists(st.integers(0, 1), min_size=n, max_size=n)
    )
)


@settings(deadline=None)
@given(outcomes)
def test_the_drop_is_the_difference_and_the_bound_lies_above_it(pair: tuple[list[int], list[int]]) -> None:
    before, after = (np.array(x) for x in pair)
    drop = accuracy_drop(before, after)
    assert drop.value == pytest.approx(drop.before - drop.after)
    assert drop.value - 2 / len(before) <= drop.bound <= 1


def test_models_that_agree_on_few_examples_may_still_differ() -> None:
    right = np.ones(20, int)
    assert accuracy_drop(right, right).bound > 0.01
    assert accuracy_drop(right, right).p_value == 1
    assert accuracy_drop(np.ones(10_000, int), np.ones(10_000, int)).bound < 0.001


def test_the_bound_holds_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(0)
    # 4% lost and 2% gained: the true drop is 2 points.
    held = 0
    for _ in range(1000):
        cell = rng.choice(4, 500, p=[0.80, 0.04, 0.02, 0.14])
        before, after = np.isin(cell, (0, 1)).astype(int), np.isin(cell, (0, 2)).astype(int)
        held += accuracy_drop(before, after).bound >= 0.02
    assert 930 <= held <= 975  # 950 +- 3 standard errors, and the bound errs on the safe side


def test_f1_drop_by_hand_and_of_equal_models() -> None:
    before = np.array([[2, 0, 0]] * 50 + [[0, 1, 1]] * 50)
    after = np.array([[1, 0, 1]] * 50 + [[0, 1, 1]] * 50)
    drop = f1_drop(before, after)
    assert drop.before == pytest.approx(200 / 300)
    assert drop.after == pytest.approx(100 / 250)
    assert drop.value < drop.bound < drop.value + 0.15
    assert f1_drop(before, before).bound == 0


@pytest.mark.parametrize(("a", "b"), [((3,), (4,)), ((0,), (0,)), ((3, 3), (3, 3))])
def test_outcomes_of_other_examples_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Outcomes of the same examples"):
        accuracy_drop(np.zeros(a, int), np.zeros(b, int))

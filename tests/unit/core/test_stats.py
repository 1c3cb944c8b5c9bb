from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st

from kcost.core import stats

positive = st.floats(1e-3, 1e6)


@given(st.lists(positive, min_size=2, max_size=30))
def test_the_interval_holds_the_figure(values: list[float]) -> None:
    interval = stats.location(values)
    assert interval.low <= interval.value * (1 + 1e-9)
    assert interval.value <= interval.high * (1 + 1e-9)


@given(st.lists(positive, min_size=2, max_size=20), st.floats(0.01, 100))
def test_a_common_factor_cancels_in_a_paired_ratio(values: list[float], factor: float) -> None:
    drifting = np.array(values)
    ratio = stats.paired_ratio(drifting * factor, drifting)
    assert ratio.value == pytest.approx(factor, rel=1e-6)
    assert ratio.high / ratio.low == pytest.approx(1, rel=1e-6)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = [
        interval.low <= 1 <= interval.high
        for interval in (stats.location(np.exp(rng.normal(0, 0.3, 8))) for _ in range(1000))
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
    share = stats.proportion(min(a, b), max(a, b))
    assert 0 <= share.low <= share.value + 1e-12
    assert share.value <= share.high + 1e-12 <= 1 + 2e-12


def test_wilson_of_a_known_case() -> None:
    # 3 of 10: 0.108 to 0.603, as in Newcombe (1998), Statistics in Medicine 17, 857-872, method 3 by hand
    share = stats.proportion(3, 10)
    assert (round(share.low, 3), round(share.high, 3)) == (0.108, 0.603)


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="5 of 4"):
        stats.proportion(5, 4)


def test_the_tails_need_as_many_samples_as_the_mlperf_rules_say() -> None:
    assert (stats.samples_for_tail(0.99), stats.samples_for_tail(0.90)) == (662, 64)


@pytest.mark.parametrize(
    ("count", "name"), [(63, None), (64, "p90"), (129, "p90"), (130, "p95"), (661, "p97"), (662, "p99"), (5000, "p99")]
)
def test_the_tail_is_the_highest_that_the_number_of_samples_shows(count: int, name: str | None) -> None:
    quantile = stats.tail(list(range(1, count + 1)))
    assert (None if quantile is None else quantile.name) == name


@pytest.mark.parametrize("count", [64, 130, 662])
def test_the_bounds_of_a_tail_hold_as_often_as_they_say(count: int) -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(500):
        quantile = stats.tail([int(v) for v in rng.exponential(1e6, count)])
        assert quantile is not None
        assert quantile.interval.low <= quantile.interval.value <= quantile.interval.high
        held += quantile.interval.low <= -1e6 * math.log(1 - quantile.fraction) <= quantile.interval.high
    assert held / 500 > 0.93


def test_clopper_pearson_of_a_known_case() -> None:
    # 10 of 100: 0.0490 to 0.1762, as scipy.stats.binomtest(10, 100).proportion_ci() gives
    share = stats.exact_proportion(10, 100)
    assert (round(share.low, 4), round(share.high, 4)) == (0.0490, 0.1762)
    assert stats.exact_proportion(0, 0) == (0, 0, 1)
    assert stats.exact_proportion(0, 5).low == 0
    assert stats.exact_proportion(5, 5).high == 1
    with pytest.raises(ValueError, match="5 of 4"):
        stats.exact_proportion(5, 4)


@given(st.lists(positive, min_size=2, max_size=20), st.lists(positive, min_size=2, max_size=20))
def test_an_independent_ratio_turns_round(a: list[float], b: list[float]) -> None:
    one, other = stats.independent_ratio(a, b), stats.independent_ratio(b, a)
    assert one.ratio.value == pytest.approx(1 / other.ratio.value, rel=1e-6)
    assert one.probability_below_1 + other.probability_below_1 == pytest.approx(1, abs=1e-6)
    assert one.ratio.low <= one.ratio.value * (1 + 1e-9)


def test_welch_agrees_with_scipy() -> None:
    from scipy.stats import ttest_ind

    a, b = [1.0, 1.2, 1.1, 1.3], [0.9, 1.0, 0.95, 1.05, 0.97]
    by_scipy = ttest_ind(np.log(a), np.log(b), equal_var=False)
    compared = stats.independent_ratio(a, b)
    interval = by_scipy.confidence_interval(0.95)
    assert (compared.ratio.low, compared.ratio.high) == (
        pytest.approx(math.exp(interval.low)),
        pytest.approx(math.exp(interval.high)),
    )
    assert compared.probability_below_1 == pytest.approx(by_scipy.pvalue / 2)


def test_too_little_for_an_independent_interval() -> None:
    assert stats.independent_ratio([2.0], [1.0, 1.1]).ratio.high == math.inf
    assert stats.independent_ratio([2.0, 2.0], [1.0, 1.0]) == ((2.0, 2.0, 2.0), 0.0)
    with pytest.raises(ValueError, match="non-empty"):
        stats.independent_ratio([], [1.0])


def test_the_probability_that_a_ratio_is_below_1() -> None:
    assert stats.ratio_probability([0.1]) == 0.5
    assert stats.ratio_probability([-0.1, -0.1]) == 1.0
    assert stats.ratio_probability([0.0, 0.0]) == 0.5
    assert stats.ratio_probability([-0.1, -0.2, -0.15]) > 0.95
    assert stats.ratio_probability([-0.1, 0.1]) == pytest.approx(0.5)


class TestSettling:
    def test_equal_steps_have_settled(self) -> None:
        assert stats.has_settled([100] * 12)

    def test_a_slow_beginning_is_forgotten(self) -> None:
        assert stats.has_settled([900, 500, 200] + [100] * 13)

    def test_steps_that_still_fall_have_not(self) -> None:
        falling = [int(1000 * 0.9**i) for i in range(20)]
        assert not stats.has_settled(falling)
        assert stats.window_spread(falling) == pytest.approx(0.9**-10 - 1, rel=0.02)

    def test_too_few_steps_say_nothing(self) -> None:
        assert stats.window_spread([1, 1]) is None
        assert not stats.has_settled([1, 1])

    def test_three_long_steps_are_enough(self) -> None:
        assert stats.has_settled([500, 500, 510])


@given(st.lists(st.floats(0.5, 2.0), min_size=3, max_size=30))
def test_cells_are_told_apart_where_an_interval_of_99_percent_leaves_1_out(ratios: list[float]) -> None:
    wide = stats.location(ratios, stats.DECISION_CONFIDENCE)
    assume(min(abs(wide.low - 1), abs(wide.high - 1)) > 1e-9)
    assert stats.surely_differs(stats.location(ratios), len(ratios)) == (not wide.low <= 1 <= wide.high)


def test_equals_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.lognormal(0, 0.02, (2000, 2, 10))
    told_apart = sum(stats.surely_differs(stats.paired_ratio(a, b), 10) for a, b in pairs)
    assert 5 <= told_apart <= 40  # 1% of them


def test_one_round_tells_nothing_apart() -> None:
    assert not stats.surely_differs(stats.location([2.0]), 1)

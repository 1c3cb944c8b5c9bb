from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.optimize.ranges import BINS, LEVELS, RANGE_METHODS, Histogram, divergence

floats = st.floats(-1e6, 1e6, width=32)
batches = st.lists(st.lists(floats, min_size=1, max_size=50), min_size=1, max_size=8)


def histogram_of(*batches: object) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(np.asarray(batch))
    return histogram


@given(batches)
def test_no_value_is_lost_and_the_largest_is_known(values: list[list[float]]) -> None:
    histogram = histogram_of(*values)
    everything = np.abs(np.concatenate([np.asarray(v, np.float32) for v in values]))
    assert histogram.largest == everything.max()
    if everything.any():
        seen = everything[: len(everything)]
        first = next(i for i, v in enumerate(values) if np.asarray(v, np.float32).any())
        counted = sum(len(v) for v in values[first:])  # zeros alone, before anything else, have no scale
        assert histogram.counts.sum() == counted <= len(seen)
        assert histogram.limit > everything.max()


@given(batches)
def test_each_range_lies_between_0_and_the_largest(values: list[list[float]]) -> None:
    histogram = histogram_of(*values)
    for method in RANGE_METHODS:
        assert 0 <= histogram.range_by(method) <= histogram.largest
    assert histogram.range_by("largest") == histogram.largest


def test_the_order_of_batches_changes_bins_by_no_more_than_a_bin() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.normal(size=5000), 10 * rng.normal(size=5000)
    one, two = histogram_of(small, large), histogram_of(large, small)
    width = max(one.width, two.width)
    assert one.range_by("percentile") == pytest.approx(two.range_by("percentile"), abs=2 * width)


def test_a_percentile_is_that_of_numpy() -> None:
    values = np.random.default_rng(1).normal(size=100_000)
    histogram = histogram_of(values)
    expected = np.percentile(np.abs(values), 99.99)
    assert histogram.range_by("percentile") == pytest.approx(expected, abs=2 * histogram.width)


def test_outliers_are_clipped_by_both_ways() -> None:
    values = np.append(np.random.default_rng(2).normal(size=100_000), [300.0] * 3)
    histogram = histogram_of(values)
    assert histogram.range_by("percentile") < 6
    assert histogram.range_by("entropy") < 60
    assert histogram.range_by("largest") == 300


def test_the_entropy_range_loses_the_least_information() -> None:
    histogram = histogram_of(np.random.default_rng(3).standard_t(3, size=50_000))
    best = histogram.range_by("entropy")
    end = round(best / histogram.width)
    assert divergence(histogram.counts, end) <= min(divergence(histogram.counts, e) for e in (LEVELS, 512, BINS))


@given(st.lists(st.integers(0, 1000), min_size=LEVELS, max_size=4 * LEVELS).filter(any))
def test_a_divergence_is_never_negative(counts: list[int]) -> None:
    array = np.asarray(counts)
    for end in (LEVELS, len(array)):
        assert divergence(array, end) >= -1e-9


def test_nothing_is_lost_with_a_level_for_each_bin() -> None:
    counts = np.random.default_rng(4).integers(0, 9, LEVELS)
    assert divergence(counts, LEVELS) == pytest.approx(0, abs=1e-12)


def test_values_that_are_not_finite_do_not_count() -> None:
    histogram = histogram_of([1.0, np.nan, np.inf, -2.0])
    assert histogram.counts.sum() == 2
    assert histogram.largest == 2


def test_least_squares_clip_where_a_few_values_are_large() -> None:
    values = np.append(np.random.default_rng(3).normal(size=100_000), [40.0])
    histogram = histogram_of(values)
    clipped_at = histogram.range_by("least-squares")

    def error(largest: float) -> float:
        step = largest / 127
        return float(np.square(np.clip(np.rint(values / step), -127, 127) * step - values).sum())

    tried = np.linspace(2, 40, 200)
    assert error(clipped_at) <= 1.02 * min(map(error, tried))
    assert clipped_at < 40


@given(st.lists(st.lists(st.tuples(floats, floats, floats), min_size=1, max_size=9), min_size=1, max_size=5))
def test_the_largest_at_each_place_is_known(rows: list[list[tuple[float, float, float]]]) -> None:
    histogram = histogram_of(*rows)
    expected = np.abs(np.concatenate([np.asarray(r, np.float32) for r in rows])).max(axis=0)
    assert histogram.places is not None
    np.testing.assert_array_equal(histogram.places, expected)


def test_batches_of_other_widths_have_no_places() -> None:
    assert histogram_of(np.ones((2, 3)), np.ones((2, 4))).places is None

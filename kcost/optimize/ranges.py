"""Ranges for int8 from histograms of absolute values. Pure maths: no framework.

Three ways to clip, and none: a percentile, the smallest loss of information, the smallest squared error, the largest
value seen.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

RangeMethod = Literal["percentile", "entropy", "least-squares", "largest"]
RANGE_METHODS: tuple[RangeMethod, ...] = ("percentile", "entropy", "least-squares", "largest")
"""How the largest absolute value that int8 can hold is chosen; what lies above is clipped to it."""

PERCENTILE = 99.99
BINS = 2048
UNSEEN = 1e-4
"""Part of a count that stands for a bin which the rounded histogram has empty."""
LEVELS = 128
"""Absolute values that int8 tells apart, 0 among them."""


class Histogram:
    """Counts of absolute values over [0, limit), in bins of equal width; the limit doubles when it is passed.

    `places` holds the largest at each place of the last axis; None where batches differ in it.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.counts = np.zeros(bins, np.int64)
        self.limit = 0.0
        self.largest = 0.0
        self.places: np.ndarray | None = np.zeros(1, np.float32)

    def add(self, values: np.ndarray) -> None:
        """Counts finite values of any shape; nan and infinity are left out."""
        values = np.abs(np.asarray(values, np.float32))
        self._add_places(values)
        values = values.ravel()
        values = values[np.isfinite(values)]
        if not values.size:
            return
        largest = float(values.max())
        self.largest = max(self.largest, largest)
        if self.limit == 0.0:
            if largest == 0.0:
                return  # zeros alone say nothing of the scale
            self.limit = largest * (1 + 1e-6)
        while largest >= self.limit:
            # Pairs of bins become one: each value stays in the bin that holds it.
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(len(self.counts) // 2, np.int64)])
            self.limit *= 2
        self.counts += np.histogram(values, bins=len(self.counts), range=(0.0, self.limit))[0]

    def _add_places(self, values: np.ndarray) -> None:
        rows = np.where(np.isfinite(values), values, 0).reshape(-1, values.shape[-1] if values.ndim else 1)
        if self.places is not None and rows.size:
            fits = len(self.places) in (1, rows.shape[1])
            self.places = np.maximum(self.places, rows.max(axis=0)) if fits else None

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self.limit / len(self.counts)

    def range_by(self, method: RangeMethod) -> float:
        """The largest absolute value to keep apart; 0.0 where only zeros were seen."""
        if not self.counts.any():
            return 0.0
        if method == "largest":
            return self.largest
        if method == "least-squares":
            return self._least_squares()
        return self._percentile(PERCENTILE) if method == "percentile" else self._entropy()

    def _percentile(self, percent: float) -> float:
        """The upper edge of the first bin up to which `percent` of the values lie."""
        share = np.cumsum(self.counts) / self.counts.sum()
        return min((int(np.searchsorted(share, percent / 100)) + 1) * self.width, self.largest)

    def _least_squares(self) -> float:
        """The range with the smallest sum of squares of what is clipped away and of what is rounded.

        Rounding to a step is off by step**2 / 12 in the mean square, where values lie evenly.
        """
        ends = np.arange(LEVELS, len(self.counts) + 1, 8)
        centres = np.arange(len(self.counts)) + 0.5  # in bins
        beyond = np.maximum(centres - ends[:, None], 0)
        kept = np.cumsum(self.counts)[ends - 1]
        errors = beyond**2 @ self.counts + kept * (ends / (LEVELS - 1)) ** 2 / 12
        return min(float(ends[np.argmin(errors)]) * self.width, self.largest)

    def _entropy(self) -> float:
        """The range whose 128 levels lose the least information, by Kullback-Leibler divergence.

        Source: Migacz (2017), 8-bit Inference with TensorRT, GPU Technology Conference, S7310.
        """
        ends = range(LEVELS, len(self.counts) + 1, 8)
        best = min(ends, key=lambda end: divergence(self.counts, end))
        return min(best * self.width, self.largest)


def divergence(counts: np.ndarray, end: int, levels: int = LEVELS) -> float:
    """Information lost, in nats, when the bins from `end` on are clipped to the one before and the rest is rounded.

    Args:
        counts: a histogram of absolute values.
        end: number of bins that are kept, at least `levels`.
        levels: number of values that remain.

    Returns:
        The Kullback-Leibler divergence between the clipped histogram and its rounded form; infinity where nothing
        is kept.
    """
    kept = counts[:end].astype(np.float64)
    if not kept.any():
        return float("inf")
    clipped = kept.copy()
    clipped[-1] += counts[end:].sum()
    starts = np.arange(levels) * end // levels
    filled = clipped > 0
    # A level's count is spread evenly over its bins that are not empty.
    sums = np.add.reduceat(kept, starts)
    numbers = np.add.reduceat(filled.astype(np.float64), starts)
    sizes = np.diff(np.append(starts, end))
    spread = np.where(filled, np.repeat(sums / np.maximum(numbers, 1), sizes), 0.0)
    # Where the rounded form holds nothing, clipped values would make the divergence infinite.
    spread = np.maximum(spread, UNSEEN)
    p, q = clipped[filled] / clipped.sum(), spread[filled] / spread[filled].sum()
    return float(np.sum(p * np.log(p / q)))

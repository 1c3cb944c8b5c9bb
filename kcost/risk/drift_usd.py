"""What drift costs: the errors that live traffic is expected to have beyond those of the reference, in dollars.

The reference's rows are put into bands by the model's confidence, and each band has an error rate. Live rows are in
the same bands, in other shares. Where a band's error rate is the same live, the difference of the two mixes is the
difference of the two error rates. A model that is sure of itself and wrong is outside of that: only labels show it.

Source: Garg, S. et al. (2022), Leveraging unlabeled data to predict out-of-distribution performance, compares
estimates from confidence; this is the binned form of the average confidence among them, with rates in place of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from kcost.core.schema import Record
from kcost.core.stats import CONFIDENCE
from kcost.risk.figures import Figure

DRAWS = 10_000
MOST_BANDS = 10


class Band(Record):
    """Rows of the reference whose confidence lies from `low` up to the next band's."""

    low: float
    rows: int = Field(ge=1)
    wrong: int = Field(ge=0)


class DriftCost(Record):
    """What drift costs a month, as far as confidence shows it. Intervals hold 95%."""

    error_before: Figure = Field(description="share of the reference's rows that are wrong")
    error_now: Figure = Field(description="expected share of live rows: rates by band, in the live mix")
    extra_errors_per_million: Figure
    usd_per_month: Figure
    usd_per_error: float
    rows_per_month: float


def bands_of(confidence: np.ndarray, right: np.ndarray) -> tuple[Band, ...]:
    """Bands of about equally many rows, by quantiles of the confidence.

    Args:
        confidence: of the reference's rows, shape (n,), n at least 1.
        right: whether each is right, shape (n,), bool.
    """
    edges = np.quantile(confidence, np.arange(1, MOST_BANDS) / MOST_BANDS)
    lows = [-np.inf, *np.unique(edges[edges > confidence.min()])]
    place = np.searchsorted(lows, confidence, side="right") - 1
    rows = np.bincount(place, minlength=len(lows))
    wrong = np.bincount(place, weights=~right, minlength=len(lows))
    lows[0] = 0.0
    return tuple(
        Band(low=float(low), rows=int(n), wrong=int(w)) for low, n, w in zip(lows, rows, wrong, strict=True) if n
    )


def band_counts(bands: Sequence[Band], confidence: np.ndarray) -> np.ndarray:
    """Live rows by band, shape (bands,), int64. What is below the lowest is in the lowest."""
    place = np.searchsorted([band.low for band in bands], confidence, side="right") - 1
    return np.bincount(np.maximum(place, 0), minlength=len(bands))


def drift_cost(
    bands: Sequence[Band], live: np.ndarray, rows_per_month: float, usd_per_error: float, seed: int = 0
) -> DriftCost:
    """Extra errors of a live mix and their price.

    Rates are drawn from Beta(wrong + 1/2, right + 1/2), Jeffreys' posterior, and both mixes from the Dirichlet
    distribution of theirs.

    Args:
        live: rows by band, shape (bands,), not all zero.
        rows_per_month: at the rate of now.
        usd_per_error: price of one wrong row.

    Examples:
        >>> bands = (Band(low=0.0, rows=100, wrong=50), Band(low=0.9, rows=900, wrong=9))
        >>> cost = drift_cost(bands, np.array([500, 500]), 1e6, 0.1)
        >>> round(cost.error_before.value, 3), round(cost.error_now.value, 3)
        (0.059, 0.255)
        >>> cost.usd_per_month.low < 0.196 * 1e6 * 0.1 < cost.usd_per_month.high
        True
    """
    rows = np.array([band.rows for band in bands], np.float64)
    wrong = np.array([band.wrong for band in bands], np.float64)
    rng = np.random.default_rng(seed)
    rates = rng.beta(wrong + 0.5, rows - wrong + 0.5, (DRAWS, len(bands)))
    before = (rates * rng.dirichlet(rows + 0.5, DRAWS)).sum(1)
    now = (rates * rng.dirichlet(live + 0.5, DRAWS)).sum(1)
    value_before = float(wrong.sum() / rows.sum())
    value_now = float((wrong / rows) @ (live / live.sum()))
    more, count = value_now - value_before, int(live.sum())
    price = rows_per_month * usd_per_error
    return DriftCost(
        error_before=_figure("error_before", value_before, before, int(rows.sum())),
        error_now=_figure("error_now", value_now, now, count),
        extra_errors_per_million=_figure("extra_errors_per_million", more * 1e6, (now - before) * 1e6, count),
        usd_per_month=_figure("usd_per_month", more * price, (now - before) * price, count),
        usd_per_error=usd_per_error,
        rows_per_month=rows_per_month,
    )


def _figure(name: str, value: float, draws: np.ndarray, count: int) -> Figure:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Figure(
        name=name, value=value, low=min(float(low), value), high=max(float(high), value), count=count, unit="rows"
    )

"""How much a model's answers differ between groups of people or things, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pydantic import Field

from kcost.core.predictions import SplitPredictions
from kcost.core.schema import Record
from kcost.core.stats import normal_quantile
from kcost.risk.figures import Figure, resampled_sums

LEAST = 30


class Disparity(Record):
    """One measure in the groups of a column: the group where it is largest against the one where it is least.

    The two are chosen as the most different ones, so that their intervals are widened for all pairs of groups
    (Bonferroni): a difference whose interval holds 0 is none that can be told.
    """

    column: str
    measure: str = Field(description="accuracy; of yes or no also selection_rate, true_positive_rate and so on")
    largest_in: str
    least_in: str
    difference: Figure
    ratio: Figure | None = Field(description="the least over the largest; None where the least is 0")


def disparities(
    answers: SplitPredictions, column: str, values: np.ndarray, unit: str, *, binary: bool = False
) -> tuple[Disparity, ...]:
    """Differences and ratios between the groups of one column; none where fewer than two groups have 30 examples.

    accuracy is of every classifier. Of yes or no, selection_rate (its difference is that of demographic parity),
    true_positive_rate and false_positive_rate are added, of which the larger difference is that of equalized odds, as
    Hardt, Price and Srebro (2016), Equality of Opportunity in Supervised Learning, NeurIPS, have them.

    Args:
        values: the group of each example, shape (n,), strings.
    """
    groups = [g for g in np.unique(values) if (values == g).sum() >= LEAST]
    if len(groups) < 2 or answers.entity_counts is not None:
        return ()
    of_label = values[answers.rows]
    right, yes, positive = answers.right, answers.predicted == 1, answers.labels == 1
    everything = np.ones(len(right), bool)
    measures = {"accuracy": (right, everything)}
    if binary:
        measures |= {
            "selection_rate": (yes, everything),
            "true_positive_rate": (yes & positive, positive),
            "false_positive_rate": (yes & ~positive, ~positive),
        }
    gaps = []
    for name, (hits, among) in measures.items():
        inside = [of_label == g for g in groups]
        counts = [(among & i).sum() for i in inside]
        if min(counts) == 0:
            continue
        columns = np.stack([x for i in inside for x in (hits & i, among & i)], 1).astype(np.float64)
        gaps.append(_disparity(column, name, [str(g) for g in groups], columns, unit))
    return tuple(gaps)


def _disparity(column: str, measure: str, groups: list[str], columns: np.ndarray, unit: str) -> Disparity:
    total = columns.sum(0)
    rates = total[0::2] / total[1::2]
    largest, least = int(rates.argmax()), int(rates.argmin())
    if largest == least:
        largest, least = 0, 1
    pairs = len(groups) * (len(groups) - 1) / 2
    z = normal_quantile(1 - 0.025 / pairs)
    drawn = resampled_sums(columns)
    share = drawn[:, 0::2] / np.maximum(drawn[:, 1::2], 1)
    pair = (share[:, largest], share[:, least])

    def figure(name: str, value: float, low: float, high: float) -> Figure:
        return Figure(name=name, value=value, low=low, high=high, count=len(columns), unit=unit)

    value = float(rates[largest] - rates[least])
    half = z * float((pair[0] - pair[1]).std())
    ratio = None
    if rates[least] > 0:
        quotient = float(rates[least] / rates[largest])
        spread = z * _deviation(np.log, np.maximum(pair[1], 1e-9) / np.maximum(pair[0], 1e-9))
        ratio = figure("ratio", quotient, quotient * math.exp(-spread), quotient * math.exp(spread))
    return Disparity(
        column=column,
        measure=measure,
        largest_in=groups[largest],
        least_in=groups[least],
        difference=figure("difference", value, max(-1.0, value - half), min(1.0, value + half)),
        ratio=ratio,
    )


def _deviation(transform: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> float:
    return float(transform(values).std())

"""Which examples to label first, and how many labels that saves: from stored predictions, and from scores.

An order is by how unsure a model is of what nobody labelled yet. For a tagged sentence it is the mean of its words, so
that long sentences are not first for their length alone.

Source: Settles, B. (2009), Active Learning Literature Survey, University of Wisconsin-Madison TR 1648, 3.1, for least
confidence and entropy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.predictions import SplitPredictions
from kcost.core.schema import Record
from kcost.cost.learning_curve import TAIL, fit_curve

Order = Literal["least confidence", "entropy", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)


def doubt_of(predictions: SplitPredictions, order: Order) -> np.ndarray:
    """How unsure a model is of each example, shape (n,), float64; larger is less sure. Of a sentence the mean of its
    words; 0 where it has none.

    Args:
        order: least confidence (1 less the largest probability) or entropy (in nats).

    Raises:
        InputError: another order.
    """
    logs = predictions.log_probabilities.astype(np.float64)
    if order == "least confidence":
        of_labels = 1 - np.exp(logs.max(-1))
    elif order == "entropy":
        of_labels = -(np.exp(logs) * logs).sum(-1)
    else:
        raise InputError("Doubt is least confidence or entropy.", received=order)
    count = len(predictions)
    sums = np.bincount(predictions.rows, weights=of_labels, minlength=count)
    words = np.bincount(predictions.rows, minlength=count)
    doubt: np.ndarray = sums / np.maximum(words, 1)
    return doubt


def label_order(predictions: SplitPredictions, order: Order, seed: int = 0) -> np.ndarray:
    """Places of the examples in their split, the one to label first in front: shape (n,), int64, each once.

    Args:
        predictions: of examples without a label; the stored labels are not read.
        seed: of the random order, and of equal ones.

    Examples:
        >>> logs = np.log(np.array([[0.9, 0.1], [0.5, 0.5], [0.7, 0.3]], np.float32))
        >>> whole = np.arange(3)
        >>> label_order(SplitPredictions(whole, whole, logs, whole, whole + 10), "entropy").tolist()
        [11, 12, 10]
    """
    if order not in ORDERS:
        raise InputError(f"An order is one of {', '.join(ORDERS)}.", received=order)
    shuffled = np.random.default_rng(seed).permutation(len(predictions))
    if order == "random":
        chosen = shuffled
    else:
        chosen = shuffled[np.argsort(-doubt_of(predictions, order)[shuffled], kind="stable")]
    places: np.ndarray = predictions.examples[chosen].astype(np.int64)
    return places


class LabelsSaved(Record):
    """How many labels fewer an order takes than a random one for the same score."""

    labels: float = Field(description="that the order was given")
    score: float = Field(description="mean over seeds with these")
    random_labels: float | None = Field(description="that a random order takes for it; None where it never gets there")
    low: float | None = Field(description="ends of the 90% interval of these")
    high: float | None

    @property
    def saved(self) -> float | None:
        """Part of the labels of a random order that is saved; negative where the order takes more."""
        return None if self.random_labels is None else 1 - self.labels / self.random_labels

    @property
    def saves(self) -> bool:
        """Whether fewer labels with 95% probability: the low end of what a random order takes lies above."""
        return self.low is None or self.low > self.labels


def labels_saved(
    random: Mapping[float, Sequence[float]], ordered: Mapping[float, Sequence[float]], seed: int = 0
) -> tuple[LabelsSaved, ...]:
    """For each size of an ordered set the labels that a random order would take for the same mean score.

    A learning curve through the scores of the random order is read backwards. Its doubt, and the scatter of the ordered
    scores by seed, are in the interval.

    Args:
        random, ordered: number of labels -> scores of some seeds; `random` at three sizes or more.

    Raises:
        InputError: what `fit_curve` refuses, or no ordered score.
    """
    if not ordered or any(not scores for scores in ordered.values()):
        raise InputError("An order is judged by its scores.", received=dict(ordered))
    curve = fit_curve(random, seed)
    generator = np.random.default_rng(seed)
    rows = []
    for labels, scores in sorted(ordered.items()):
        mean = float(np.mean(scores))
        scatter = curve.noise * (1 - mean) / math.sqrt(len(scores)) * generator.standard_normal(len(curve.noise))
        needed = np.sort(curve.labels_for(mean + scatter))
        middle, low, high = (float(needed[round((len(needed) - 1) * f)]) for f in (0.5, TAIL, 1 - TAIL))
        rows.append(
            LabelsSaved(
                labels=labels,
                score=mean,
                random_labels=middle if math.isfinite(middle) else None,
                low=low if math.isfinite(low) else None,
                high=high if math.isfinite(high) else None,
            )
        )
    return tuple(rows)

"""Whether a model can tell examples that it was not made for from its own: by its confidence, and by its energy."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from kcost.core.artifact import Dataset
from kcost.core.ood_scores import StoredOodScores
from kcost.core.schema import Record
from kcost.core.scores import auroc
from kcost.risk.figures import Figure, share

KEPT = 0.95
"""Share of the model's own test examples that a threshold is to let through."""


class Detection(Record):
    """How well one figure of an example tells examples of other data."""

    by: str = Field(description="confidence or energy")
    auroc: Figure = Field(description="how often an own example has more of it than one of the other data, ties half")
    let_through: Figure = Field(
        description="examples of the other data above the threshold that keeps 95% of the own ones"
    )


class OutOfDistribution(Record):
    """Out-of-distribution detection against one other data set."""

    scores_file: str
    scores_sha256: str
    other: Dataset
    detections: tuple[Detection, ...]
    no_energy_because: str | None = None

    @property
    def best(self) -> Detection:
        """What tells them best."""
        return max(self.detections, key=lambda d: d.auroc.value)


def ood_detection(stored: StoredOodScores, file: str) -> OutOfDistribution:
    """Detection of examples of other data by the confidence and the energy of each.

    Sources: Hendrycks and Gimpel (2017), A Baseline for Detecting Misclassified and Out-of-Distribution Examples in
    Neural Networks, ICLR; Liu, Wang, Owens and Li (2020), Energy-based Out-of-distribution Detection, NeurIPS.

    Args:
        file: name of the file that the figures are stored in.
    """
    header, own, other = stored.header, stored.own, stored.other
    pairs = {"confidence": (own.confidence, other.confidence)}
    if own.energy is not None and other.energy is not None:
        pairs["energy"] = (own.energy, other.energy)
    return OutOfDistribution(
        scores_file=file,
        scores_sha256=stored.sha256,
        other=header.other,
        detections=tuple(_detection(by, *both, header.unit) for by, both in pairs.items()),
        no_energy_because=header.no_energy_because,
    )


def _on_logits(value: float, half: float) -> tuple[float, float]:
    """An interval of a share that is symmetric on log odds: near 1 it holds more often than one around the share.

    Source: Pepe (2003), The Statistical Evaluation of Medical Tests for Classification and Prediction, section 5.2.
    """
    if not 0 < value < 1 or not half:
        return value, value
    odds, reach = math.log(value / (1 - value)), half / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-(odds + side * reach))) for side in (-1, 1))
    return low, high


def _detection(by: str, own: np.ndarray, other: np.ndarray, unit: str) -> Detection:
    labels = np.concatenate([np.ones(len(own), np.int64), np.zeros(len(other), np.int64)])
    area = auroc(labels, np.concatenate([own, other]), "test", unit)
    low, high = _on_logits(area.value, max(area.value - area.low, area.high - area.value))
    if low == high:
        # No pair is in the wrong order, or all are, which says little of what was not drawn: an exact interval of as
        # many independent pairs as there are.
        pairs = min(len(own), len(other))
        exact = share("auroc", round(area.value * pairs), pairs, unit)
        low, high = min(area.value, exact.low), max(area.value, exact.high)
    threshold = float(np.quantile(own, 1 - KEPT, method="lower"))
    return Detection(
        by=by,
        auroc=Figure(name=f"auroc_{by}", value=area.value, low=low, high=high, count=len(labels), unit=unit),
        let_through=share(f"let_through_{by}", int((other >= threshold).sum()), len(other), unit),
    )

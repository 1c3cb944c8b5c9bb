"""Made-up stored predictions, for tests of the maths over them."""

from __future__ import annotations

import numpy as np

from kcost.core.predictions import SplitPredictions
from kcost.risk.calibration import log_softmax


def classifier(
    count: int, seed: int, *, temperature: float = 1.0, classes: int = 4, spread: float = 2.0
) -> SplitPredictions:
    """Labels drawn from softmax(logits), and a model that says softmax(logits x temperature): right at 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (count, classes))
    probabilities = np.exp(log_softmax(logits))
    labels = (probabilities.cumsum(1) > rng.random((count, 1))).argmax(1)
    said = np.maximum(log_softmax(logits * temperature), np.log(1e-7)).astype(np.float32)
    return SplitPredictions(labels, said.argmax(1), said, np.arange(count), np.arange(count))


def sure_of(confidence: float, right: list[bool]) -> SplitPredictions:
    """Two classes; each answer is of this confidence, and right as the list says."""
    count = len(right)
    logs = np.log(np.tile([confidence, 1 - confidence], (count, 1))).astype(np.float32)
    labels = np.array([0 if r else 1 for r in right])
    return SplitPredictions(labels, np.zeros(count, np.int64), logs, np.arange(count), np.arange(count))


def tagger(count: int, seed: int, missed_share: float = 0.2) -> SplitPredictions:
    """Sentences of three words in two classes, an entity or none in each, of which a share is missed."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(count), 3)
    labels = rng.integers(0, 2, 3 * count)
    wrong = rng.random(3 * count) < missed_share
    predicted = np.where(wrong, 1 - labels, labels)
    logs = np.full((3 * count, 2), np.log(0.2), np.float32)
    logs[np.arange(3 * count), predicted] = np.log(0.8)
    counts = np.zeros((count, 2, 3), np.int64)
    kind = rng.integers(0, 2, count)
    missed = rng.random(count) < missed_share
    counts[np.arange(count), kind, np.where(missed, 2, 0)] = 1
    return SplitPredictions(labels, predicted, logs, rows, np.arange(count), counts)

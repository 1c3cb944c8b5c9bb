"""What the errors of a way cost, by the user's table: priced beside its machines."""

from __future__ import annotations

import numpy as np

from kcost.core.errors import InputError
from kcost.risk.expected_loss import MILLION, LossTable, cost_matrix
from kcost.risk.figures import Figure, bootstrapped


def errors_of(predictions: np.ndarray, labels: np.ndarray, table: LossTable, names: tuple[str, ...]) -> Figure:
    """USD that errors cost in a million answers such as these, with a bootstrap interval over the examples.

    Args:
        predictions, labels: class numbers, shape (n,), integers; a label below 0 counts nothing.
        names: of the classes; empty where nobody named them, and then they are called by their numbers.

    Raises:
        InputError: the table names classes that the model does not have.
    """
    known = labels >= 0
    labels, predictions = labels[known].astype(np.int64), predictions[known].astype(np.int64)
    if not len(labels):
        raise InputError("Errors are priced on examples with labels.", "none", "Give --data with labels.")
    count = int(max(labels.max(), predictions.max())) + 1
    matrix = cost_matrix(table, names or tuple(str(i) for i in range(count)))
    usd = matrix[labels, predictions]
    sums = np.stack([usd, np.ones(len(usd))], 1)
    return bootstrapped("loss_usd_per_million", sums, _mean, "examples", lowest=0.0)


def _mean(drawn: np.ndarray) -> np.ndarray:
    per_million: np.ndarray = MILLION * drawn[:, 0] / np.maximum(drawn[:, 1], 1)
    return per_million

"""The loss of each task."""

from __future__ import annotations

import keras

from kcost.core.errors import UnavailableError

IGNORED_LABEL = -1
"""Label of positions that count neither in a loss nor in a score: padding, continuation pieces."""


def loss_of(task: str) -> keras.losses.Loss:
    """Cross-entropy over integer labels, as the task's outputs need it.

    Raises:
        UnavailableError: the task is unknown, so that no loss can be chosen.
    """
    if task == "image-classification":
        return keras.losses.SparseCategoricalCrossentropy()
    if task in ("token-classification", "sequence-classification"):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORED_LABEL)
    raise UnavailableError(
        "A training step needs a task that kcost has a loss for.",
        received=f"task {task!r}",
        remedy="Measure inference only (--phases inference), or give an artifact folder, which names its task.",
    )

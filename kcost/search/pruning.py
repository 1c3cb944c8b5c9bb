"""Which training runs are not worth their end: the median rule, on validation losses."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

MIN_TRIALS = 4
"""Completed trials that a median is taken of, at least."""

FIRST_EPOCH = 2
"""The first epoch after which a run may be ended: a slow start, as of a warm-up, is not held against it."""


def prune_above(histories: Sequence[Sequence[float]], epochs: int) -> dict[int, float]:
    """The validation loss, by epoch, above which a run is to be ended there: the median of earlier runs.

    The rule of Golovin et al. (2017), Google Vizier, section 3.4, without its running averages. Optuna's own pruners
    do not work in studies with two objectives.

    Args:
        histories: validation losses by epoch of completed, comparable runs; some may have stopped early.
        epochs: of the run to come. Ending it after the last one would save nothing.

    Returns:
        Epoch, from 1 on, to loss; no entry where fewer than MIN_TRIALS runs got so far.
    """
    limits: dict[int, float] = {}
    for epoch in range(FIRST_EPOCH, epochs):
        losses = [losses[epoch - 1] for losses in histories if len(losses) >= epoch]
        if len(losses) >= MIN_TRIALS:
            limits[epoch] = statistics.median(losses)
    return limits

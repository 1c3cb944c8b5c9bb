"""What training costs."""

from __future__ import annotations

import math

from kcost.core.errors import InputError
from kcost.core.result import CellResult, ModelEntry
from kcost.core.stats import Interval
from kcost.cost.estimate import CostEstimate, estimate, steps_per_million
from kcost.cost.machine_match import Match


def usd_per_run(
    cell: CellResult,
    match: Match,
    *,
    train_examples: int,
    epochs: int,
    utilisation: float = 1.0,
    step: Interval | None = None,
) -> CostEstimate:
    """US dollars of one training run: the steps alone, without reading data, evaluating or saving.

    usd = usd_per_hour / 3600 s * step_s * ceil(train_examples / batch) * epochs / utilisation

    Args:
        utilisation: part of the paid time that trains, above 0 and at most 1.
        step: the cell's `estimate.step_ns`, for a caller that has it.

    Raises:
        InputError: no rounds, a size that is not positive, or a utilisation outside (0, 1].
    """
    if train_examples < 1 or epochs < 1:
        raise InputError(
            "A training run has at least one example and one epoch.", received=f"{train_examples} and {epochs}"
        )
    steps = math.ceil(train_examples / cell.spec.batch) * epochs
    unit = f"training run ({epochs} epochs of {train_examples:,} examples)"
    return estimate(cell, match, steps=steps, unit=unit, utilisation=utilisation, step=step)


def usd_of_training(cell: CellResult, match: Match, entry: ModelEntry, *, step: Interval | None = None) -> CostEstimate:
    """The cost of the run that the model came from; per million examples where the run's size is not known."""
    if entry.train_examples is None or entry.train_epochs is None:
        return estimate(cell, match, steps=steps_per_million(cell.spec), unit="million training examples", step=step)
    return usd_per_run(cell, match, train_examples=entry.train_examples, epochs=entry.train_epochs, step=step)

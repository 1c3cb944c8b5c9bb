"""What predictions cost."""

from __future__ import annotations

from kcost.core.result import CellResult
from kcost.core.stats import Interval
from kcost.cost.estimate import CostEstimate, estimate, steps_per_million
from kcost.cost.machine_match import Match

UNIT = "million predictions"


def usd_per_million(
    cell: CellResult, match: Match, *, utilisation: float = 1.0, step: Interval | None = None
) -> CostEstimate:
    """US dollars per million predictions, one prediction being one example of a batch.

    usd = usd_per_hour / 3600 s * step_s / batch * 1e6 / utilisation

    The default, a machine that does nothing else and is never idle, is the least that it can cost.

    Args:
        utilisation: part of the paid time that makes predictions, above 0 and at most 1.
        step: the cell's `estimate.step_ns`, for a caller that has it.

    Raises:
        InputError: no rounds, or a utilisation outside (0, 1].
    """
    return estimate(cell, match, steps=steps_per_million(cell.spec), unit=UNIT, utilisation=utilisation, step=step)

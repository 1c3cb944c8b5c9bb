"""A cost in dollars, with everything that it rests on."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.plan import CellSpec
from kcost.core.result import CellResult
from kcost.core.schema import Record
from kcost.core.stats import Interval, location, median_per_round
from kcost.cost.machine_match import Match
from kcost.cost.price_rules import Price

NS_PER_HOUR = 3600 * 10**9

Basis = Literal["measured here", "scaled", "projected", "simulated"]
"""measured here: real seconds, on a machine of the priced size. scaled: real seconds, of the same family of processors
with another count of cores, taken as they are. projected: real seconds, of a machine that differs from the priced one
in processor or accelerator, taken as they are. simulated: the seconds were made up."""


class CostEstimate(Record):
    """US dollars for a piece of work. The interval holds what measuring scattered, not what the price may do."""

    usd: float
    low: float = Field(description="lower end of the 95% interval")
    high: float | None = Field(description="upper end of the 95% interval; None with one round, which has none")
    unit: str = Field(description="the piece of work, such as `million predictions`")
    price: Price
    usd_per_hour: float = Field(description="what is paid: the price, or the part of it that one model uses")
    utilisation: float = Field(gt=0, le=1, description="part of the paid time that does such work")
    basis: Basis
    assumptions: tuple[str, ...]


def step_ns(cell: CellResult) -> Interval:
    """The typical time of a step in nanoseconds: `core.stats.location` of the medians of the rounds.

    Raises:
        InputError: the cell holds no rounds.
    """
    if not cell.rounds:
        raise InputError(
            "A cost is taken from measured rounds.",
            received=f"{cell.spec.label} of {cell.spec.model}, status {cell.status}, without any",
            remedy="Measure the cell: `kcost bench` goes on with what is missing.",
        )
    return location(median_per_round([r.step_ns for r in cell.rounds]))


def estimate(
    cell: CellResult,
    match: Match,
    *,
    steps: float,
    unit: str,
    utilisation: float = 1.0,
    step: Interval | None = None,
) -> CostEstimate:
    """What `steps` steps of a cell cost on the matched instance.

    usd = usd_per_hour / 3600 s * step_s * steps / utilisation

    Args:
        steps: how many steps the piece of work takes; part of a step counts as that part.
        utilisation: part of the paid time in which steps run, above 0 and at most 1.
        step: the cell's `step_ns`, for a caller that has it.

    Raises:
        InputError: no rounds, or a utilisation outside its range.
    """
    if not 0 < utilisation <= 1:
        raise InputError("Utilisation is above 0 and at most 1.", received=utilisation)
    usd_per_hour = match.usd_per_hour
    cost = (step or step_ns(cell)).scaled(usd_per_hour / NS_PER_HOUR * steps / utilisation)
    simulated = cell.preparation is not None and cell.preparation.simulated
    return CostEstimate(
        usd=cost.value,
        low=cost.low,
        high=cost.high if math.isfinite(cost.high) else None,
        unit=unit,
        price=match.price,
        usd_per_hour=usd_per_hour,
        utilisation=utilisation,
        basis="simulated" if simulated else basis_of_match(match),
        assumptions=_assumptions(match, utilisation, simulated=simulated),
    )


def basis_of_match(match: Match) -> Basis:
    """What real seconds are worth at the price of an instance."""
    return "measured here" if match.same_machine else "scaled" if match.same_family else "projected"


def _assumptions(match: Match, utilisation: float, *, simulated: bool) -> tuple[str, ...]:
    assumptions = [match.why] if match.is_assumption or not match.same_machine else []
    assumptions.append(f"The machine is paid for by the hour and busy for {utilisation:.0%} of the time.")
    if simulated:
        assumptions.append("Simulated: the step times were made up, not measured.")
    return tuple(assumptions)


def steps_per_million(spec: CellSpec) -> float:
    """Steps that a million examples take; the last one may be a part."""
    return 1e6 / spec.batch

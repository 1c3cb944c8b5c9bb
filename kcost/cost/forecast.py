"""What serving was forecast to cost, beside what it costs: by how much they differ, and through what.

A million requests cost, idle time included,

    USD an hour of the machine / 3600 s x seconds of the machine a request x 1,000,000 / busy part of the time

So the ratio of what it costs to what was forecast is the product of three ratios, of the price, of the time a request
and of one over the busy part; nothing is left over that would have to be explained otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.core.units import format_s, format_usd, significant

if TYPE_CHECKING:
    from kcost.core.result import CellResult, Run
    from kcost.cost.budget import Budget

ALIKE = 0.05
"""Ratios within this are not told as a reason."""

SERVED = "/saved_model"
"""In the name of the way that an export is served as."""

_SHOWN_WAYS = 5
T = TypeVar("T")


class Forecast(Record):
    """What a model was forecast to cost, by one way of serving it."""

    model: str = Field(default="", description="as the budget or the run calls it; empty where it does not")
    way: str = Field(description="of the budget or the run")
    source: str = Field(description="the file or folder")
    usd_per_hour: float = Field(description="of a machine")
    machine_s: float = Field(description="of a machine, a request, in full batches")
    batch: int | None = Field(description="most requests that it puts together; None where none was simulated")
    busy_share: float | None = Field(description="of a machine's time; None of a run, which knows no traffic")
    simulated: bool = Field(default=False, description="the step times were made up")

    @property
    def usd_per_million(self) -> float:
        """Idle time left out."""
        return self.usd_per_hour / 3600 * self.machine_s * 1e6

    @property
    def usd_per_million_with_idle(self) -> float | None:
        """At the traffic of the budget; None of a run."""
        return None if self.busy_share is None else self.usd_per_million / self.busy_share


class Difference(Record):
    """What some requests cost over what was forecast."""

    way: str
    source: str
    usd_per_million: float = Field(description="that was forecast, idle time left out")
    usd_per_million_with_idle: float | None = Field(description="that was forecast; None of a run: it knows no traffic")
    times: float = Field(description="what they cost over the forecast, with idle time where the forecast has it")
    price_times: float = Field(description="of the machine, over that of the forecast; the next two multiply with it")
    machine_s_times: float = Field(description="seconds of the machine a request, over those of the forecast")
    idle_times: float = Field(description="busy part of the time that was forecast over the one that is; 1 of a run")
    why: str


def difference(
    forecast: Forecast, *, usd_per_hour: float, machine_s: float, busy_share: float, together: float
) -> Difference:
    """How what is differs from what was forecast.

    Args:
        usd_per_hour: price of the machine.
        machine_s: seconds of it that a request took.
        busy_share: part of the time in which requests were with the model, above 0.
        together: requests under way at a time, where there was one.

    Examples:
        >>> plan = Forecast(way="w", source="f", usd_per_hour=0.5, machine_s=0.001, batch=32, busy_share=0.5)
        >>> difference(plan, usd_per_hour=0.5, machine_s=0.002, busy_share=0.1, together=1.2).why.split(": ")[0]
        '10.0 times the forecast'
    """
    price = usd_per_hour / forecast.usd_per_hour
    time = machine_s / forecast.machine_s
    idle = 1.0 if forecast.busy_share is None else forecast.busy_share / busy_share
    reasons = []
    if abs(idle - 1) > ALIKE and forecast.busy_share is not None:
        reasons.append(
            (idle, f"the machine was busy {_percent(busy_share)} of the time, not {_percent(forecast.busy_share)}")
        )
    if abs(time - 1) > ALIKE:
        text = f"a request took {format_s(machine_s)} of the machine, not {format_s(forecast.machine_s)}"
        if time > 1 and forecast.batch is not None and together < forecast.batch / 2:
            text += f": {significant(together, 2)} were under way together, where batches of {forecast.batch} are full"
        reasons.append((time, text))
    if abs(price - 1) > ALIKE:
        reasons.append(
            (price, f"the machine costs {format_usd(usd_per_hour)} an hour, not {format_usd(forecast.usd_per_hour)}")
        )
    reasons.sort(key=lambda reason: -max(reason[0], 1 / reason[0]))
    times = price * time * idle
    why = "as forecast" if abs(times - 1) <= ALIKE else f"{significant(times)} times the forecast"
    if reasons:
        why += ": " + "; ".join(f"{text} ({_times(ratio)})" for ratio, text in reasons)
    if forecast.simulated:
        why += "; the forecast is of made-up step times"
    return Difference(
        way=forecast.way,
        source=forecast.source,
        usd_per_million=forecast.usd_per_million,
        usd_per_million_with_idle=forecast.usd_per_million_with_idle,
        times=times,
        price_times=price,
        machine_s_times=time,
        idle_times=idle,
        why=why,
    )


def _times(ratio: float) -> str:
    return f"{significant(ratio)} times dearer" if ratio >= 1 else f"{significant(1 / ratio)} times cheaper"


def _percent(share: float) -> str:
    return f"{significant(100 * share)}%"


def forecast_of_budget(budget: Budget, way: str | None, source: str) -> Forecast:
    """The forecast of one option.

    Args:
        way: a part of the name of one option; None takes the one that an export is served as, else the cheapest.

    Raises:
        InputError: the budget has no figure, or not one option is meant.
    """
    bills = [priced.bill for priced in budget.options]
    if not bills:
        raise InputError(
            "A forecast is a budget with figures.",
            received=f"{source}: {budget.invalid or 'no option'}",
            remedy="Measure again, and make the budget anew: kcost cost RUN --qps Q --p99-ms T --json",
        )
    bill = _meant(bills, lambda b: b.option.name, way, source)
    option = bill.option
    return Forecast(
        model=option.model or "",
        way=option.name,
        source=source,
        usd_per_hour=option.usd_per_hour,
        machine_s=1 / (option.workers_per_instance * option.queries_per_s_at_full_load),
        batch=option.batch_limit,
        busy_share=1 - bill.idle_share,
        simulated=option.simulated,
    )


def forecast_of_run(run: Run, way: str | None, source: str, usd_per_hour: float) -> Forecast:
    """The forecast of one way that a run measured, at its cheapest batch size and on one machine: without idle time.

    Args:
        way: a part of the name of one way; None takes the one that an export is served as, else the cheapest.
        usd_per_hour: price of the machine, as a run has none.

    Raises:
        InputError: no cell of the run was measured, or not one way is meant.
    """
    cells = sorted(run.measured(phase="inference"), key=_seconds)
    if not cells:
        raise InputError(
            "A forecast is of a run with a measured inference cell.",
            received=f"{source}, without one",
            remedy="Measure it: kcost bench ARTIFACT --backends tensorflow --methods saved_model --out RUN",
        )
    cell = _meant(cells, _name, way, source)
    return Forecast(
        model=cell.spec.model,
        way=f"{_name(cell)} batch {cell.spec.batch}",
        source=source,
        usd_per_hour=usd_per_hour,
        machine_s=_seconds(cell),
        batch=cell.spec.batch,
        busy_share=None,
        simulated=cell.preparation is not None and cell.preparation.simulated,
    )


def _seconds(cell: CellResult) -> float:
    """Of a prediction: the mean step over its rows."""
    return (
        float(np.mean(np.concatenate([np.asarray(r.step_ns, np.float64) for r in cell.rounds]))) / 1e9 / cell.spec.batch
    )


def _name(cell: CellResult) -> str:
    return f"{cell.spec.model} {cell.spec.backend}/{cell.spec.method} {cell.spec.dtype}"


def _meant(items: Sequence[T], name: Callable[[T], str], way: str | None, source: str) -> T:
    """The item of the way that is meant; items are sorted, the cheapest first."""
    names = list(dict.fromkeys(name(item) for item in items))
    fitting = [n for n in names if (way or SERVED) in n]
    if way is None and not fitting:
        fitting = names[:1]
    if len(fitting) != 1:
        shown = ", ".join((fitting or names)[:_SHOWN_WAYS])
        meant = f"{len(fitting)} ways" if way is None else f"{way!r}, which is in the names of {len(fitting)} ways"
        raise InputError(
            "A forecast is of one way of serving.",
            received=f"{meant} of {source}: {shown}",
            remedy="Name it behind the file, by a part of its name that no other has: --forecast NAME=FILE@WAY",
        )
    return next(item for item in items if name(item) == fitting[0])

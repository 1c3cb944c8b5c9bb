"""Where a measured model could run, and what a million answers would cost there: measured here, projected elsewhere.

An option says its basis. A projection is never put above a measurement without its mark, and what was published of
like models on
the same chip stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.result import CellResult, Environment, Run
from kcost.core.schema import Record
from kcost.core.units import format_usd, significant, usd_scale
from kcost.cost.basis import CostBasis, basis_of
from kcost.cost.between_machines import BetweenMachines, coefficients
from kcost.cost.cell_workload import counted_activations, engine_of, workload_of
from kcost.cost.devices import IN_PRICE_BOOKS, Device, Number, device_named
from kcost.cost.inference import usd_per_million
from kcost.cost.machine_match import Match
from kcost.cost.payment import Pay, usd_per_hour
from kcost.cost.price_rules import Price
from kcost.cost.projection import Grading, Projection, fitted, project
from kcost.cost.published import evidence, published
from kcost.cost.workload import Workload

SHOWN_EVIDENCE = 2


class Placement(Record):
    """One way of running one model on one instance."""

    model: str
    runs_as: str = Field(description="backend and method of the cell that it is taken from")
    precision: str
    batch: int
    basis: CostBasis
    price: Price = Field(description="the price that was used, with its source and day")
    usd_per_hour: float = Field(description="what is paid: of one accelerator, where the instance has more")
    step_ms: float
    low_ms: float = Field(description="lower end: 95% where measured, 90% where projected")
    high_ms: float | None
    usd_per_million: float = Field(description="at full load")
    low_usd: float
    high_usd: float | None
    examples_per_s: float
    projection: Projection | None = Field(default=None, description="by the data sheet of a device; else None")
    between: BetweenMachines | None = Field(default=None, description="by probes of two machines; else None")
    published: tuple[str, ...] = Field(default=(), description="measurements of others on the same chip, nearest first")

    @property
    def refused(self) -> str | None:
        """Why a projection is not to be used."""
        made = self.projection or self.between
        return None if made is None else made.refused

    @property
    def was_measured(self) -> bool:
        """Whether its seconds are those of a step that ran, and not of a model of one."""
        return self.projection is None and self.between is None

    @property
    def step_text(self) -> str:
        """The figure in words, marked."""
        high = "unbounded" if self.high_ms is None else significant(self.high_ms)
        mark = "" if self.was_measured else ", scaled" if self.basis == "scaled" else ", projected"
        return f"{significant(self.step_ms)} ms ({significant(self.low_ms)} to {high}{mark})"


class ProjectionReport(Record):
    """What a model costs where it was measured and where it was not."""

    sentences: tuple[str, ...] = Field(description="one for each model: the cheapest measured, the cheapest projected")
    options: tuple[Placement, ...] = Field(description="usable ones by cost, then those that are refused")
    not_projected: tuple[str, ...] = Field(
        default=(), description="cells and instances without a projection, each with its reason"
    )
    grading: Grading = Field(description="how far the projection was off where devices were left out")
    between_fitted_to: str | None = Field(
        default=None, description="what the projection between probed machines rests on; None where none was made"
    )


def instance_device(price: Price) -> Device:
    """The device that an instance has.

    Raises:
        InputError: it has no accelerator, or one of unknown peaks.
    """
    if price.accelerator is None:
        raise InputError(
            "A projection is made to an instance with an accelerator whose peaks are known.",
            received=f"{price.key}, which has none",
            remedy=f"Run `kcost probe` on it, then --to {price.instance}=there.json, and --probe here.json of the "
            "machine that measured. Vendors publish no peak of a processor.",
        )
    return device_named(IN_PRICE_BOOKS.get(price.accelerator, price.accelerator))


def report(
    run: Run,
    matched: Mapping[str, Match],
    targets: Sequence[Price],
    classes: Mapping[str, Mapping[str, int]],
    *,
    pay: Pay = "on-demand",
    precision: Number | None = None,
    batches: Sequence[int] = (),
    probed: Sequence[Placement] = (),
    not_probed: Sequence[str] = (),
) -> ProjectionReport:
    """Every inference cell of a run where it was measured, and projected to instances.

    Args:
        matched: environment_id -> what the measuring machine is priced as.
        targets: what to project to.
        classes: model -> classes of the layers in its file, by count.
        precision: of the projected steps; None takes what the framework computes in on that device.
        batches: of the projected steps; none takes those that were measured.
        probed: what was projected by probes (`probed_placements`), and in `not_probed` what could not be.

    Raises:
        InputError: no inference cell, or an instance that nothing can be projected to.
    """
    cells = run.measured(phase="inference")
    if not cells:
        raise InputError(
            "A projection begins at a measured forward pass.",
            received="a run without one",
            remedy="Measure some: `kcost bench`.",
        )
    devices = [(price, instance_device(price)) for price in targets]
    measured = [_measured(c, matched[c.environment_id], run.environments[c.environment_id]) for c in cells]
    projected: dict[tuple[str, str, str, int, str], Placement] = {}  # runtimes of one engine are projected alike: once
    not_projected: dict[str, None] = {}
    counted = {name: counted_activations(c for c in cells if c.spec.model == name) for name in classes}
    for cell in cells:
        for price, device in devices:
            for batch in batches or (cell.spec.batch,):
                try:
                    workload = workload_of(
                        cell,
                        classes.get(cell.spec.model, {}),
                        device,
                        precision=precision,
                        batch=batch,
                        activations=counted.get(cell.spec.model),
                    )
                    option = _projected(cell, workload, price, device, pay)
                except InputError as error:
                    not_projected[f"{cell.spec.model}: {error.rule} Received: {error.received}. {error.remedy}"] = None
                    continue
                key = (option.model, engine_of(cell.spec), option.precision, batch, price.key)
                projected.setdefault(key, option)
    ordered = sorted(
        [*measured, *projected.values(), *probed], key=lambda o: (o.refused is not None, o.usd_per_million, o.price.key)
    )
    names = dict.fromkeys(o.model for o in measured)
    return ProjectionReport(
        sentences=tuple(_sentence([o for o in ordered if o.model == name]) for name in names),
        options=tuple(ordered),
        not_projected=(*not_projected, *not_probed),
        grading=fitted().gradings[0],
        between_fitted_to=coefficients().fitted_to if probed else None,
    )


def _measured(cell: CellResult, match: Match, environment: Environment) -> Placement:
    cost = usd_per_million(cell, match)
    ms_of_usd = 3600e3 / match.usd_per_hour * cell.spec.batch / 1e6
    return Placement(
        model=cell.spec.model,
        runs_as=f"{cell.spec.backend}/{cell.spec.method}",
        precision=cell.spec.precision,
        batch=cell.spec.batch,
        basis="simulated" if cost.basis == "simulated" else basis_of(environment, match.price),
        price=match.price,
        usd_per_hour=match.usd_per_hour,
        step_ms=cost.usd * ms_of_usd,
        low_ms=cost.low * ms_of_usd,
        high_ms=None if cost.high is None else cost.high * ms_of_usd,
        usd_per_million=cost.usd,
        low_usd=cost.low,
        high_usd=cost.high,
        examples_per_s=cell.spec.batch / (cost.usd * ms_of_usd) * 1e3,
    )


def placed(
    cell: CellResult,
    precision: str,
    batch: int,
    basis: CostBasis,
    price: Price,
    usd_per_hour: float,
    made: Projection | BetweenMachines,
    published: tuple[str, ...] = (),
) -> Placement:
    """A measured cell at the projected seconds of another machine, priced.

    Args:
        batch: of the projected step, which need not be the cell's.
        usd_per_hour: of what runs the step: of one accelerator, where the instance has more.
        made: the projection.
        published: measurements of others that stand beside it.
    """
    usd_of_ms = usd_per_hour / 3600e3 / batch * 1e6
    return Placement(
        model=cell.spec.model,
        runs_as=f"{cell.spec.backend}/{cell.spec.method}",
        precision=precision,
        batch=batch,
        basis=basis,
        price=price,
        usd_per_hour=usd_per_hour,
        step_ms=made.step_ms,
        low_ms=made.low_ms,
        high_ms=made.high_ms,
        usd_per_million=made.step_ms * usd_of_ms,
        low_usd=made.low_ms * usd_of_ms,
        high_usd=made.high_ms * usd_of_ms,
        examples_per_s=batch / made.step_ms * 1e3,
        projection=made if isinstance(made, Projection) else None,
        between=made if isinstance(made, BetweenMachines) else None,
        published=published,
    )


def _projected(cell: CellResult, workload: Workload, price: Price, device: Device, pay: Pay) -> Placement:
    projection = project(workload, device)
    hourly = usd_per_hour(price, pay) / max(1, price.accelerator_count)
    shown = tuple(row.line for row in evidence(published(), device, workload, SHOWN_EVIDENCE))
    return placed(cell, workload.precision, int(workload.batch), "projected", price, hourly, projection, shown)


def _sentence(options: Sequence[Placement]) -> str:
    """The cheapest measured and the cheapest projected option, and from which rate on the second is cheaper."""
    here = _first(o for o in options if o.was_measured)
    there = _first(o for o in options if not o.was_measured and o.refused is None)
    assert here is not None  # each cell that a report is made of was measured
    costs = [option.usd_per_million for option in (here, there) if option is not None]
    scale = usd_scale(costs, "million predictions")
    best = (
        f"{here.model}: {here.basis}, the cheapest is {here.runs_as} at batch {here.batch} on {here.price.instance}, "
        f"{scale.text(here.usd_per_million)} per {scale.unit}"
    )
    if there is None:
        return f"{best}; nothing could be projected well enough to be used."
    would = (
        f"[{'scaled' if there.basis == 'scaled' else 'projected'}] {there.price.instance} at "
        f"{format_usd(there.usd_per_hour)} an hour would need {there.step_text} for a batch of {there.batch}, "
        f"{scale.text(there.usd_per_million)} per {scale.unit}"
    )
    if there.high_usd is not None and there.high_usd < here.low_usd:
        rate = cheaper_above(here, there)
        at = "" if rate is None else f", cheaper above {significant(rate)} predictions a second"
        return f"{best}. {would}{at}."
    if there.low_usd > (here.high_usd or math.inf):
        return f"{best}. {would}: dearer at any rate."
    return f"{best}. {would}: can't tell which is cheaper; measuring there would."


def cheaper_above(here: Placement, there: Placement) -> float | None:
    """The rate from which one instance there costs less than the machines that it takes here, predictions a second.

    Here n machines serve up to n x examples_per_s. The first n that cost more than one instance there are needed above
    (n - 1) x examples_per_s. None where one instance there doesn't serve that many.
    """
    rate = math.floor(there.usd_per_hour / here.usd_per_hour) * here.examples_per_s
    return rate if rate < there.examples_per_s else None


def _first(options: Iterable[Placement]) -> Placement | None:
    return min(options, key=lambda o: o.usd_per_million, default=None)

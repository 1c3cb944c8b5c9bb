"""The ways of serving that a run measured: cells that differ in batch size alone are one way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kcost.core.errors import InputError
from kcost.core.plan import CellSpec
from kcost.core.result import CellResult, Environment, Run
from kcost.core.stats import NORMAL_95
from kcost.cost.measured_service import service_of
from kcost.cost.queue_simulation import ServiceTimes
from kcost.cost.ranking import FULL_PRECISION, RankedCell
from kcost.cost.verdict import Verdict

RoundKey = tuple[str, str, int]
"""Block, session and number: what the rounds of two cells are paired by."""


class Scaled(NamedTuple):
    """How much longer a step takes on an instance than on the machine that measured it (`scaling`)."""

    times: float
    log_sd: float
    """Standard deviation of the logarithm of `times`."""
    why: str

    @property
    def low(self) -> float:
        """Lower end of the 90% interval of `times`."""
        return self.times * math.exp(-NORMAL_95 * self.log_sd)

    @property
    def high(self) -> float:
        """Upper end of the 90% interval of `times`."""
        return self.times * math.exp(NORMAL_95 * self.log_sd)


class Way(NamedTuple):
    """One way of running a model, with its step times at each batch size."""

    name: str
    model: str
    spec: CellSpec
    """Of the largest batch size."""
    service: ServiceTimes
    medians_ns: dict[int, dict[RoundKey, float]]
    """Batch size -> round -> median of its steps."""
    round_s: float
    """Seconds that one round of all its cells took."""
    environment: Environment
    environment_id: str
    peak_bytes: int | None
    joules_per_prediction: float | None
    """Of its steps at the largest batch size, idle time left out; None where it is not known."""
    energy_basis: str
    simulated: bool
    is_plain: bool
    """Whether it is plain Keras: what a project begins with."""
    lowers_precision: bool
    """Whether it computes in less than float32."""
    scaling: Scaled | None = None
    """What its seconds were multiplied by; None where they are as measured."""


class LeftOut(NamedTuple):
    """A cell that no budget is made of."""

    label: str
    reason: str


def serving_ways(
    run: Run, verdict: Verdict, models: tuple[str, ...], hand_over_s: float
) -> tuple[list[Way], list[LeftOut]]:
    """The ways of serving some models whose answers hold the limits of the verdict, and the cells that do not.

    No way is left where every cell that may be used is INVALID; each of them says why.

    Args:
        models: names; none for the one model of the run.
        hand_over_s: see `ServiceTimes`.

    Raises:
        InputError: a model that the run does not hold, several models and none named, or no cell that may be served.
    """
    wanted = _models(run, models)
    ranked: dict[str, RankedCell] = {}
    plain: set[str] = set()
    for ranking in verdict.rankings:
        if ranking.phase == "inference" and ranking.model in wanted:
            ranked.update({c.cell_id: c for c in ranking.cells})
            plain |= {ranking.baseline} if ranking.baseline is not None else set()
    groups: dict[tuple[object, ...], list[CellResult]] = {}
    left_out: list[LeftOut] = []
    disturbed = False
    for cell in run.measured(phase="inference"):
        judged = ranked.get(cell.spec.cell_id)
        if judged is None:
            continue
        label = f"{cell.spec.model}, {cell.spec.label}"
        if judged.standing != "ranked":
            left_out.append(LeftOut(label, f"{judged.standing}: {judged.reason}"))
            continue
        if not judged.valid:
            disturbed = True
            left_out.append(LeftOut(label, f"INVALID: {judged.invalid}"))
            continue
        s = cell.spec
        key = (s.model, s.backend, s.method, s.precision, s.saved_policy, s.device, s.threads, cell.environment_id)
        groups.setdefault(key, []).append(cell)
    if not groups and not disturbed:
        raise InputError(
            "A budget needs a measured inference cell whose answers may be used.",
            received=f"{len(left_out)} cells, none of them ranked" if left_out else "no measured inference cell",
            remedy="`kcost cost RUN` says why; measure with `kcost bench`.",
        )
    several = len(wanted) > 1
    together = run.index.plan.together
    ways = [_way(cells, ranked, plain, run.environments, several, together, hand_over_s) for cells in groups.values()]
    return _told_apart(ways), left_out


def after_idle_note(ways: Sequence[Way]) -> str | None:
    """Of which ways and batch sizes a simulation has steps after idle time; None where it has none."""
    having = [way for way in ways if way.service.after_idle]
    if not having:
        return None
    if all(len(way.service.after_idle) == len(way.service.sizes) for way in ways):
        return "A step that begins after idle time is drawn from steps that were measured so (after-idle)."
    return (
        f"A step that begins after idle time is drawn from steps that were measured so (after-idle) for "
        f"{', '.join(map(_with_idle_sizes, having))}; for the others from steps back to back, which may be shorter."
    )


def _with_idle_sizes(way: Way) -> str:
    """The name of a way; with the batch sizes that steps after idle time were measured of, where there are others."""
    sizes = sorted(way.service.after_idle)
    if len(sizes) == len(way.service.sizes):
        return way.name
    return f"{way.name} at batch {' and '.join(map(str, sizes))}"


def _models(run: Run, models: tuple[str, ...]) -> set[str]:
    known = sorted({c.spec.model for c in run.measured(phase="inference")})
    unknown = [m for m in models if m not in known]
    if unknown or (not models and len(known) > 1):
        raise InputError(
            "A budget is for one model, or for several that stand for each other.",
            received=f"{', '.join(unknown)}: not in the run" if unknown else f"a run of {', '.join(known)}",
            remedy=f"Name them with --models: {', '.join(known) or 'the run holds none'}.",
        )
    return set(models or known)


def _way(
    cells: list[CellResult],
    ranked: Mapping[str, RankedCell],
    plain: set[str],
    environments: Mapping[str, Environment],
    several_models: bool,
    together: bool,
    hand_over_s: float,
) -> Way:
    cells = sorted(cells, key=lambda c: c.spec.batch)
    largest = cells[-1]
    spec = largest.spec
    judged = ranked[spec.cell_id]
    block = "/".join(spec.block[1:] if together else spec.block)  # whose cells took turns with each other
    model = f"{spec.model} " if several_models else ""
    peaks = [p for c in cells if (p := ranked[c.spec.cell_id].peak_host_bytes) is not None]
    return Way(
        name=f"{model}{spec.backend}/{spec.method} {judged.dtype}",
        model=spec.model,
        spec=spec,
        service=service_of(cells, environments).handed_over_in(hand_over_s),
        medians_ns={
            c.spec.batch: {(block, r.session, r.number): float(np.median(r.step_ns)) for r in c.rounds} for c in cells
        },
        round_s=sum(sum(sum(r.step_ns) for r in c.rounds) / 1e9 / len(c.rounds) for c in cells),
        environment=environments[largest.environment_id],
        environment_id=largest.environment_id,
        peak_bytes=max(peaks, default=None),
        joules_per_prediction=None if judged.step_joules is None else judged.step_joules / spec.batch,
        energy_basis=judged.energy_basis,
        simulated=any(c.preparation is not None and c.preparation.simulated for c in cells),
        is_plain=any(c.spec.cell_id in plain for c in cells),
        lowers_precision=not set(judged.dtype.split(" and ")) <= FULL_PRECISION,
    )


def _told_apart(ways: list[Way]) -> list[Way]:
    """The ways with names of their own: where two are alike, device, threads and environment are added."""
    names = [way.name for way in ways]
    renamed = []
    for way in ways:
        if names.count(way.name) > 1:
            threads = way.spec.threads or "all"
            way = way._replace(name=f"{way.name} {way.spec.device}, {threads} threads, {way.environment_id[:6]}")
        renamed.append(way)
    return renamed

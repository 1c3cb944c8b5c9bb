"""A measured model on other processors: each cell projected by probes of the machine that measured and of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kcost.core.cpu_instructions import ONEDNN_LIMITS
from kcost.core.disturbance import holds_pauses
from kcost.core.errors import InputError
from kcost.core.plan import Backend
from kcost.core.probe import Probe
from kcost.core.result import CellResult, Environment, Run
from kcost.cost.basis import CostBasis, basis_of
from kcost.cost.between_machines import BetweenMachines, Step, project_between
from kcost.cost.cell_workload import counted_activations, step_of, workload_of
from kcost.cost.devices import Number
from kcost.cost.machine_match import instruction_set
from kcost.cost.machine_rates import MachineRates, rates_of
from kcost.cost.payment import Pay, usd_per_hour
from kcost.cost.placements import Placement, placed
from kcost.cost.price_rules import Price
from kcost.cost.workload import Workload

LIMITS_INSTRUCTIONS = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", *ONEDNN_LIMITS, "XLA_FLAGS")
"""Variables that make another machine of the same processor."""


PAUSES_IN_STEPS = (
    "the pauses of a CPU quota are in its steps, which are longer than the quota's periods, and cannot be taken out: "
    "measure with no more threads than the quota has cores"
)

ONLY_MEASURED = "By probes a cell keeps its batch size and precision: others than were asked for are left out."


class ProbedTarget(NamedTuple):
    """An instance, and the probes that were made on it: none where it is another size of the machine that measured."""

    price: Price
    probes: Mapping[Backend, Probe]


class Probed(NamedTuple):
    """What could be projected, and what could not, with the reason."""

    options: tuple[Placement, ...]
    not_projected: tuple[str, ...]


def probed_placements(
    run: Run,
    here: Mapping[Backend, Probe],
    targets: Sequence[ProbedTarget],
    classes: Mapping[str, Mapping[str, int]],
    *,
    pay: Pay = "on-demand",
    precision: Number | None = None,
    batches: Sequence[int] = (),
) -> Probed:
    """Every inference cell of a run, projected to probed instances.

    Args:
        here: probes of the machine that measured, by backend.
        classes: model -> classes of the layers in its file, by count.
        precision, batches: those that are wanted; a probe changes neither, so other cells are left out.

    Raises:
        InputError: a probe that is not of the machine that measured, or a target that nothing can be projected to.
    """
    options: list[Placement] = []
    reasons: dict[str, None] = {}
    counted = {name: counted_activations(run.measured(name, "inference")) for name in classes}
    groups: dict[tuple[Backend, str, int, str], list[tuple[CellResult, Step]]] = {}
    for cell in run.measured(phase="inference"):
        try:
            workload = _workload(cell, classes, counted)
        except InputError as error:
            reasons[_in_a_line(cell, error)] = None
            continue
        if holds_pauses(cell, run.environments[cell.environment_id]):
            reasons[f"{cell.spec.model}, {cell.spec.label}: {PAUSES_IN_STEPS}"] = None
            continue
        assert cell.preparation is not None  # a workload is of a cell that was prepared
        step = step_of(cell, workload)
        key = (cell.spec.backend, cell.environment_id, cell.preparation.threads, step.group)
        groups.setdefault(key, []).append((cell, step))
    for (backend, environment_id, threads, _), members in groups.items():
        environment = run.environments[environment_id]
        if backend not in here:
            reasons[
                f"{backend}: no probe of the machine that measured; `kcost probe --backend {backend}` makes one"
            ] = None
            continue
        _refuse_another_machine(here[backend], environment)
        measured_at = rates_of(here[backend], threads)
        for target in targets:
            try:
                there, basis = _rates_there(target, here[backend], environment)
                projected = project_between([step for _, step in members], measured_at, there)
            except InputError as error:
                reasons[f"{target.price.instance}, {backend}: {error.rule} Received: {error.received}."] = None
                continue
            for (cell, step), one in zip(members, projected, strict=True):
                if cell.spec.batch not in (batches or (cell.spec.batch,)) or step.workload.precision != (
                    precision or step.workload.precision
                ):
                    reasons[ONLY_MEASURED] = None
                    continue
                options.append(_placement(cell, step, one, target.price, basis, pay))
    return Probed(tuple(options), tuple(reasons))


def _workload(
    cell: CellResult, classes: Mapping[str, Mapping[str, int]], counted: Mapping[str, float | None]
) -> Workload:
    model = cell.spec.model
    return workload_of(cell, classes.get(model, {}), None, activations=counted.get(model))


def _in_a_line(cell: CellResult, error: InputError) -> str:
    return f"{cell.spec.model}: {error.rule} Received: {error.received}. {error.remedy}"


def _refuse_another_machine(probe: Probe, environment: Environment) -> None:
    """Raises InputError where a probe is of another processor, or of other instructions, than measured the run."""

    def machine(one: Environment) -> dict[str, object]:
        limits = {name: one.variables.get(name) for name in LIMITS_INSTRUCTIONS}
        quota = {"CPU quota in cores": one.quota_below_cores}
        return {"processor": one.cpu_model, "instructions": one.cpu_features, "cores": one.cores, **limits, **quota}

    probed, measured = machine(probe.environment), machine(environment)
    differing = [f"{k}: {probed[k]} in the probe, {measured[k]} in the run" for k in probed if probed[k] != measured[k]]
    if differing:
        raise InputError(
            "A projection begins at a probe of the machine that measured.",
            received="; ".join(differing),
            remedy="Run `kcost probe` on the machine of the run, under the same variables.",
        )


def _rates_there(target: ProbedTarget, here: Probe, environment: Environment) -> tuple[MachineRates, CostBasis]:
    """Rates of an instance: from its own probe, else those of so many threads of the same processor.

    Raises:
        InputError: it was not probed, and it is no smaller size of the machine that measured.
    """
    if target.probes:
        if here.backend not in target.probes:
            raise InputError(
                "Two machines are compared by probes of one backend.",
                received=f"{here.backend} here; of {target.price.instance} {', '.join(target.probes)}",
                remedy=f"Run `kcost probe --backend {here.backend}` on it.",
            )
        probe = target.probes[here.backend]
        there = probe.environment
        is_same = there.cpu_model == environment.cpu_model and instruction_set(there) == instruction_set(environment)
        return rates_of(probe), "scaled" if is_same else "projected"
    if basis_of(environment, target.price) not in ("measured", "scaled"):
        raise InputError(
            "A projection to an instance without an accelerator needs a probe of it, or the same family of processors.",
            received=f"{target.price.key}; measured on {environment.cpu_model} ({instruction_set(environment)})",
            remedy=f"Run `kcost probe` on it, and name the file: --to {target.price.instance}=probe.json.",
        )
    # Rates hold no pauses, so that without the quota of the container that was probed they are the instance's.
    return rates_of(here, target.price.vcpus)._replace(held=None), "scaled"


def _placement(
    cell: CellResult, step: Step, projected: BetweenMachines, price: Price, basis: CostBasis, pay: Pay
) -> Placement:
    simulated = cell.preparation is not None and cell.preparation.simulated
    shown_as: CostBasis = "simulated" if simulated else basis
    hourly, precision = usd_per_hour(price, pay), step.workload.precision
    return placed(cell, precision, cell.spec.batch, shown_as, price, hourly, projected)

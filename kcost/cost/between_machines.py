"""From seconds measured on one machine to those of another, by what both can do: a probe of each.

    step on A  =  e1 x products(A) + e2 x memory(A) + e3 x call(A) + e4 x layers x call(A)
    products   =  FLOPs / rate of products of that size     memory = bytes / rate of moving so many
    step on B  =  the same with B's probe, times what was measured on A over what the line above says of A,
                  times what a CPU quota on B makes of it: the CPU time that it uses up over what the quota gives

The four efficiencies are those of A's own cells: cells of one backend, method and precision share them, around priors,
and each cell may differ from them. What a cell's measured time does not agree with is shared out among its parts by how
uncertain each is. So B's time is never made from nothing: it is A's measured time, with each part stretched by the
ratio of two probes.

Its 90% interval holds the spread of A's rounds, how uncertain it is which part takes how much of the time, and how far
a part of a real step departs from the ratio of two probes. What the last is worth was assumed, or fitted to cells that
were measured on several machines (`between_machines_fit`); `Coefficients.fitted_to` says which.

The update by one measurement, linearised again at each turn: Bell and Cathey (1993), doi 10.1109/9.250476.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic_core import from_json

from kcost.core.errors import InputError
from kcost.core.probe import ProbedDtype
from kcost.core.schema import Record
from kcost.core.stats import NORMAL_95, Interval
from kcost.core.units import significant
from kcost.cost.machine_rates import MachineRates
from kcost.cost.projection import WIDEST
from kcost.cost.workload import RUNTIME_CLASS, Workload

Array = NDArray[np.float64]

PARTS = ("products", "memory", "call", "calls of layers")
"""What the time of a step is made of."""

COMPONENTS = ("products", "memory", "calls")
"""What is reported: both kinds of calls are one."""

COMPONENT_OF = np.array([0, 1, 2, 2])

PROBED: dict[str, ProbedDtype] = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16"}
"""Precision of a step -> dtype of a probe's products."""

RESIDUAL_SD = 0.25
"""How far cells of one group lie from their common efficiencies, as a logarithm, while these are fitted."""

HELD_SD = 0.15
"""How far a step under a CPU quota is from what its CPU time says, as a logarithm. An assumption, fitted to nothing."""

TURNS = 4

NORMAL_INTERVAL_95 = 1.959963984540054
"""Half of the width of a 95% interval of a normal distribution, in standard deviations."""


class Step(NamedTuple):
    """A cell that was measured on machine A."""

    name: str
    group: str
    """Cells of one group share their efficiencies: a backend's method in one precision."""
    workload: Workload
    is_predict: bool
    measured_s: Interval
    """Seconds of a step with the 95% interval."""
    cores: float | None = None
    """CPU time of all threads in a second of it, those that wait without sleeping included; None where nobody counted,
    or a CPU quota kept it down."""

    @property
    def log_sd(self) -> float:
        """Standard deviation of the logarithm of the measured time; infinite after a single round."""
        if self.measured_s.low <= 0 or not math.isfinite(self.measured_s.high):
            return math.inf
        return math.log(self.measured_s.high / self.measured_s.low) / (2 * NORMAL_INTERVAL_95)


class Coefficients(Record):
    """What is the same for all machines: how the parts of a real step follow a probe."""

    exponents: dict[str, float] = Field(description="component -> power of the ratio of two probes that it follows")
    floor_sd: float = Field(gt=0, description="deviation of each component, where both probes say the same")
    slope_sd: float = Field(ge=0, description="more of it for each unit of the logarithm of their ratio")
    own_sd: float = Field(gt=0, description="deviation of a cell's own efficiencies from its group's")
    fitted_to: str = Field(description="what these numbers come from")


class Efficiencies(NamedTuple):
    """Of the cells of one group on machine A: natural logarithms of e1 to e4."""

    log: Array
    covariance: Array


class Rows(NamedTuple):
    """Steps of one group from A to B as arrays: what does not depend on the coefficients."""

    here: Array
    """(rows, 4): natural logarithms of the seconds of each part on A, by the fitted efficiencies."""
    ratio: Array
    """(rows, 4): natural logarithms of the ratio of each part, B's over A's, by the probes."""
    covariance: Array
    """(rows, 4, 4): of the efficiencies."""
    measured: Array
    """(rows,): natural logarithm of the seconds on A."""
    measured_sd: Array
    """(rows,)"""
    held: Array
    """(rows,): natural logarithm of how many times longer a CPU quota on B makes them; 0 without one."""
    held_sd: Array
    """(rows,)"""


class Predicted(NamedTuple):
    """Steps on B."""

    log_s: Array
    """(rows,)"""
    variance: Array
    """(rows, 6): of log_s, by cause: which part takes how long, products, memory, calls, A's rounds, B's CPU quota."""
    shares_here: Array
    """(rows, 4)"""
    shares_there: Array
    """(rows, 4)"""


CAUSES = ("which part takes how long", *COMPONENTS, "rounds", "quota")


class BetweenMachines(Record):
    """How long a step would take on another machine. It was measured on the first alone."""

    name: str
    step_ms: float
    low_ms: float = Field(description="lower end of the 90% interval")
    high_ms: float = Field(description="upper end of the 90% interval")
    times_slower: float = Field(description="than on the machine that measured; below 1 where it is faster")
    shares: dict[str, float] = Field(description="part of the step there that products, memory and calls take")
    component_ratios: dict[str, float] = Field(description="of the time there over that here, by the probes")
    sd_by_cause: dict[str, float] = Field(description="standard deviations of the logarithm of step_ms")
    refused: str | None = Field(default=None, description="why it is not to be used, and what would help")


@cache
def coefficients() -> Coefficients:
    """Those that the package ships."""
    content = resources.files("kcost.cost").joinpath("data", "between_machines.json").read_bytes()
    return Coefficients.model_validate(from_json(content))


def project_between(
    steps: Sequence[Step], here: MachineRates, there: MachineRates, chosen: Coefficients | None = None
) -> tuple[BetweenMachines, ...]:
    """Each step on another machine, in the order of the steps.

    Args:
        steps: all cells that machine A measured with one backend; the more batch sizes and models, the better known is
            which part of a step takes how long.
        here, there: rates of A and B, of that backend.
        chosen: None takes the coefficients that the package ships.

    Raises:
        InputError: rates of two backends, or a precision that one of the probes lacks.
    """
    numbers = chosen or coefficients()
    projected: dict[int, BetweenMachines] = {}
    for group in dict.fromkeys(step.group for step in steps):
        places = [i for i, step in enumerate(steps) if step.group == group]
        mine = [steps[i] for i in places]
        rows = rows_of(mine, here, there)
        predicted = predict(rows, numbers)
        for row, (place, step) in enumerate(zip(places, mine, strict=True)):
            projected[place] = _said(step, rows, predicted, row)
    return tuple(projected[i] for i in range(len(steps)))


def rows_of(steps: Sequence[Step], here: MachineRates, there: MachineRates) -> Rows:
    """Steps of one group as arrays.

    Raises:
        InputError: rates of two backends, or a precision that one of the probes lacks.
    """
    if here.backend != there.backend:
        raise InputError(
            "Two machines are compared by probes of one backend.",
            received=f"{here.backend} and {there.backend}",
            remedy="Run `kcost probe --backend` with the same backend on both.",
        )
    if here.convolutions.keys() != there.convolutions.keys():  # an older probe: both by products then
        here, there = (rates._replace(convolutions={}) for rates in (here, there))
    parts = np.array([log_parts(step.workload, here) for step in steps])
    measured = np.array([math.log(step.measured_s.value) for step in steps])
    fitted = fit_efficiencies(steps, parts, measured)
    held = np.array([_times_held(step, here.threads, there) for step in steps])
    return Rows(
        here=parts + fitted.log,
        ratio=np.array([log_parts(step.workload, there) for step in steps]) - parts,
        covariance=np.repeat(fitted.covariance[None], len(steps), axis=0),
        measured=measured,
        measured_sd=np.array([step.log_sd for step in steps]),
        held=held[:, 0],
        held_sd=held[:, 1],
    )


def _times_held(step: Step, threads_here: int, there: MachineRates) -> tuple[float, float]:
    """Natural logarithm of how many times longer B's quota makes a step, and its standard deviation.

    A step takes as long as its CPU time lasts at the quota's pace, or without a pause where that is longer. Which part
    of it keeps all threads busy is not seen by a probe: it is counted on A. Where A had one thread, or a quota of its
    own, anything between one and all of B's threads is as likely.
    """
    if there.held is None:
        return 0.0, 0.0
    others = there.threads - 1
    if step.cores is None or threads_here == 1:
        awake, sd = (math.sqrt(there.threads) - 1) / max(others, 1), math.log(there.threads) / math.sqrt(12)
    else:
        awake, sd = min(1.0, max(0.0, (step.cores - 1) / (threads_here - 1))), 0.0
    used = (1 + awake * others) / there.held.cores * there.held.waste**awake
    return (math.log(used), math.hypot(sd, HELD_SD)) if used > 1 else (0.0, HELD_SD)


def is_probed(workload: Workload, rates: MachineRates) -> bool:
    """Whether a probe has products in the precision of a step."""
    return PROBED.get(workload.precision) in rates.products


def log_parts(workload: Workload, rates: MachineRates) -> Array:
    """Natural logarithms of the seconds of each part at efficiency 1, shape (4,).

    A product is as large as the mean of the step's products, and what is moved at once as the mean of what they move.
    Those of a network of convolutions take the rate of convolutions where the probe has it.

    Raises:
        InputError: the probe has no products in that precision.
    """
    if not is_probed(workload, rates):
        raise InputError(
            "A step is projected from probes of products in its precision.",
            received=f"{workload.precision}; the probe of {rates.name} has {', '.join(rates.products)}",
            remedy="Measure it there, or project float32 or bfloat16.",
        )
    dtype = PROBED[workload.precision]
    count = workload.products * workload.passes
    flops, moved = math.log(workload.flops), math.log(workload.moved_bytes)
    call = math.log(rates.call_s)
    of_convolutions = rates.convolutions.get(dtype) if workload.kind == "cnn" else None
    curve = of_convolutions or rates.products[dtype]
    return np.array(
        [
            flops - curve.log_rate_at(flops - math.log(count)),
            moved - rates.memory.log_rate_at(moved - math.log(count)),
            call,
            call + math.log(count),
        ]
    )


def priors(step: Step) -> tuple[Array, Array]:
    """Means and standard deviations of the logarithms of the efficiencies before any cell is seen.

    Layers reach less than square products, a step is more than one call, and an eager backend comes back to Python
    for each of its layers several times; `predict` of Keras goes through a loop of its own.
    """
    eager = RUNTIME_CLASS[step.workload.engine] == "eager" or step.is_predict
    mean = [math.log(1.5), 0.0, math.log(300 if step.is_predict else 2), math.log(5 if eager else 0.3)]
    return np.array(mean), np.array([0.7, 0.7, 1.5 if step.is_predict else 1.0, 1.2])


def fit_efficiencies(steps: Sequence[Step], parts: Array, measured: Array) -> Efficiencies:
    """The efficiencies that the cells of one group are likeliest to share, with their covariance (Gauss-Newton)."""
    from scipy.optimize import least_squares

    mean, sd = priors(steps[0])

    def residuals(log_efficiency: Array) -> Array:
        off = _log_sum(parts + log_efficiency) - measured
        return np.concatenate([off / RESIDUAL_SD, (log_efficiency - mean) / sd])

    def jacobian(log_efficiency: Array) -> Array:
        return np.concatenate([_shares(parts + log_efficiency) / RESIDUAL_SD, np.diag(1 / sd)])

    solved = least_squares(residuals, mean, jac=jacobian, method="lm")
    return Efficiencies(solved.x, np.asarray(np.linalg.inv(solved.jac.T @ solved.jac), dtype=np.float64))


def predict(rows: Rows, chosen: Coefficients) -> Predicted:
    """Logarithms of the seconds on B, with their variance by cause."""
    prior = rows.covariance + np.eye(len(PARTS)) * chosen.own_sd**2  # (rows, 4, 4)
    noise = np.where(np.isfinite(rows.measured_sd), rows.measured_sd, 1.0) ** 2 + 1e-6
    at = rows.here.copy()
    for _ in range(TURNS):
        share = _shares(at)
        carried = np.einsum("ij,ijk->ik", share, prior)
        gain = carried / ((carried * share).sum(axis=1) + noise)[:, None]
        off = rows.measured - _log_sum(at) - ((rows.here - at) * share).sum(axis=1)
        at = rows.here + gain * off[:, None]
    here = _shares(at)
    carried = np.einsum("ij,ijk->ik", here, prior)
    gain = carried / ((carried * here).sum(axis=1) + noise)[:, None]
    posterior = prior - gain[:, :, None] * carried[:, None, :]
    exponents = np.array([chosen.exponents[name] for name in COMPONENTS])[COMPONENT_OF]
    moved = at + exponents * rows.ratio
    there = _shares(moved)
    turn = there - here
    doubt = np.einsum("ij,ijk,ik->i", turn, posterior, turn)
    variance = [np.maximum(doubt, 0.0)]
    for index in range(len(COMPONENTS)):
        mine = index == COMPONENT_OF
        largest = np.abs(rows.ratio[:, mine]).max(axis=1)
        variance.append((there[:, mine].sum(axis=1) * (chosen.floor_sd + chosen.slope_sd * largest)) ** 2)
    variance += [rows.measured_sd**2, rows.held_sd**2]
    return Predicted(
        log_s=rows.measured + _log_sum(moved) - _log_sum(at) + rows.held,
        variance=np.stack(variance, axis=1),
        shares_here=here,
        shares_there=there,
    )


def _log_sum(parts: Array) -> Array:
    return np.asarray(np.logaddexp.reduce(parts, axis=1), dtype=np.float64)


def _shares(parts: Array) -> Array:
    return np.asarray(np.exp(parts - _log_sum(parts)[:, None]), dtype=np.float64)


def _said(step: Step, rows: Rows, predicted: Predicted, row: int) -> BetweenMachines:
    variance = predicted.variance[row]
    value = math.exp(predicted.log_s[row]) * 1e3
    spread = math.exp(min(NORMAL_95 * math.sqrt(variance.sum()), 50.0))
    ratios = {name: float(math.exp(rows.ratio[row, i])) for i, name in enumerate(COMPONENTS)}
    sd_by_cause = {cause: float(math.sqrt(v)) for cause, v in zip(CAUSES, variance, strict=True)}
    return BetweenMachines(
        name=step.name,
        step_ms=value,
        low_ms=value / spread,
        high_ms=value * spread,
        times_slower=value / 1e3 / step.measured_s.value,
        shares={
            name: float(predicted.shares_there[row, index == COMPONENT_OF].sum())
            for index, name in enumerate(COMPONENTS)
        },
        component_ratios=ratios,
        sd_by_cause=sd_by_cause,
        refused=_refusal(spread**2, sd_by_cause, ratios),
    )


def _refusal(width: float, sd_by_cause: dict[str, float], ratios: dict[str, float]) -> str | None:
    """Why a projection is too wide, by its largest cause, and what would help."""
    if width <= WIDEST:
        return None
    cause = max(sd_by_cause, key=lambda name: sd_by_cause[name])
    if cause == "rounds":
        helps = "its rounds scatter too much: measuring it again, with more rounds, would help"
    elif cause == "quota":
        helps = (
            "how much of a CPU quota its threads use up is not known: measuring it here with as many threads, or there "
            "with no more threads than the quota has cores, would help"
        )
    elif cause == CAUSES[0]:
        helps = (
            "it is not known which part of the step takes how long: measuring more batch sizes of it here, or the "
            "model there, would help"
        )
    else:
        times = ratios[cause]
        change = f"{significant(times)} times as long" if times >= 1 else f"{significant(1 / times)} times as fast"
        helps = f"by the probes {cause} are {change} there, which is far to go: measuring the model there would help"
    return f"the 90% interval is {significant(width)} times wide, and {WIDEST:g} is the most; {helps}"

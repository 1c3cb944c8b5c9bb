"""What training a model, or a search over many, costs on an instance: steps, what is beside them, restarts, storage.

    a run    = steps x step + once + epochs x beside an epoch
    hours    = trials x a run / 3600, and on spot what interruptions take: n = hours x interruptions an hour, each
               RESTART_H and half of an epoch, which is lost as a run goes on after the last epoch that it finished
    USD      = hours x USD an hour + GiB x USD a GiB-month x hours / 730

A step is measured by `kcost bench`; what is before the steps and beside an epoch's, by the training that made the
model. Nothing of it is assumed: where it was not measured, the bill says that it leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.result import CellResult, Environment, ModelEntry
from kcost.core.schema import Record
from kcost.core.stats import Interval
from kcost.core.units import format_percent, format_s, format_usd, significant
from kcost.cost.assumptions import HOURS_PER_MONTH
from kcost.cost.estimate import Basis, basis_of_match, step_ns
from kcost.cost.machine_match import Match
from kcost.cost.option import Refused
from kcost.cost.payment import RESTART_H
from kcost.cost.scaling import fewer_cores

MOST_TOLD = 300
"""Characters of an error that list cells."""

Part = Literal["steps", "beside the steps", "restarts on spot", "storage"]


class TrainingSize(Record):
    """How much is trained."""

    examples: int = Field(ge=1, description="of the training split")
    epochs: int = Field(ge=1)
    trials: int = Field(default=1, ge=1, description="trainings of that size, one after another, as of a search")


class TrainingPart(Record):
    """A line of the bill."""

    part: Part
    hours: float = Field(description="that are paid; of storage, that it is kept")
    usd: float
    why: str


class TrainingBill(Record):
    """What training costs by one cell of a run on one instance."""

    model: str
    label: str = Field(description="of the cell whose steps were measured")
    instance: str
    pay: str
    usd_per_hour: float
    price_source: str
    size: TrainingSize
    parts: tuple[TrainingPart, ...]
    usd: float
    low: float = Field(description="lower end of the 95% interval: of the step, and of its scaling")
    high: float | None = Field(description="upper end; None where a step was measured in one round")
    basis: Basis
    basis_why: str
    leaves_out: tuple[str, ...] = Field(description="what is not in it, and how to get it in")

    @property
    def hours(self) -> float:
        """Hours that the instance is paid for."""
        return sum(part.hours for part in self.parts if part.part != "storage")


def training_bill(
    cell: CellResult,
    environment: Environment,
    entry: ModelEntry,
    match: Match,
    *,
    epochs: int | None = None,
    examples: int | None = None,
    trials: int = 1,
    storage_gib: float = 0.0,
    usd_per_gib_month: float | None = None,
) -> TrainingBill:
    """The bill of one measured training cell.

    Args:
        environment: of the machine that measured.
        match: the instance that is paid.
        epochs, examples: None takes those of the training that made the model.
        storage_gib: that is paid for as long as the training lasts.

    Raises:
        InputError: no rounds, a size that is not known or not positive, or storage without its price.
        PriceError: the price says nothing of the way to pay.
    """
    size = _size(entry, epochs, examples, trials)
    _check_storage(storage_gib, usd_per_gib_month)
    step = step_ns(cell).scaled(1e-9)
    basis, why = basis_of_match(match), match.why
    vcpus, cores = match.price.vcpus, cell.spec.threads or environment.default_threads
    if cell.preparation is not None and cell.preparation.simulated:
        basis = "simulated"
    elif basis == "scaled" and vcpus is not None and vcpus < cores:
        scaling = fewer_cores(cores, vcpus, 0.0)
        step = Interval(step.value * scaling.times, step.low, step.high * scaling.times**2)
        why += f" {scaling.why}"
    steps = math.ceil(size.examples / cell.spec.batch) * size.epochs
    beside_s = (entry.train_once_s or 0.0) + size.epochs * (entry.train_epoch_s or 0.0)
    hourly = _usd_per_hour(match)
    lines = [
        _line("steps", size.trials * steps * step.value, hourly, _steps_why(size, steps, step.value)),
        _line(
            "beside the steps",
            size.trials * beside_s,
            hourly,
            f"a run: {format_s(entry.train_once_s or 0.0)} of reading and starting, and {size.epochs:,} x "
            f"{format_s(entry.train_epoch_s or 0.0)} of evaluating and saving, as measured when the model was trained",
        ),
    ]
    leaves_out = []
    if entry.train_once_s is None or entry.train_epoch_s is None:
        lines.pop()
        leaves_out.append(
            "reading, evaluating and saving: the training that made the model did not measure them; train it with this "
            "version of kcost, and measure that artifact"
        )
    a_run_h = (steps * step.value + beside_s) / 3600
    if match.pay == "spot":
        lines.append(_restarts(match, size.trials * a_run_h, a_run_h / size.epochs, hourly))
        if match.price.spot_interruptions_per_hour is None:
            leaves_out.append("interruptions on spot: the price does not say how often; prices.toml may")
    hours = sum(line.hours for line in lines)
    if storage_gib and usd_per_gib_month is not None:
        usd = storage_gib * usd_per_gib_month * hours / HOURS_PER_MONTH
        why_storage = f"{storage_gib:g} GiB at {usd_per_gib_month:g} USD a GiB and month, as given"
        lines.append(TrainingPart(part="storage", hours=hours, usd=usd, why=why_storage))
    else:
        leaves_out.append("storage: give --storage-gib and --usd-per-gib-month")
    total = sum(line.usd for line in lines)
    of_steps = lines[0].usd
    return TrainingBill(
        model=cell.spec.model,
        label=cell.spec.label,
        instance=match.price.key,
        pay=match.pay,
        usd_per_hour=hourly,
        price_source=f"{match.price.source}, as of {match.price.as_of or 'an unknown day'}",
        size=size,
        parts=tuple(lines),
        usd=total,
        low=total - of_steps * (1 - step.low / step.value),
        high=total + of_steps * (step.high / step.value - 1) if math.isfinite(step.high) else None,
        basis=basis,
        basis_why=why,
        leaves_out=tuple(leaves_out),
    )


def _size(entry: ModelEntry, epochs: int | None, examples: int | None, trials: int) -> TrainingSize:
    examples = entry.train_examples if examples is None else examples
    epochs = entry.train_epochs if epochs is None else epochs
    if examples is None or epochs is None:
        raise InputError(
            "A training run has a number of examples and of epochs.",
            received=f"{entry.name}, whose training is not known",
            remedy="Give --examples and --epochs, or measure an artifact that kcost trained.",
        )
    for name, value in (("examples", examples), ("epochs", epochs), ("trials", trials)):
        if value < 1:
            raise InputError(f"A training has 1 or more {name}.", received=value, remedy=f"Such as --{name} 10.")
    return TrainingSize(examples=examples, epochs=epochs, trials=trials)


def _check_storage(storage_gib: float, usd_per_gib_month: float | None) -> None:
    for name, value in (("--storage-gib", storage_gib), ("--usd-per-gib-month", usd_per_gib_month)):
        if value is not None and not 0 <= value < math.inf:
            raise InputError("Storage and its price are 0 or more.", received=f"{name} {value:g}")
    if bool(storage_gib) != (usd_per_gib_month is not None):
        raise InputError(
            "Storage is paid by GiB and month.",
            received="--storage-gib without --usd-per-gib-month" if storage_gib else "a price, and no --storage-gib",
            remedy="Give both: no price of storage is in the book.",
        )


def _usd_per_hour(match: Match) -> float:
    """What an hour is paid, interruptions apart: they are a line of their own."""
    if match.pay == "spot" and match.price.spot_usd_per_hour is not None:
        return match.price.spot_usd_per_hour * match.share
    return match.usd_per_hour


def _line(part: Part, seconds: float, usd_per_hour: float, why: str) -> TrainingPart:
    hours = seconds / 3600
    return TrainingPart(part=part, hours=hours, usd=hours * usd_per_hour, why=why)


def _steps_why(size: TrainingSize, steps: int, step_s: float) -> str:
    runs = "" if size.trials == 1 else f"{size.trials:,} trainings of "
    return (
        f"{runs}{steps:,} steps of {significant(step_s * 1e3)} ms: {size.epochs:,} epochs of {size.examples:,} examples"
    )


def _restarts(match: Match, hours: float, epoch_h: float, usd_per_hour: float) -> TrainingPart:
    rate = match.price.spot_interruptions_per_hour or 0.0
    each_h = RESTART_H + epoch_h / 2
    why = (
        f"{significant(hours * rate)} interruptions at {rate:g} an hour, each {format_s(RESTART_H * 3600)} until "
        f"another instance works (an assumption) and half of an epoch, {format_s(epoch_h * 1800)}, done again"
    )
    return TrainingPart(
        part="restarts on spot", hours=hours * rate * each_h, usd=hours * rate * each_h * usd_per_hour, why=why
    )


class TrainingReport(Record):
    """The bills of a run's training cells, the cheapest first."""

    sentence: str
    bills: tuple[TrainingBill, ...]
    left_out: tuple[Refused, ...] = Field(description="cells that have no bill, and why")


def training_report(bills: Sequence[TrainingBill], left_out: Sequence[Refused]) -> TrainingReport:
    """The bills in order, with what the cheapest says.

    Raises:
        InputError: no bill.
    """
    if not bills:
        raise InputError(
            "What training costs is told by a measured training cell that may be used.",
            received="; ".join(f"{one.name}: {one.reason}" for one in left_out)[:MOST_TOLD] or "a run without one",
            remedy="Measure one: kcost bench ARTIFACT --phases training",
        )
    ordered = sorted(bills, key=lambda bill: bill.usd)
    first = ordered[0]
    mark = "" if first.basis == "measured here" else f"[{first.basis}] "
    high = "unbounded" if first.high is None else format_usd(first.high)
    trainings = "A training" if first.size.trials == 1 else f"{first.size.trials:,} trainings"
    of_steps = first.parts[0].usd / first.usd
    sentence = (
        f"{mark}{trainings} of {first.model} ({first.size.epochs:,} epochs of {first.size.examples:,} examples) cost "
        f"{format_usd(first.usd)} ({format_usd(first.low)} to {high}, 95%) on {first.instance}, {first.pay}, by "
        f"{first.label}: {format_s(first.hours * 3600)} are paid, {format_percent(of_steps)} of the dollars for steps."
    )
    return TrainingReport(sentence=sentence, bills=tuple(ordered), left_out=tuple(left_out))

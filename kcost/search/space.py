"""What is searched: parameters with their ranges, by family. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from kcost.core.request import Family
from kcost.core.schema import Record
from kcost.search.request import Objective

Value = bool | int | float | str


class Choice(Record):
    """One of several values."""

    kind: Literal["choice"] = "choice"
    name: str
    values: tuple[Value, ...] = Field(min_length=1)
    first: Value = Field(description="value in the first trial")


class Range(Record):
    """A real number between two bounds, both included."""

    kind: Literal["range"] = "range"
    name: str
    low: float
    high: float
    log: bool = Field(default=False, description="whether equal factors, not equal differences, are equally likely")
    first: float = Field(description="value in the first trial")


Parameter = Choice | Range

CNN: tuple[Parameter, ...] = (
    Choice(name="size", values=("seed", "small"), first="seed"),
    Range(name="learning_rate", low=1e-4, high=1e-2, log=True, first=1e-3),
    Choice(name="batch_size", values=(16, 32, 64, 128), first=32),
    Choice(name="label_smoothing", values=(0.0, 0.1), first=0.0),
    Choice(name="augment", values=(False, True), first=False),
)
"""A cnn has no dropout to search: `seed` has none."""

BERT: tuple[Parameter, ...] = (
    Choice(name="size", values=("tiny", "mini"), first="tiny"),
    Range(name="learning_rate", low=1e-4, high=2e-3, log=True, first=5e-4),
    Choice(name="batch_size", values=(16, 32, 64), first=32),
    Range(name="dropout", low=0.0, high=0.3, first=0.1),
    Range(name="layer_decay", low=0.7, high=1.0, first=1.0),
    Range(name="warmup_fraction", low=0.0, high=0.2, first=0.0),
    Choice(name="max_length", values=(32, 64, 128), first=128),
)

FINE_TUNING_RATE = Range(name="learning_rate", low=1e-5, high=2e-4, log=True, first=5e-5)
"""Around the rates that Devlin et al. (2018), appendix A.3, found to work for fine-tuning: 2e-5 to 5e-5."""

COST_PARAMETERS: dict[Objective, tuple[str, ...]] = {
    "inference": ("size", "max_length"),
    "training": ("size", "max_length", "batch_size"),
}
"""The parameters that decide what a step of a model costs. Trials that agree on them share one measurement."""

LOSS_PARAMETERS = ("label_smoothing", "max_length")
"""The parameters that change what a validation loss is: losses compare only between trials that agree on them."""


def space_of(family: Family, settings: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The parameters that are searched.

    Args:
        settings: fixed fields of a TrainRequest. Those are not searched; with `init` the size is that of the
            pretrained encoder, and the learning rates are those of fine-tuning.
    """
    pretrained = settings.get("init") is not None
    fixed = {*settings, *(["size"] if pretrained else [])}
    space = {p.name: p for p in (CNN if family == "cnn" else BERT)}
    if pretrained:
        space["learning_rate"] = FINE_TUNING_RATE
    return tuple(p for name, p in space.items() if name not in fixed)


def cost_key(params: Mapping[str, Value], objective: Objective) -> dict[str, Value]:
    """The part of a trial's parameters that decides what a step of its model costs."""
    return {name: params[name] for name in COST_PARAMETERS[objective] if name in params}


def comparable_key(params: Mapping[str, Value], objective: Objective) -> dict[str, Value]:
    """The part that must agree before one trial may be called worse than another by its validation loss alone.

    A cheap model with a worse loss than a dear one is no bad trial: it may be on the Pareto front.
    """
    names = {*COST_PARAMETERS[objective], *LOSS_PARAMETERS}
    return {name: value for name, value in sorted(params.items()) if name in names}


def describe(params: Mapping[str, Value]) -> str:
    """Parameters in one line."""
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in params.items())

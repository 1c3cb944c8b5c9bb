"""The file of a cost scenario: traffic, a limit, where to buy, assumptions and options, each figure with its source."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from kcost.core.errors import InputError
from kcost.core.schema import Record, describe_validation
from kcost.cost.assumptions import ABOUT
from kcost.cost.basis import CostBasis
from kcost.cost.carbon import grid_of
from kcost.cost.labelling import Labelling, labelling_cost
from kcost.cost.option import OneOff, Option

UNSOURCED = "the scenario, which names no source"


class Sourced(Record):
    """A number with where it is from. In the file it may be the bare number."""

    value: float | bool
    source: str = UNSOURCED


def _sourced(given: Any) -> Any:
    return {"value": given} if isinstance(given, int | float) else given


SourcedNumber = Annotated[Sourced, BeforeValidator(_sourced)]


class ScenarioTraffic(Record):
    """When requests come; exactly one of the four."""

    qps: float | None = None
    daily: tuple[float, ...] | None = Field(default=None, description="24 rates, requests a second")
    weekly: tuple[float, ...] | None = Field(default=None, description="168 rates")
    log: str | None = Field(default=None, description="path of a log of request times")

    @model_validator(mode="after")
    def _one(self) -> ScenarioTraffic:
        if sum(v is not None for v in (self.qps, self.daily, self.weekly, self.log)) != 1:
            raise ValueError("give exactly one of qps, daily, weekly and log")
        return self


class Serving(Record):
    """Where to buy, and what of the run may be served."""

    provider: str | None = None
    region: str | None = None
    instance: str | None = None
    models: tuple[str, ...] = ()
    max_drop: float | None = None
    prices: str | None = Field(default=None, description="path of a price book of your own")


class ScenarioOption(Record):
    """One option: a way of the run by its name, or figures from elsewhere; and what it costs once."""

    name: str = Field(min_length=1)
    way: str | None = Field(default=None, description="such as `jax/jit bfloat16`, as the answer names it")
    instance: str | None = Field(default=None, description="of figures from elsewhere: what the price is of")
    usd_per_hour: float | None = Field(default=None, gt=0)
    spot_usd_per_hour: float | None = Field(default=None, gt=0)
    workers_per_instance: int = Field(default=1, ge=1)
    queries_per_s_per_replica: float | None = Field(default=None, gt=0, description="at which the limit holds")
    queries_per_s_at_full_load: float | None = Field(default=None, gt=0)
    basis: CostBasis | None = None
    source: str | None = None
    plain: bool = Field(default=False, description="this is what runs today")
    work_hours: float | None = Field(default=None, ge=0)
    labels: float = Field(default=0.0, ge=0)
    usd_per_label: float = Field(default=0.0, ge=0)
    labelling: Labelling | None = Field(default=None, description="in the place of labels and usd_per_label")
    training_usd: float = Field(default=0.0, ge=0)
    training_source: str = "the scenario"
    watts_per_instance: float | None = Field(
        default=None, ge=0, description="only where you pay the electricity yourself"
    )
    usd_per_kwh: float = Field(default=0.0, ge=0)
    g_co2e_per_kwh: float | None = Field(
        default=None, ge=0, description="of the electricity; left out, that of the region in `instance` is taken"
    )

    @model_validator(mode="after")
    def _whole(self) -> ScenarioOption:
        own = {
            "instance": self.instance,
            "usd_per_hour": self.usd_per_hour,
            "queries_per_s_per_replica": self.queries_per_s_per_replica,
            "basis": self.basis,
            "source": self.source,
        }
        missing = [name for name, value in own.items() if value is None]
        if self.way is None and missing:
            raise ValueError(
                f"an option names a `way` of the run, or gives its own figures: {', '.join(missing)} missing"
            )
        if self.labelling is not None and (self.labels or self.usd_per_label):
            raise ValueError("give `labelling`, or labels and usd_per_label, not both")
        if self.way is not None and len(missing) < len(own):
            given = ", ".join(name for name in own if name not in missing)
            raise ValueError(f"an option names a `way` of the run or gives its own figures, not both: {given}")
        return self

    def one_off(self, work_hours: float) -> OneOff:
        """What it costs once.

        Args:
            work_hours: where the option says nothing of them.
        """
        labels, usd_per_label, derivation = self.labels, self.usd_per_label, ""
        if self.labelling is not None:
            job = labelling_cost(self.labelling)
            labels, derivation = self.labelling.items, job.derivation
            usd_per_label = job.usd / labels if labels else 0.0
        return OneOff(
            work_hours=work_hours if self.work_hours is None else self.work_hours,
            labels=labels,
            usd_per_label=usd_per_label,
            labelling_derivation=derivation,
            training_usd=self.training_usd,
            source=self.training_source if self.training_usd else "",
        )

    def given(self) -> Option | None:
        """The option from figures of its own; None for a way of the run."""
        if self.usd_per_hour is None or self.queries_per_s_per_replica is None or self.basis is None:
            return None
        source = self.source or UNSOURCED
        provider, _, place = (self.instance or "").partition(" ")
        grid = grid_of(provider, place.rpartition(" ")[2])
        grams, grid_source = (None, "") if grid is None else (grid.g_co2e_per_kwh, grid.text)
        if self.g_co2e_per_kwh is not None:
            grams, grid_source = self.g_co2e_per_kwh, f"{self.g_co2e_per_kwh:g} g a kWh, as the scenario says"
        return Option(
            name=self.name,
            instance=self.instance or "",
            usd_per_hour=self.usd_per_hour,
            spot_usd_per_hour=self.spot_usd_per_hour,
            price_source=source,
            workers_per_instance=self.workers_per_instance,
            queries_per_s_per_replica=self.queries_per_s_per_replica,
            queries_per_s_at_full_load=self.queries_per_s_at_full_load or self.queries_per_s_per_replica,
            basis=self.basis,
            basis_why=source,
            is_plain=self.plain,
            one_off=self.one_off(0.0),
            watts_per_instance=self.watts_per_instance,
            usd_per_kwh=self.usd_per_kwh,
            g_co2e_per_kwh=grams,
            grid_source=grid_source,
        )


class CostScenario(Record):
    """A scenario as its file has it."""

    traffic: ScenarioTraffic
    p99_ms: float | None = Field(default=None, gt=0, description="not needed where every option gives its own figures")
    serving: Serving = Serving()
    assumptions: dict[str, SourcedNumber] = Field(default={})
    options: tuple[ScenarioOption, ...] = Field(default=(), description="none: every way that the run measured")

    @model_validator(mode="after")
    def _names(self) -> CostScenario:
        names = [o.name for o in self.options]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise ValueError(f"options have names of their own; twice: {', '.join(sorted(twice))}")
        unknown = sorted(self.assumptions.keys() - ABOUT.keys())
        if unknown:
            raise ValueError(f"no assumption is called {', '.join(unknown)}: there are {', '.join(ABOUT)}")
        return self

    @property
    def needs_run(self) -> bool:
        """Whether an option is a way of a run."""
        return not self.options or any(o.way is not None for o in self.options)


def parse_scenario(content: bytes, name: str) -> CostScenario:
    """The scenario in the bytes of a TOML file.

    Args:
        name: what errors call it.

    Raises:
        InputError: not TOML in UTF-8, or not the fields of a scenario; each wrong one is named.
    """
    remedy = "docs/cost.md has a scenario to begin with."
    try:
        document = tomllib.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError("A scenario is a TOML file in UTF-8.", received=f"{name}: {error}", remedy=remedy) from error
    try:
        return CostScenario.model_validate(document)
    except ValidationError as error:
        raise InputError(
            "A scenario has the fields of docs/cost.md.",
            received=f"{name}: {describe_validation(error)}",
            remedy=remedy,
        ) from error

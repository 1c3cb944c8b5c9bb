"""Total cost of ownership of each option over a horizon, by kind, and when a one-off cost has paid back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from kcost.core.schema import Record
from kcost.core.units import significant
from kcost.cost.assumptions import HOURS_PER_MONTH, Assumptions
from kcost.cost.basis import CostBasis
from kcost.cost.carbon import Carbon, carbon_of
from kcost.cost.option import Option
from kcost.cost.sizing import Rates, instances_for, mean_usd_per_hour, replicas_for
from kcost.cost.traffic import Traffic

Kind = Literal["serving", "work", "labelling", "training", "energy"]
KINDS: tuple[Kind, ...] = ("serving", "work", "labelling", "training", "energy")


def cents(usd: float) -> float:
    """Dollars rounded to the cent, half a cent up: what a bill shows and a spreadsheet's ROUND gives.

    Examples:
        >>> cents(2.675)
        2.68
    """
    return math.floor(usd * 100 + 0.5 + 1e-6) / 100


JOULES_PER_KWH = 3.6e6


class BillLine(Record):
    """What one kind of cost comes to over the horizon."""

    kind: Kind
    usd: float
    basis: CostBasis | None = Field(default=None, description="None for what was assumed and not measured anywhere")
    why: str


class Bill(Record):
    """What one option costs."""

    option: Option
    replicas: int = Field(description="at the peak, head-room included")
    instances: int = Field(description="that these take, without spares for spot")
    usd_per_month: float = Field(description="serving and energy, 730 hours")
    usd_per_million: float = Field(description="serving and energy at the traffic as it is")
    usd_per_million_full: float = Field(description="were every replica never without a full batch")
    idle_share: float = Field(description="part of what serving costs that pays for idle time")
    lines: tuple[BillLine, ...]
    usd_total: float = Field(description="over the horizon")
    carbon: Carbon | None = Field(default=None, description="of a month; None where nothing says what power it takes")

    @property
    def usd_once(self) -> float:
        """What is paid before the first prediction."""
        return math.fsum(line.usd for line in self.lines if line.kind not in ("serving", "energy"))


class BreakEven(Record):
    """When what an option costs more at first has been saved."""

    against: str
    usd_once: float = Field(description="more than the other option; negative for less")
    usd_saved_per_month: float
    days: float | None = Field(description="0 where it costs no more at first; None where it never pays back")
    predictions: float | None


def bill(option: Option, traffic: Traffic, rates: Rates, assumed: Assumptions) -> Bill:
    """The bill of one option.

        replicas = ceil(peak (1 + headroom) / queries_per_s_per_replica), at least min_replicas
        instances = ceil(replicas / workers_per_instance); more in several zones
        serving = instances * usd_per_hour * 24 * horizon_days

    Each line is rounded to the cent. Autoscaling and spot change the hours and the prices as `kcost.cost.sizing` says.
    """
    replicas = int(replicas_for(rates.peak, option.queries_per_s_per_replica, assumed))
    instances = int(instances_for(replicas, option.workers_per_instance, assumed.zones))
    usd_per_hour = float(_usd_per_hour(option, rates, assumed, option.usd_per_hour, option.spot_usd_per_hour or 0.0))
    hours = 24 * assumed.horizon_days
    once = option.one_off
    lines = [
        BillLine(kind="serving", usd=cents(usd_per_hour * hours), basis=option.basis, why=option.basis_why),
        BillLine(
            kind="work",
            usd=cents(once.work_hours * assumed.work_usd_per_hour),
            why=f"{once.work_hours:g} hours at ${assumed.work_usd_per_hour:g}",
        ),
        BillLine(
            kind="labelling",
            usd=cents(once.labels * once.usd_per_label),
            why=once.labelling_derivation or f"{once.labels:g} labels at ${once.usd_per_label:g}",
        ),
        BillLine(kind="training", usd=cents(once.training_usd), why=once.source or "no training"),
    ]
    energy_usd_per_hour = 0.0
    if option.watts_per_instance is None:
        why = "held by the price of the instance"
        if option.joules_per_prediction is not None:
            kwh = option.joules_per_prediction * traffic.per_day * assumed.horizon_days / JOULES_PER_KWH
            why += f"; its steps take {significant(kwh)} kWh, idle time left out ({option.energy_basis})"
        lines.append(BillLine(kind="energy", usd=0.0, why=why))
    else:
        kw = option.watts_per_instance / 1000
        energy_usd_per_hour = float(_usd_per_hour(option, rates, assumed, kw, kw)) * option.usd_per_kwh
        why = f"{option.watts_per_instance:g} W an instance at ${option.usd_per_kwh:g} a kWh"
        lines.append(BillLine(kind="energy", usd=cents(energy_usd_per_hour * hours), why=why))
    running = usd_per_hour + energy_usd_per_hour
    per_million = running / (traffic.mean_queries_per_s * 3600) * 1e6
    workers_usd = option.usd_per_hour / option.workers_per_instance
    full = workers_usd / (option.queries_per_s_at_full_load * 3600) * 1e6
    return Bill(
        option=option,
        replicas=replicas,
        instances=instances,
        usd_per_month=running * HOURS_PER_MONTH,
        usd_per_million=per_million,
        usd_per_million_full=full,
        idle_share=max(0.0, 1 - full / per_million),
        lines=tuple(lines),
        usd_total=cents(math.fsum(line.usd for line in lines)),
        carbon=_carbon(option, traffic, rates, assumed),
    )


def _carbon(option: Option, traffic: Traffic, rates: Rates, assumed: Assumptions) -> Carbon | None:
    instances = _usd_per_hour(option, rates, assumed, 1.0, 1.0)  # what a dollar an hour each comes to is their number
    full = instances * option.workers_per_instance * option.queries_per_s_at_full_load
    return carbon_of(
        instances=instances,
        busy_share=min(1.0, traffic.mean_queries_per_s / full),
        vcpus=option.vcpus_per_instance,
        is_arm=option.is_arm,
        watts_per_instance=option.watts_per_instance,
        g_co2e_per_kwh=option.g_co2e_per_kwh,
        grid_source=option.grid_source,
        hours=HOURS_PER_MONTH,
    )


def _usd_per_hour(option: Option, rates: Rates, assumed: Assumptions, on_demand: float, spot: float) -> float:
    per_replica, workers = option.queries_per_s_per_replica, option.workers_per_instance
    return float(mean_usd_per_hour(rates, per_replica, workers, on_demand, spot, assumed))


def by_total(bills: Sequence[Bill]) -> list[Bill]:
    """The bills, the cheapest over the horizon first. Of equal ones the least change: plain Keras, then what computes
    in float32, then the least to pay once. Room to spare comes last: it saves nothing."""
    return sorted(
        bills,
        key=lambda b: (
            round(b.usd_total, 2),
            not b.option.is_plain,
            b.option.lowers_precision,
            b.usd_once,
            b.usd_per_million_full,
            b.option.name,
        ),
    )


def break_even(one: Bill, other: Bill, traffic: Traffic) -> BreakEven:
    """When `one` has paid back what it costs more at first than `other`."""
    extra = one.usd_once - other.usd_once
    saved = other.usd_per_month - one.usd_per_month
    days: float | None
    if extra <= 0:
        days = 0.0
    elif saved <= 0:
        days = None
    else:
        days = extra / (saved / HOURS_PER_MONTH * 24)
    return BreakEven(
        against=other.option.name,
        usd_once=extra,
        usd_saved_per_month=saved,
        days=days,
        predictions=None if days is None else days * traffic.per_day,
    )

"""Options, and cases whose truth is known, for tests and benchmarks of budgets. All of it is made up."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kcost.cost.assumptions import HOURS_PER_MONTH, Assumptions
from kcost.cost.option import OneOff, Option
from kcost.cost.sizing import mean_usd_per_hour, rates_of
from kcost.cost.traffic import Traffic, constant

Rounds = dict[tuple[str, str, int], float]

SIGMAS_OF_90 = 1.6448536269514722


def option(name: str = "plain", **changes: Any) -> Option:
    """One option; plain Keras where it is called `plain`."""
    fields: dict[str, Any] = {
        "name": name,
        "instance": "aws m7i.large us-east-1",
        "usd_per_hour": 0.1,
        "price_source": "made up",
        "queries_per_s_per_replica": 50.0,
        "queries_per_s_at_full_load": 80.0,
        "basis": "measured",
        "basis_why": "made up",
        "is_plain": name == "plain",
    }
    return Option(**{**fields, **changes})


class Case(NamedTuple):
    """What a budget is given, and what is true."""

    options: list[Option]
    medians: dict[str, Rounds]
    traffic: Traffic
    assumed: Assumptions
    true_total_usd: list[float]
    true_saved_usd_per_month: float


def case(seed: int, rounds: int = 8) -> Case:
    """Two options that were measured in the same rounds, on a machine that drifts; the truth is drawn around the
    values.

    The true step times are those without drift and noise. Traffic, prices, capacity and work are truly off from their
    values by as much as the assumptions say, with 90% probability each.
    """
    generator = np.random.default_rng(seed)
    assumed = Assumptions(headroom=float(generator.uniform(0, 0.5)))
    traffic = constant(float(generator.uniform(2_000, 20_000)))
    steps = generator.uniform(5, 20, 2)
    drift = generator.normal(0, 0.10, rounds)
    medians: dict[str, Rounds] = {}
    options: list[Option] = []
    for name, step in zip(("plain", "other"), steps, strict=True):
        measured = step * np.exp(drift + generator.normal(0, 0.05, rounds))
        medians[name] = {("block", "session", n): float(ms) for n, ms in enumerate(measured)}
        hours = 0.0 if name == "plain" else float(generator.uniform(1, 80))
        options.append(
            option(
                name,
                queries_per_s_per_replica=1_000 / math.exp(float(np.log(measured).mean())),
                one_off=OneOff(work_hours=hours),
            )
        )

    def off(spread: float) -> float:
        return math.exp(generator.normal(0, math.log1p(spread) / SIGMAS_OF_90))

    truly, price, work = off(assumed.traffic_spread), off(assumed.price_spread), off(assumed.work_spread)
    months = assumed.horizon_days * 24 / HOURS_PER_MONTH
    totals, monthly = [], []
    for one, step in zip(options, steps, strict=True):
        rate = 1_000 / step * off(assumed.capacity_spread)
        hourly = mean_usd_per_hour(
            rates_of(traffic), rate, 1, one.usd_per_hour * price, 0.0, assumed, traffic_factor=truly
        )
        monthly.append(float(hourly) * HOURS_PER_MONTH)
        totals.append(monthly[-1] * months + one.one_off.work_hours * assumed.work_usd_per_hour * work)
    return Case(options, medians, traffic, assumed, totals, monthly[0] - monthly[1])

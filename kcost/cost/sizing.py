"""How many replicas and instances some traffic takes, and what they cost: the arithmetic of a bill.

Every function takes plain numbers or numpy arrays that broadcast, so that one formula gives the bill, its intervals
and the cells of the workbook.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kcost.cost.assumptions import HOURS_PER_MONTH, Assumptions
from kcost.cost.traffic import Traffic

ROUNDING = 1e-9
"""3.0000000001 replicas are 3."""

Number = Any
"""A float or a numpy array of them."""


class Rates(NamedTuple):
    """The rates to size for, requests a second."""

    peak: float
    hours: tuple[float, ...]
    """By hour; one for a rate that never changes."""
    burst: float
    """The peak over the rate of the busiest hour."""


def rates_of(traffic: Traffic) -> Rates:
    """The rates of some traffic. A log's busiest minute exceeds its busiest hour: each hour is taken to have such
    minutes."""
    return Rates(
        traffic.peak_queries_per_s, traffic.queries_per_s, traffic.peak_queries_per_s / max(traffic.queries_per_s)
    )


def replicas_for(queries_per_s: Number, per_replica: Number, assumed: Assumptions) -> Number:
    """ceil(queries_per_s (1 + headroom) / per_replica), at least `min_replicas`."""
    wanted = np.ceil(queries_per_s * (1 + assumed.headroom) / per_replica - ROUNDING)
    return np.maximum(wanted, assumed.min_replicas)


def instances_for(replicas: Number, workers_per_instance: Number, zones: int = 1) -> Number:
    """ceil(replicas / workers_per_instance); in two or more zones as many in each that all zones but one hold these:
    zones * ceil(instances / (zones - 1)).

    Examples:
        >>> [int(instances_for(5, 1, zones)) for zones in (1, 2, 3)]
        [5, 10, 9]
    """
    needed = np.ceil(replicas / workers_per_instance - ROUNDING)
    return needed if zones < 2 else zones * np.ceil(needed / (zones - 1) - ROUNDING)


def usd_per_hour_of(instances: Number, on_demand_usd: Number, spot_usd: Number, assumed: Assumptions) -> Number:
    """What instances cost an hour, a share of them on spot, with spares for those that are interrupted.

    on spot = floor(instances * spot_share); spares = ceil(on spot * interruptions a month / 730 h * cold_start_s /
    3600 s)

    Args:
        spot_usd: not read where `spot_share` is 0.
    """
    if assumed.spot_share == 0:
        return instances * on_demand_usd
    on_spot = np.floor(instances * assumed.spot_share + ROUNDING)
    away = assumed.spot_interruptions_per_month / HOURS_PER_MONTH * assumed.cold_start_s / 3600
    spares = np.ceil(on_spot * away - ROUNDING)
    return (instances - on_spot) * on_demand_usd + (on_spot + spares) * spot_usd


def mean_usd_per_hour(
    rates: Rates,
    per_replica: Number,
    workers_per_instance: Number,
    on_demand_usd: Number,
    spot_usd: Number,
    assumed: Assumptions,
    *,
    traffic_factor: Number = 1.0,
) -> Number:
    """The bill of a mean hour.

    Without autoscaling the instances of the peak are paid at all hours. With it each hour pays its own, and for each
    instance that is added `cold_start_s` more.

    Args:
        per_replica: requests a second that one replica answers within the limit.
        traffic_factor: all rates are multiplied by it.
    """

    def instances(queries_per_s: float) -> Number:
        replicas = replicas_for(queries_per_s * traffic_factor, per_replica, assumed)
        return instances_for(replicas, workers_per_instance, assumed.zones)

    if not assumed.autoscale or len(rates.hours) == 1:
        return usd_per_hour_of(instances(rates.peak), on_demand_usd, spot_usd, assumed)
    total: Number = 0.0
    before = instances(rates.hours[-1] * rates.burst)
    for rate in rates.hours:
        count = instances(rate * rates.burst)
        total = total + usd_per_hour_of(count, on_demand_usd, spot_usd, assumed)
        total = total + np.maximum(count - before, 0) * on_demand_usd * (assumed.cold_start_s / 3600)
        before = count
    return total / len(rates.hours)

"""From the ways that a run measured to deployments that hold a p99 limit at the least dollars a month."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from kcost.core.errors import InputError
from kcost.core.units import significant
from kcost.cost.assumptions import Assumptions
from kcost.cost.basis import CostBasis, is_arm
from kcost.cost.capacity import Capacity, find_capacity, idle_p99_s
from kcost.cost.carbon import grid_of
from kcost.cost.instances import Offer
from kcost.cost.option import Option, Refused
from kcost.cost.queue_simulation import poisson_arrivals_s, simulate
from kcost.cost.scaling import workers_sd
from kcost.cost.serving_ways import Way
from kcost.cost.sizing import Rates, mean_usd_per_hour, replicas_for

SHARED_REQUESTS = 40_000
MOST_TOLD = 300
"""Characters of an error that list ways."""

MOST_SHARED = 64
"""Most replicas that a common line is simulated with."""


def options_of(
    ways: Sequence[Way],
    offers: Mapping[str, Sequence[Offer]],
    rates: Rates,
    assumed: Assumptions,
    p99_ms: float,
    seed: int,
    *,
    capacity_of: Callable[[Way], Capacity | None] | None = None,
) -> tuple[list[Option], dict[str, Capacity], list[Refused]]:
    """Each way on the instance that is cheapest for it, the capacity of its replicas, and the ways that cannot.

    Args:
        offers: name of a way -> the instances that could serve it; at least one.
        capacity_of: what one replica of a way answers within the limit, where that was simulated before.

    Raises:
        InputError: a limit that is not positive, spot wanted where no instance has such a price, or no way that holds
        the
            limit with at most `max_replicas` replicas.
    """
    if not (math.isfinite(p99_ms) and p99_ms > 0):
        raise InputError("A p99 limit is a positive number of milliseconds.", received=p99_ms, remedy="Such as 50.")
    options: list[Option] = []
    refused: list[Refused] = []
    capacities: dict[str, Capacity] = {}
    reachable_ms: list[float] = []
    most = 0
    without_spot = False
    for way in ways:
        capacity = find_capacity(way.service, p99_ms / 1e3, seed) if capacity_of is None else capacity_of(way)
        if capacity is None:
            least_ms = idle_p99_s(way.service, seed) * 1e3
            reachable_ms.append(least_ms)
            refused.append(Refused(name=way.name, reason=f"its p99 is {significant(least_ms)} ms with nothing waiting"))
            continue
        replicas = int(replicas_for(rates.peak, capacity.queries_per_s, assumed))
        if replicas > assumed.max_replicas:
            most = max(most, replicas)
            why = f"it takes {replicas:,} replicas, and {assumed.max_replicas:,} are allowed"
            refused.append(Refused(name=way.name, reason=why))
            continue
        usable = [o for o in offers[way.name] if assumed.spot_share == 0 or o.spot_usd_per_hour is not None]
        if not usable:
            without_spot = True
            refused.append(Refused(name=way.name, reason="the price book has no spot price of an instance for it"))
            continue
        offer = min(usable, key=lambda o: (_usd_per_hour(o, capacity, rates, assumed), o.workers))
        capacities[way.name] = capacity
        options.append(_option(way, offer, capacity, assumed))
    if options:
        return options, capacities, refused
    if most:
        raise InputError(
            f"Traffic is served by at most {assumed.max_replicas:,} replicas of a way.",
            received=f"a peak of {significant(rates.peak)} requests a second; "
            + "; ".join(f"{r.name}: {r.reason}" for r in refused if "replicas" in r.reason)[:MOST_TOLD],
            remedy="Raise --max-replicas, or lower the traffic.",
        )
    if reachable_ms and not without_spot:
        raise InputError(
            "Some way of serving holds the p99 limit when it is asked for hardly anything.",
            received=f"{p99_ms:g} ms, and the fastest of {len(reachable_ms)} has {significant(min(reachable_ms))} ms",
            remedy="Raise --p99-ms, or measure smaller batch sizes or a faster way.",
        )
    raise InputError(
        "The price book has a spot price for an instance.",
        received=f"a spot share of {assumed.spot_share:g}",
        remedy="Leave --spot-share out, name another --instance, or give prices of your own with --prices.",
    )


def _usd_per_hour(offer: Offer, capacity: Capacity, rates: Rates, assumed: Assumptions) -> float:
    return float(
        mean_usd_per_hour(
            rates, capacity.queries_per_s, offer.workers, offer.usd_per_hour, offer.spot_usd_per_hour or 0.0, assumed
        )
    )


def _option(way: Way, offer: Offer, capacity: Capacity, assumed: Assumptions) -> Option:
    basis: CostBasis = offer.basis
    why = offer.why
    sd = workers_sd(offer.workers, assumed.scaling_spread)
    if way.scaling is not None:
        basis = "scaled" if basis == "measured" else basis
        sd = math.hypot(sd, way.scaling.log_sd)
        why += f" {way.scaling.why}"
    if offer.workers > 1:
        basis = "scaled" if basis == "measured" else basis
        why += f" It holds {offer.workers} workers of the measured size; that none slows another was not measured."
    grid = grid_of(offer.price.provider, offer.price.region)
    day = "of an unknown day" if offer.price.as_of is None else f"as of {offer.price.as_of}"
    return Option(
        name=way.name,
        model=way.model,
        instance=offer.price.key,
        usd_per_hour=offer.usd_per_hour,
        spot_usd_per_hour=offer.spot_usd_per_hour,
        price_source=f"{offer.price.source}, {day}",
        workers_per_instance=offer.workers,
        queries_per_s_per_replica=capacity.queries_per_s,
        queries_per_s_at_full_load=way.service.capacity_per_s,
        elasticity=capacity.elasticity,
        batch_limit=capacity.batch_limit,
        wait_ms=capacity.wait_s * 1e3,
        p99_ms=capacity.p99_s * 1e3,
        basis=basis,
        basis_why=why,
        scaling_sd=sd,
        simulated=way.simulated,
        joules_per_prediction=way.joules_per_prediction,
        energy_basis=way.energy_basis,
        is_plain=way.is_plain,
        lowers_precision=way.lowers_precision,
        vcpus_per_instance=offer.vcpus,
        is_arm=is_arm(offer.price),
        g_co2e_per_kwh=None if grid is None else grid.g_co2e_per_kwh,
        grid_source="" if grid is None else grid.text,
    )


def replicas_with_one_line(way: Way, capacity: Capacity, queries_per_s: float, p99_s: float, seed: int) -> int | None:
    """Fewest replicas that hold the limit where one line feeds them all; None above 64.

    A balancer that always picks a replica that is free comes close to it. What it saves over a split by chance is what
    such a balancer is worth.
    """
    arrivals = poisson_arrivals_s(queries_per_s, SHARED_REQUESTS, seed)
    per_replica = way.service.up_to(capacity.batch_limit).capacity_per_s
    least = max(1, int(queries_per_s // per_replica) + 1)
    for replicas in range(least, MOST_SHARED + 1):
        served = simulate(
            arrivals,
            way.service,
            replicas=replicas,
            batch_limit=capacity.batch_limit,
            wait_limit_s=capacity.wait_s,
            seed=seed + 1,
        )
        if served.percentile_s(0.99) <= p99_s:
            return replicas
    return None

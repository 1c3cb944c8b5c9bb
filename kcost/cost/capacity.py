"""The highest rate at which one replica holds a p99 limit, by simulating it; with the batch and waiting time that
allow it."""

from __future__ import annotations

import math
from typing import NamedTuple

from kcost.cost.queue_simulation import Served, ServiceTimes, poisson_arrivals_s, simulate

TAIL = 0.99
SEARCHED_STEPS = 3_000
CHECKED_STEPS = 16_000
"""Steps of a simulation while a rate is looked for, and of the one that the rate must pass: near its capacity a queue
needs hundreds of steps to grow to its length."""

MOST_BUSY = 0.95
"""No rate above this part of the capacity is taken: there, queues last so long that no simulation and no day shows
their p99."""

RATE_WITHIN = 0.01
"""How close the search comes to the rate, as a part of it."""

WAIT_SHARES = (0.0, 0.1, 0.3)
"""Waiting times that are tried, as parts of the limit."""

IDLE = 0.01
"""Part of the capacity at which a server counts as idle: there, no request waits for another."""

BACK = 0.02
"""A rate that the longer simulation refuses is lowered by this part, then by twice as much, and so on."""

AMPLE = 0.8
"""A p99 of at most this part of the limit stays within it where steps take a few percent longer."""

ELASTICITY_STEP = 0.05
MOST_ELASTIC = 20.0
"""Where a step that is 5% longer leaves no rate at all, the rate is taken to fall with its 20th power."""


class Capacity(NamedTuple):
    """What one replica answers within the limit."""

    queries_per_s: float
    batch_limit: int
    wait_s: float
    served: Served
    """Of the simulation at that rate."""
    elasticity: float
    """By how many percent the rate falls where each step takes 1% longer."""

    @property
    def p99_s(self) -> float:
        """At that rate."""
        return self.served.percentile_s(TAIL)


def serve_at(
    queries_per_s: float, service: ServiceTimes, batch_limit: int, wait_s: float, steps: int, seed: int
) -> Served:
    """One replica under a Poisson process of that rate, for about so many steps."""
    usable = service.up_to(batch_limit)
    each = min(max(queries_per_s * (usable.busy_s(batch_limit) + wait_s), 1.0), float(batch_limit))
    arrivals = poisson_arrivals_s(queries_per_s, math.ceil(steps * each), seed)
    return simulate(arrivals, usable, batch_limit=batch_limit, wait_limit_s=wait_s, seed=seed + 1)


def find_capacity(service: ServiceTimes, p99_s: float, seed: int) -> Capacity | None:
    """The batch limit and waiting time with the highest rate; None where no rate holds the limit.

    Traffic is split among replicas by chance, as a balancer does that knows nothing of their queues: then each sees a
    Poisson process of its own, and what one replica answers does not depend on how many there are.

    Args:
        service: step times by batch size.
        p99_s: most that the p99 from arrival to answer may be, at any rate up to the one that is returned.
    """
    best: tuple[float, int, float] | None = None
    for batch_limit in sorted(service.sizes, key=lambda size: -service.up_to(size).capacity_per_s):
        ceiling = MOST_BUSY * service.up_to(batch_limit).capacity_per_s
        for share in WAIT_SHARES if batch_limit > 1 else WAIT_SHARES[:1]:
            if best is not None and ceiling <= best[0] * (1 + RATE_WITHIN):
                break
            rate = _highest_rate(service, batch_limit, share * p99_s, p99_s, seed)
            if rate is not None and (best is None or rate > best[0] * (1 + RATE_WITHIN)):
                best = (rate, batch_limit, share * p99_s)
    if best is None:
        return None
    rate, batch_limit, wait_s = best
    back = BACK
    while rate > IDLE * service.up_to(batch_limit).capacity_per_s / 2:
        served = serve_at(rate, service, batch_limit, wait_s, CHECKED_STEPS, seed + 2)
        if (reached_s := served.percentile_s(TAIL)) <= p99_s:
            at_capacity = rate > 0.999 * MOST_BUSY * service.up_to(batch_limit).capacity_per_s
            if at_capacity and reached_s <= AMPLE * p99_s:
                elasticity = 1.0  # the capacity decides, not the limit
            else:
                elasticity = _elasticity(service, batch_limit, wait_s, p99_s, seed)
            return Capacity(rate, batch_limit, wait_s, served, elasticity)
        rate, back = rate * max(1 - back, 0.5), 2 * back
    return None


def idle_p99_s(service: ServiceTimes, seed: int) -> float:
    """The p99 of a server that hardly anything is asked of: the least that can be."""
    smallest = service.sizes[0]
    rate = IDLE * service.up_to(smallest).capacity_per_s
    return serve_at(rate, service, smallest, 0.0, SEARCHED_STEPS, seed).percentile_s(TAIL)


def _highest_rate(service: ServiceTimes, batch_limit: int, wait_s: float, p99_s: float, seed: int) -> float | None:
    """By bisection; a server that is asked for little must hold the limit too, as it waits in vain for others."""

    def holds(queries_per_s: float) -> bool:
        return serve_at(queries_per_s, service, batch_limit, wait_s, SEARCHED_STEPS, seed).percentile_s(TAIL) <= p99_s

    capacity = service.up_to(batch_limit).capacity_per_s
    low, high = IDLE * capacity, MOST_BUSY * capacity
    if not holds(low):
        return None
    if holds(high):
        return high
    while high > low * (1 + RATE_WITHIN):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _elasticity(service: ServiceTimes, batch_limit: int, wait_s: float, p99_s: float, seed: int) -> float:
    shorter, longer = (
        _highest_rate(service.scaled(factor), batch_limit, wait_s, p99_s, seed)
        for factor in (1 - ELASTICITY_STEP, 1 + ELASTICITY_STEP)
    )
    if shorter is None or longer is None:
        return MOST_ELASTIC
    slope = math.log(shorter / longer) / math.log((1 + ELASTICITY_STEP) / (1 - ELASTICITY_STEP))
    return min(max(slope, 0.0), MOST_ELASTIC)

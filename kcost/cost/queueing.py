"""Closed forms of queues: what a simulation of them is held against. Times are in seconds, rates per second."""

from __future__ import annotations

import math

from kcost.core.errors import InputError


def _load(arrivals_per_s: float, mean_service_s: float, servers: int = 1) -> float:
    """The part of the time that each server is busy.

    Raises:
        InputError: a number that is not positive, or a queue that grows for ever.
    """
    numbers = (arrivals_per_s, mean_service_s, servers)
    if not all(math.isfinite(n) and n > 0 for n in numbers):
        raise InputError("A queue has a positive rate, service time and count of servers.", received=numbers)
    load = arrivals_per_s * mean_service_s / servers
    if load >= 1:
        raise InputError(
            "A queue is stable where its servers are busy for less than all of the time.",
            received=f"a load of {load:.3g}",
            remedy="Take more servers or less traffic.",
        )
    return load


def erlang_c(arrivals_per_s: float, mean_service_s: float, servers: int) -> float:
    """Probability that an arrival to M/M/c has to wait.

    By the recursion of Erlang's B formula, which never overflows: B(0) = 1, B(k) = a B(k-1) / (k + a B(k-1)), and
    C = B / (1 - load (1 - B)) with a = arrivals_per_s * mean_service_s.

    Source: Erlang, A. K. (1917); Cooper, R. B. (1981), Introduction to Queueing Theory, chapter 3.

    Raises:
        InputError: as `_load`.

    Examples:
        >>> round(erlang_c(1.0, 1.0, 2), 6)
        0.333333
    """
    load = _load(arrivals_per_s, mean_service_s, servers)
    offered = arrivals_per_s * mean_service_s
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - load * (1 - blocked))


def mmc_mean_wait_s(arrivals_per_s: float, mean_service_s: float, servers: int = 1) -> float:
    """Mean time before service in M/M/c: C / (servers / mean_service_s - arrivals_per_s). Raises as `erlang_c`."""
    waits = erlang_c(arrivals_per_s, mean_service_s, servers)
    return waits / (servers / mean_service_s - arrivals_per_s)


def mmc_wait_quantile_s(arrivals_per_s: float, mean_service_s: float, servers: int, fraction: float) -> float:
    """A percentile of the time before service in M/M/c, whose tail is exponential. Raises as `erlang_c`."""
    waits = erlang_c(arrivals_per_s, mean_service_s, servers)
    if waits <= 1 - fraction:
        return 0.0
    return math.log(waits / (1 - fraction)) / (servers / mean_service_s - arrivals_per_s)


def mm1_sojourn_quantile_s(arrivals_per_s: float, mean_service_s: float, fraction: float) -> float:
    """A percentile of the time from arrival to answer in M/M/1, which is exponential. Raises as `erlang_c`."""
    load = _load(arrivals_per_s, mean_service_s)
    return -math.log1p(-fraction) * mean_service_s / (1 - load)


def mg1_mean_wait_s(arrivals_per_s: float, mean_service_s: float, service_variance_s2: float) -> float:
    """Mean time before service in M/G/1: arrivals_per_s (variance + mean^2) / (2 (1 - load)).

    Source: Pollaczek, F. (1930) and Khintchine, A. Y. (1932).

    Raises:
        InputError: a negative variance, or as `erlang_c`.
    """
    load = _load(arrivals_per_s, mean_service_s)
    if service_variance_s2 < 0:
        raise InputError("A variance is 0 or more.", received=service_variance_s2)
    return arrivals_per_s * (service_variance_s2 + mean_service_s**2) / (2 * (1 - load))


def md1_mean_wait_s(arrivals_per_s: float, mean_service_s: float) -> float:
    """Mean time before service in M/D/1, where each service takes the same. Raises as `erlang_c`."""
    return mg1_mean_wait_s(arrivals_per_s, mean_service_s, 0.0)

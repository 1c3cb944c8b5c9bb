"""A simulation of a server with dynamic batching: no clock, and one seed gives one answer.

Requests wait in one line, first come first served. A batch begins as soon as a replica is free and the batch is full,
or its first request has waited as long as is allowed. It is filled up to the next batch size that was measured, as a
server with fixed batch shapes does (`allowed_batch_sizes` of TensorFlow Serving).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kcost.core.errors import InputError


class ServiceTimes:
    """How long a step takes at each batch size that was measured: the raw samples, which are drawn from.

    Args:
        samples_s: batch size -> durations of a step in seconds, of any count above 0.

    Raises:
        InputError: no batch size, or one without positive samples.
    """

    def __init__(self, samples_s: Mapping[int, np.ndarray]) -> None:
        self.samples_s = {size: np.asarray(samples_s[size], dtype=np.float64) for size in sorted(samples_s)}
        wrong = [b for b, s in self.samples_s.items() if b < 1 or s.size == 0 or not np.all(np.isfinite(s) & (s > 0))]
        if not self.samples_s or wrong:
            raise InputError("Service times are positive samples at one batch size at least.", received=wrong or "none")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes, ascending."""
        return tuple(self.samples_s)

    def up_to(self, limit: int) -> ServiceTimes:
        """Those of the batch sizes up to `limit`, which is one of them."""
        return ServiceTimes({size: s for size, s in self.samples_s.items() if size <= limit})

    def scaled(self, factor: float) -> ServiceTimes:
        """Each duration times `factor`."""
        return ServiceTimes({size: s * factor for size, s in self.samples_s.items()})

    def mean_s(self, size: int) -> float:
        """Mean duration of a step of one of the sizes."""
        return float(self.samples_s[size].mean())

    @property
    def capacity_per_s(self) -> float:
        """Most requests a second that one replica answers when it never waits for any."""
        return max(size / self.mean_s(size) for size in self.sizes)


class Served(NamedTuple):
    """What became of the requests of a simulation."""

    wait_s: np.ndarray
    """From arrival to the beginning of the step, shape (requests,), float64."""
    latency_s: np.ndarray
    """From arrival to answer, shape (requests,), float64."""
    busy_share: float
    """Part of the replicas' time in which a step ran."""
    mean_batch: float
    """Requests of a step, on the average."""

    def percentile_s(self, fraction: float) -> float:
        """A percentile of the latencies."""
        return float(np.quantile(self.latency_s, fraction))


def poisson_arrivals_s(queries_per_s: float, requests: int, seed: int) -> np.ndarray:
    """Times of a Poisson process, ascending, shape (requests,). A higher rate presses the same sequence together."""
    return np.cumsum(np.random.default_rng(seed).exponential(1.0, requests)) / queries_per_s


def simulate(
    arrivals_s: np.ndarray,
    service: ServiceTimes,
    *,
    replicas: int = 1,
    batch_limit: int | None = None,
    wait_limit_s: float = 0.0,
    after_idle_s: float = 0.0,
    seed: int = 0,
) -> Served:
    """Serves requests that arrive at given times.

    Args:
        arrivals_s: ascending, shape (requests,).
        replicas: how many take from the one line.
        batch_limit: most requests of a step; None for the largest size that was measured.
        wait_limit_s: how long the first request of a step that is not full waits for others.
        after_idle_s: how much longer a step takes whose replica had nothing to do before: its caches went cold.
        seed: of the service times, which are drawn from the samples of their batch size.

    Raises:
        InputError: a batch limit that was not measured, no replica, no request, or a negative wait.
    """
    limit = service.sizes[-1] if batch_limit is None else batch_limit
    if limit not in service.sizes:
        raise InputError("A batch limit is a size that was measured.", received=f"{limit}, not of {service.sizes}")
    if replicas < 1 or min(wait_limit_s, after_idle_s) < 0 or len(arrivals_s) == 0:
        raise InputError(
            "A simulation has a replica, a request, and waits and cold steps of 0 seconds or more.",
            received=f"{replicas}, {len(arrivals_s)}, {wait_limit_s}, {after_idle_s}",
        )
    arrivals = np.asarray(arrivals_s, dtype=np.float64)
    generator = np.random.default_rng(seed)
    if replicas == 1 and limit == 1 and after_idle_s == 0:
        return _one_at_a_time(arrivals, generator.choice(service.samples_s[1], len(arrivals)))
    return _in_batches(arrivals, service.up_to(limit), replicas, limit, wait_limit_s, after_idle_s, generator)


def _one_at_a_time(arrivals: np.ndarray, service: np.ndarray) -> Served:
    """One replica without batches, for all requests at once.

    Source: Lindley, D. V. (1952), Proceedings of the Cambridge Philosophical Society 48: a wait is the one before plus
    the service less the gap, or 0; the sum so far less its least so far.
    """
    steps = np.concatenate(([0.0], np.cumsum(service[:-1] - np.diff(arrivals))))
    wait = steps - np.minimum.accumulate(steps)
    latency = wait + service
    end = float((arrivals + latency).max())
    return Served(wait, latency, float(service.sum()) / (end - float(arrivals[0])), 1.0)


def _in_batches(
    arrivals: np.ndarray,
    service: ServiceTimes,
    replicas: int,
    limit: int,
    wait_limit_s: float,
    after_idle_s: float,
    generator: np.random.Generator,
) -> Served:
    sizes = service.sizes
    draws = {s: generator.choice(service.samples_s[s], max(1, _most_steps(len(arrivals), s, sizes))) for s in sizes}
    durations = {s: iter(d.tolist()) for s, d in draws.items()}
    padded = [0, *(sizes[bisect_right(sizes, n - 1)] for n in range(1, limit + 1))]
    times: list[float] = arrivals.tolist()
    free = [times[0]] * replicas
    counts: list[int] = []
    starts: list[float] = []
    took: list[float] = []
    first, last = 0, len(times)
    while first < last:
        # A step begins when it is full or its first request has waited enough, and a replica is free by then.
        start = free[0]
        if (waited := times[first] + wait_limit_s) > start:
            end = first + limit
            start = max(start, min(waited, times[end - 1])) if end <= last else waited
        end = first + limit
        if end <= last and times[end - 1] <= start:
            count = limit
        else:
            count = bisect_right(times, start, first, min(end, last)) - first
        size = padded[count]
        duration = next(durations[size])
        if start > free[0]:
            duration += after_idle_s
        heapq.heapreplace(free, start + duration)
        counts.append(count)
        starts.append(start)
        took.append(duration)
        first += count
    step_s, begin_s = np.array(took), np.array(starts)
    begin, ended = np.repeat(begin_s, counts), np.repeat(begin_s + step_s, counts)
    span_s = float(ended.max()) - times[0]
    return Served(begin - arrivals, ended - arrivals, float(step_s.sum()) / (span_s * replicas), last / len(counts))


def _most_steps(requests: int, size: int, sizes: tuple[int, ...]) -> int:
    """Most steps of one padded size: each holds more requests than the next smaller size."""
    smaller = max((s for s in sizes if s < size), default=0)
    return requests // (smaller + 1) + 1

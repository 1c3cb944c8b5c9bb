"""A simulation of a server with dynamic batching: no clock, and one seed gives one answer.

Requests wait in one line, first come first served. A batch begins as soon as a replica is free and the batch is full,
or its first request has waited as long as is allowed. It is filled up to the next batch size that was measured, as a
server with fixed batch shapes does (`allowed_batch_sizes` of TensorFlow Serving).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kcost.core.errors import InputError

NEIGHBOURS = 32
"""A step after idle time is drawn from as many that were measured after the gaps nearest to its own."""


class AfterIdleSteps:
    """Steps that each began after its replica had nothing to do for a while, as `kcost bench` measures them.

    Args:
        gap_s: how long it had nothing to do before each of them, in seconds.
        step_s: their durations in seconds, as many.

    Raises:
        InputError: no step, durations that are not positive, or gaps that are negative or of another number.
    """

    def __init__(self, gap_s: np.ndarray, step_s: np.ndarray) -> None:
        gaps, steps = np.asarray(gap_s, dtype=np.float64), np.asarray(step_s, dtype=np.float64)
        usable = gaps.shape == steps.shape and steps.size > 0 and np.all(np.isfinite(gaps) & (gaps >= 0))
        if not usable or not np.all(np.isfinite(steps) & (steps > 0)):
            raise InputError(
                "Steps after idle time are positive durations, each with the gap of 0 seconds or more before it.",
                received=f"{gaps.size} gaps, {steps.size} steps",
            )
        order = np.argsort(gaps, kind="stable")
        self.gap_s, self.step_s = gaps[order], steps[order]

    def scaled(self, factor: float) -> AfterIdleSteps:
        """Each duration times `factor`; the gaps stay."""
        return AfterIdleSteps(self.gap_s, self.step_s * factor)

    def mean_s(self, gap_s: float, back_to_back_s: float) -> float:
        """Mean duration of a step after such a gap, as it is drawn, where one back to back takes `back_to_back_s`."""
        first, among = _first_near(self.gap_s, gap_s), min(NEIGHBOURS, len(self.step_s))
        share = 1.0 if gap_s >= self.gap_s[0] else gap_s / float(self.gap_s[0])
        return share * float(self.step_s[first : first + among].mean()) + (1 - share) * back_to_back_s


class ServiceTimes:
    """How long a step takes at each batch size that was measured: the raw samples, which are drawn from.

    Args:
        samples_s: batch size -> durations of a step in seconds, back to back, of any count above 0.
        after_idle: batch size -> steps after idle time, for the sizes of which these were measured. A step of another
            size is taken to be as long after idle time as back to back.
        hand_over_s: what a server takes of each step to give it to the model and to get its answers. No other step is
            taken to run on the replica meanwhile: the model has nothing to do for so long even where requests wait.

    Raises:
        InputError: no batch size, one without positive samples, steps after idle time of a size without others, or a
            hand-over below 0.
    """

    def __init__(
        self,
        samples_s: Mapping[int, np.ndarray],
        after_idle: Mapping[int, AfterIdleSteps] | None = None,
        hand_over_s: float = 0.0,
    ) -> None:
        self.samples_s = {size: np.asarray(samples_s[size], dtype=np.float64) for size in sorted(samples_s)}
        wrong = [b for b, s in self.samples_s.items() if b < 1 or s.size == 0 or not np.all(np.isfinite(s) & (s > 0))]
        if not self.samples_s or wrong:
            raise InputError("Service times are positive samples at one batch size at least.", received=wrong or "none")
        self.after_idle = dict(after_idle or {})
        if alone := sorted(self.after_idle.keys() - self.samples_s.keys()):
            raise InputError("Steps after idle time have others of their batch size back to back.", received=alone)
        if not (np.isfinite(hand_over_s) and hand_over_s >= 0):
            raise InputError("A hand-over takes 0 seconds or more.", received=hand_over_s)
        self.hand_over_s = hand_over_s

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes, ascending."""
        return tuple(self.samples_s)

    def up_to(self, limit: int) -> ServiceTimes:
        """Those of the batch sizes up to `limit`, which is one of them."""
        return ServiceTimes(
            {size: s for size, s in self.samples_s.items() if size <= limit},
            {size: s for size, s in self.after_idle.items() if size <= limit},
            self.hand_over_s,
        )

    def scaled(self, factor: float) -> ServiceTimes:
        """Each duration times `factor`."""
        return ServiceTimes(
            {size: s * factor for size, s in self.samples_s.items()},
            {size: s.scaled(factor) for size, s in self.after_idle.items()},
            self.hand_over_s * factor,
        )

    def handed_over_in(self, hand_over_s: float) -> ServiceTimes:
        """The same steps, by a server that takes so long for each beside the model."""
        return ServiceTimes(self.samples_s, self.after_idle, hand_over_s)

    def mean_s(self, size: int) -> float:
        """Mean duration of a step of one of the sizes."""
        return float(self.samples_s[size].mean())

    def busy_s(self, size: int) -> float:
        """How long a step of one of the sizes keeps a replica for which requests wait, on the average.

        A hand-over is a gap before the step: where there are steps after such gaps, it is one of these.
        """
        step_s = self.mean_s(size)
        if self.hand_over_s > 0 and size in self.after_idle:
            step_s = self.after_idle[size].mean_s(self.hand_over_s, step_s)
        return self.hand_over_s + step_s

    @property
    def capacity_per_s(self) -> float:
        """Most requests a second that one replica answers when it never waits for any."""
        return max(size / self.busy_s(size) for size in self.sizes)


class Served(NamedTuple):
    """What became of the requests of a simulation."""

    wait_s: np.ndarray
    """From arrival to the beginning of the step, its hand-over included in the step, shape (requests,), float64."""
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
    seed: int = 0,
    times_longer: Callable[[float], float] | None = None,
) -> Served:
    """Serves requests that arrive at given times.

    Args:
        arrivals_s: ascending, shape (requests,).
        replicas: how many take from the one line.
        batch_limit: most requests of a step; None for the largest size that was measured.
        wait_limit_s: how long the first request of a step that is not full waits for others.
        seed: of the service times, which are drawn from the samples of their batch size: those after a gap of about
            the same length where the model had nothing to do before, and else those back to back. A gap that is
            shorter than any measured one is taken for the shortest with the probability of its part of it.
        times_longer: from the moment at which a step begins, in seconds, to what its drawn time is multiplied by: a
            machine that others share slows down for a while, and a queue that runs over shows it long after.

    Raises:
        InputError: a batch limit that was not measured, no replica, no request, or a negative wait.
    """
    limit = service.sizes[-1] if batch_limit is None else batch_limit
    if limit not in service.sizes:
        raise InputError("A batch limit is a size that was measured.", received=f"{limit}, not of {service.sizes}")
    if replicas < 1 or wait_limit_s < 0 or len(arrivals_s) == 0:
        raise InputError(
            "A simulation has a replica, a request, and waits of 0 seconds or more.",
            received=f"{replicas}, {len(arrivals_s)}, {wait_limit_s}",
        )
    arrivals = np.asarray(arrivals_s, dtype=np.float64)
    generator = np.random.default_rng(seed)
    if replicas == 1 and limit == 1 and 1 not in service.after_idle and times_longer is None:
        steps = generator.choice(service.samples_s[1], len(arrivals))
        return _one_at_a_time(arrivals, steps + service.hand_over_s)
    return _in_batches(arrivals, service.up_to(limit), replicas, limit, wait_limit_s, generator, times_longer)


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
    generator: np.random.Generator,
    times_longer: Callable[[float], float] | None,
) -> Served:
    sizes = service.sizes
    counts_of = {s: max(1, _most_steps(len(arrivals), s, sizes)) for s in sizes}
    durations = {s: iter(generator.choice(service.samples_s[s], count).tolist()) for s, count in counts_of.items()}
    cold = {s: _NearGap(steps, counts_of[s], generator) for s, steps in service.after_idle.items()}
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
        gap = start - free[0] + service.hand_over_s
        is_cold = gap > 0 and size in cold and cold[size].is_after_idle(gap)
        step_s = cold[size].duration_s(gap) if is_cold else next(durations[size])
        if times_longer is not None:
            step_s *= times_longer(start)
        duration = service.hand_over_s + step_s
        heapq.heapreplace(free, start + duration)
        counts.append(count)
        starts.append(start)
        took.append(duration)
        first += count
    took_s, begin_s = np.array(took), np.array(starts)
    begin, ended = np.repeat(begin_s, counts), np.repeat(begin_s + took_s, counts)
    span_s = float(ended.max()) - times[0]
    return Served(begin - arrivals, ended - arrivals, float(took_s.sum()) / (span_s * replicas), last / len(counts))


class _NearGap:
    """Draws durations of steps after idle time, by the gaps before them."""

    def __init__(self, steps: AfterIdleSteps, count: int, generator: np.random.Generator) -> None:
        self._gaps: list[float] = steps.gap_s.tolist()
        self._steps: list[float] = steps.step_s.tolist()
        self._among = min(NEIGHBOURS, len(self._steps))
        self._places: Iterator[int] = iter(generator.integers(self._among, size=count).tolist())
        self._chances: Iterator[float] = iter(generator.random(count).tolist())

    def is_after_idle(self, gap_s: float) -> bool:
        """Whether a step after a gap above 0 is one of these: by chance where all measured gaps are longer."""
        return gap_s >= self._gaps[0] or gap_s > next(self._chances) * self._gaps[0]

    def duration_s(self, gap_s: float) -> float:
        """One of those whose gaps are nearest."""
        return self._steps[_first_near(self._gaps, gap_s) + next(self._places)]


def _first_near(gaps_s: Sequence[float] | np.ndarray, gap_s: float) -> int:
    """Place of the first of the NEIGHBOURS gaps nearest by rank, half of them shorter where there are as many."""
    among = min(NEIGHBOURS, len(gaps_s))
    return min(max(bisect_left(gaps_s, gap_s) - among // 2, 0), len(gaps_s) - among)


def _most_steps(requests: int, size: int, sizes: tuple[int, ...]) -> int:
    """Most steps of one padded size: each holds more requests than the next smaller size."""
    smaller = max((s for s in sizes if s < size), default=0)
    return requests // (smaller + 1) + 1

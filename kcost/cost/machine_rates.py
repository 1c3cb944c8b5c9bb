"""What a machine does in a second with one backend and one number of threads, read from its probe.

A probe times square products, convolutions, sums in place and a call that computes next to nothing (`core.probe`). The
time of a call is taken off each of the others, so that what is left is theirs. Between two sizes that were timed a rate
is interpolated on logarithms; beyond the last one it stays as it is there. Rates are of programs between the pauses
of a CPU quota, which is apart.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np

from kcost.core.errors import InputError
from kcost.core.plan import Backend
from kcost.core.probe import (
    BYTES_AN_ELEMENT,
    ConvolutionTimes,
    MoveTimes,
    Probe,
    ProbeAnswer,
    ProbedDtype,
    ProductTimes,
)
from kcost.core.result import Environment

Timed = TypeVar("Timed", ProductTimes, ConvolutionTimes, MoveTimes)

OWN_SHARE = 0.5
"""Least part of a timed program that is not its call: a small product is hardly longer than the call around it, and the
difference of two like numbers is noise."""


class Curve(NamedTuple):
    """A rate by size, both as natural logarithms, sizes ascending."""

    log_size: tuple[float, ...]
    log_rate: tuple[float, ...]

    def log_rate_at(self, log_size: float) -> float:
        """Interpolated; beyond the ends that of the nearest end.

        Examples:
            >>> Curve((0.0, 2.0), (1.0, 3.0)).log_rate_at(1.0)
            2.0
        """
        return float(np.interp(log_size, self.log_size, self.log_rate))


class HeldBack(NamedTuple):
    """A CPU quota of fewer cores than there are threads."""

    cores: float
    """Cores whose time all threads may take together."""
    waste: float
    """How much more of that time is used up where all threads are busy than their work takes, 1 or more: the kernel
    stops them one by one, and those that still run wait for the others without sleeping."""


class MachineRates(NamedTuple):
    """One machine with one backend and one number of threads."""

    environment: Environment
    backend: Backend
    threads: int
    products: Mapping[ProbedDtype, Curve]
    """FLOPs of a product -> FLOPs a second."""
    memory: Curve
    """Bytes that a sum reads and writes -> bytes a second."""
    call_s: float
    simulated: bool
    convolutions: Mapping[ProbedDtype, Curve] = MappingProxyType({})
    """FLOPs of a convolution -> FLOPs a second; empty in an older probe."""
    held: HeldBack | None = None
    """What no rate holds: they are of programs that no quota stops."""

    @property
    def name(self) -> str:
        """The machine in a few words."""
        return f"{self.environment.cpu_model}, {self.backend}, {self.threads} thread(s)"


def rates_of(probe: Probe, threads: int | None = None) -> MachineRates:
    """The rates of a probed machine.

    Each program counts with the best of all numbers of threads up to that one. A probe runs one small program at a
    time, and each run has to wake threads that went to sleep: XLA's smallest sum is three times as fast with one thread
    as with two. The layers of XLA's step follow each other with all threads awake, and never show that. Small steps of
    TensorFlow do in part: they take longer with two threads than with one, and are projected too short there.

    Args:
        threads: one of the numbers that were probed; None takes the highest that a CPU quota there allows.

    Raises:
        InputError: that number was not probed, or the probe lacks a call, sums or products in float32.
    """
    by_threads = {each.threads: each.answer for each in probe.by_threads}
    chosen = _most_allowed(by_threads, probe.environment.default_threads) if threads is None else threads
    if chosen not in by_threads:
        raise InputError(
            "A projection needs a probe with the number of threads that a step has.",
            received=f"{chosen}; {probe.backend} on {probe.environment.cpu_model} was probed with "
            f"{', '.join(map(str, by_threads)) or 'none'}",
            remedy="Run `kcost probe` on that machine, or project to a number that was probed.",
        )
    answer = _best([by_threads[count] for count in sorted(by_threads, reverse=True) if count <= chosen])
    call_s = statistics.median(answer.call_ns) / 1e9 if answer.call_ns else math.nan
    products: dict[ProbedDtype, Curve] = {}
    for dtype in sorted({p.dtype for p in answer.products}):
        timed = [(2.0 * p.size**3, statistics.median(p.ns) / 1e9) for p in answer.products if p.dtype == dtype]
        products[dtype] = _curve(timed, call_s)
    convolutions: dict[ProbedDtype, Curve] = {}
    for dtype in sorted({c.dtype for c in answer.convolutions}):
        mine = [c for c in answer.convolutions if c.dtype == dtype]
        convolutions[dtype] = _curve([(float(c.flops), statistics.median(c.ns) / 1e9) for c in mine], call_s)
    moves = [(float(m.elements * BYTES_AN_ELEMENT), statistics.median(m.ns) / 1e9) for m in answer.moves]
    if math.isnan(call_s) or not moves or "float32" not in products:
        raise InputError(
            "A projection needs a probe with a call, sums in memory and products in float32.",
            received=f"{probe.backend}, {chosen} thread(s): {'; '.join(answer.not_measured) or 'one of them lacks'}",
            remedy="Probe again with more time: kcost probe --seconds 120.",
        )
    return MachineRates(
        environment=probe.environment,
        backend=probe.backend,
        threads=chosen,
        products=products,
        memory=_curve(moves, call_s),
        call_s=call_s,
        simulated=answer.simulated,
        convolutions=convolutions,
        held=_held_back(probe.environment.cpu_quota_cores, chosen, by_threads[chosen]),
    )


def _best(answers: Sequence[ProbeAnswer]) -> ProbeAnswer:
    """The first answer, each of its programs with the times of the answer in which it was fastest.

    A program that the first lacks stays away: where a CPU quota stops two threads in it, one thread says nothing of
    their rate.
    """
    first = answers[0]
    return first.model_copy(
        update={
            "call_ns": first.call_ns and min((a.call_ns for a in answers if a.call_ns), key=statistics.median),
            "products": _fastest(first.products, (p for a in answers for p in a.products)),
            "convolutions": _fastest(first.convolutions, (c for a in answers for c in a.convolutions)),
            "moves": _fastest(first.moves, (m for a in answers for m in a.moves)),
        }
    )


def _fastest(programs: Sequence[Timed], timed: Iterable[Timed]) -> tuple[Timed, ...]:
    """Each of the programs with its shortest times, in their order."""
    best = {one.program: one for one in sorted(timed, key=lambda each: statistics.median(each.ns), reverse=True)}
    return tuple(best[one.program] for one in programs)


def _most_allowed(probed: Collection[int], allowed: int) -> int:
    """The highest number of threads that was probed and is allowed, else the lowest that was probed; 0 for none."""
    return max((count for count in probed if count <= allowed), default=min(probed, default=0))


def _held_back(quota_cores: float | None, threads: int, answer: ProbeAnswer) -> HeldBack | None:
    """The quota, where it can hold so many threads back, with what it wastes by the probe: nothing where that lacks."""
    if quota_cores is None or quota_cores >= threads:
        return None
    if answer.held is None:
        return HeldBack(quota_cores, 1.0)
    alone = next(p for p in answer.products if (p.dtype, p.size) == ("float32", answer.held.size))
    times_longer = statistics.median(answer.held.ns) / statistics.median(alone.ns)
    return HeldBack(quota_cores, max(1.0, times_longer * quota_cores / max(quota_cores, answer.held.cores)))


def _curve(timed: Iterable[tuple[float, float]], call_s: float) -> Curve:
    """Size -> rate, of programs that took so many seconds for so much work, their calls taken off.

    One that took hardly longer than its call says nothing of a rate, and is left out where another says more.
    """
    ordered = sorted(timed)
    telling = [(size, seconds) for size, seconds in ordered if seconds - call_s >= OWN_SHARE * seconds]
    points: Sequence[tuple[float, float]] = [
        (math.log(size), math.log(size / max(seconds - call_s, OWN_SHARE * seconds, 1e-9)))
        for size, seconds in telling or ordered[-1:]
    ]
    return Curve(tuple(size for size, _ in points), tuple(rate for _, rate in points))

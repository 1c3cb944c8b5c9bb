"""Measures what this machine can do with one backend and one number of threads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from kcost.backends import driver
from kcost.backends.base import Driver
from kcost.core.errors import KcostError, in_a_line
from kcost.core.probe import (
    ConvolutionTimes,
    HeldTimes,
    MoveTimes,
    ProbeAnswer,
    ProbedDtype,
    ProbedQuota,
    ProbeRequest,
    ProductTimes,
    TransferTimes,
)
from kcost.worker.repeated import cores_used, mean_ns, repeated_ns

S = TypeVar("S")
T = TypeVar("T")

SIZES = (64, 256, 1024, 2048, 4096)

CONVOLUTIONS = ((1, 8, 64), (1, 32, 32), (16, 32, 32), (16, 32, 64))
"""Images, their side and their channels: 5 MFLOP to 1.2 GFLOP, as layers of networks for small images to large ones."""

ELEMENTS = (1 << 16, 1 << 20, 1 << 22, 1 << 25)
"""768 KiB in all, which a cache holds, 12 and 48 MiB, as the weights of layers and models, and 384 MiB, which no cache
holds."""

TRANSFERRED = 1 << 22
"""Float32 numbers: 16 MiB each way."""

REPEATED_S = 0.3
"""Time that each program is repeated for, about; less where there is little time for all."""

MOST_PROGRAMS = 20
"""More than a probe has of one dtype."""

LONG_ENOUGH_S = 0.2
"""A product that takes this long is not made larger: the next would take eight times as long."""

LONGEST_S = 2.0
"""A product that would take longer, by the one before it, is not begun: without instructions for bfloat16 one of 1024
takes seconds."""

MOST_REPETITIONS = 3_000
"""Of a program of microseconds: fewer were over before the processor had left its idle state."""

QUOTA_PERIODS = 20
"""Of a CPU quota that a product is repeated for."""

REFILL_PERIODS = 2
"""After so many periods without work the quota of one is whole again."""

WINDOW_SHARE = 0.5
"""Most of the time that a CPU quota lets all threads run in a period that the median of a program may take. One that
takes longer is stopped in every second run or more, so that its median may hold a pause."""

HELD = "a product under the CPU quota"

SMALLEST_HELD = 256
"""Size of a product under a quota: smaller ones are mostly their call."""


def run(request: ProbeRequest) -> ProbeAnswer:
    """Products and convolutions from small to large; with those of float32 sums in place, a transfer, and the smallest
    call.

    A program that fails costs itself alone: it stands in `not_measured` with its reason.
    """
    backend = driver(request.backend)
    dtype = request.dtype
    probing = _Probing(request)
    call_ns: tuple[int, ...] | None = None
    moves: list[MoveTimes] = []
    transfers: list[TransferTimes] = []

    def sums(sizes: Sequence[int]) -> None:
        for elements in sizes:
            ns = probing.times(f"a sum of {elements}", partial(backend.sum_in_place, elements))
            if ns is not None:
                moves.append(MoveTimes(elements=elements, ns=ns))

    if dtype == "float32":
        call_ns = probing.times("a call", lambda: backend.square_product(1, "float32"))
        sums((ELEMENTS[0], ELEMENTS[-1]))
    products = [
        ProductTimes(dtype=dtype, size=size, ns=ns)
        for size, ns in probing.growing(
            dtype, "product", [(f"{n}", n, 2.0 * n**3, partial(backend.square_product, n, dtype)) for n in SIZES]
        )
    ]
    convolutions = [
        ConvolutionTimes(dtype=dtype, images=images, side=side, channels=channels, ns=ns)
        for (images, side, channels), ns in probing.growing(
            dtype,
            "convolution",
            [
                (
                    f"{n} x {s} x {s} x {c}",
                    (n, s, c),
                    18.0 * n * s**2 * c**2,
                    partial(backend.convolution, n, s, c, dtype),
                )
                for n, s, c in CONVOLUTIONS
            ],
        )
    ]
    held: HeldTimes | None = None
    if dtype == "float32":
        if (quota := request.quota) is not None:
            held = probing.tried(HELD, lambda: _held(backend, quota, products))
        sums(ELEMENTS[1:-1])  # after what a projection cannot do without
        ns = probing.times(f"a transfer of {TRANSFERRED}", partial(backend.transfer, TRANSFERRED))
        if ns is not None:
            transfers.append(TransferTimes(elements=TRANSFERRED, ns=ns))
    return ProbeAnswer(
        version=backend.version(),
        simulated=backend.simulated,
        products=tuple(products),
        moves=tuple(sorted(moves, key=lambda move: move.elements)),
        call_ns=call_ns or (),
        convolutions=tuple(convolutions),
        transfers=tuple(transfers),
        held=held,
        not_measured=tuple(probing.not_measured),
    )


def _held(backend: Driver, quota: ProbedQuota, products: Sequence[ProductTimes]) -> HeldTimes | None:
    """The smallest product that keeps more than half of the threads beside the first busy, else the largest.

    None where there was none.
    """
    fitting = [p.size for p in products if p.size >= SMALLEST_HELD]
    for size in fitting:
        product = backend.square_product(size, "float32")
        product()  # it may compile
        time.sleep(REFILL_PERIODS * quota.period_s)
        cores = cores_used(product, quota.window_s / 2)
        if cores > (1 + quota.threads) / 2 or size == fitting[-1]:
            ns = mean_ns(product, quota.period_s, QUOTA_PERIODS)
            return HeldTimes(size=size, cores=cores, ns=ns)
    return None


class _Probing:
    """Times programs for so many seconds; keeps why one was not timed."""

    def __init__(self, request: ProbeRequest) -> None:
        self._deadline = time.monotonic() + request.seconds
        self._repeated_s = min(REPEATED_S, request.seconds / MOST_PROGRAMS)
        self._quota = request.quota
        self.not_measured: list[str] = []

    def times(self, what: str, make: Callable[[], Callable[[], None]]) -> tuple[int, ...] | None:
        """Nanoseconds of each repetition; None where there are none."""
        ns = self.tried(what, lambda: repeated_ns(make(), self._repeated_s, MOST_REPETITIONS))
        if ns is None or self._quota is None or statistics.median(ns) < WINDOW_SHARE * self._quota.window_s * 1e9:
            return ns
        self.not_measured.append(f"{what}: it takes longer than the CPU quota lets threads run without a pause")
        return None

    def tried(self, what: str, measure: Callable[[], T]) -> T | None:
        """What was measured; None where it failed, or no time was left."""
        if time.monotonic() > self._deadline:
            self.not_measured.append(f"{what}: no time was left")
            return None
        try:
            return measure()
        except KcostError as error:
            self.not_measured.append(f"{what}: {' '.join(str(error).split())}")
        except Exception as error:  # a backend without this dtype, or without the memory
            self.not_measured.append(f"{what}: {in_a_line(error)}")
        return None

    def growing(
        self, dtype: ProbedDtype, kind: str, programs: Sequence[tuple[str, S, float, Callable[[], Callable[[], None]]]]
    ) -> Iterator[tuple[S, tuple[int, ...]]]:
        """Sizes and times of programs that do more and more, until one fails, is long enough, or would take too long.

        Args:
            programs: name, size, work, and what makes it.
        """
        before: tuple[float, int] | None = None
        for name, size, work, make in programs:
            what = f"a {dtype} {kind} of {name}"
            if before is not None and before[1] * work / before[0] > LONGEST_S * 1e9:
                self.not_measured.append(f"{what}: it would take over {LONGEST_S:g} s")
                return
            ns = self.times(what, make)
            if ns is None:
                return
            yield size, ns
            if min(ns) >= LONG_ENOUGH_S * 1e9:
                return
            before = work, min(ns)

"""Measures what this machine can do with one backend and one number of threads."""

from __future__ import annotations

import time
from collections.abc import Callable

from kcost.backends import driver
from kcost.core.errors import KcostError, in_a_line
from kcost.core.probe import MoveTimes, ProbeAnswer, ProbeRequest, ProductTimes
from kcost.worker.repeated import repeated_ns

SIZES = (64, 256, 1024, 2048, 4096)

ELEMENTS = (1 << 16, 1 << 25)
"""768 KiB in all, which a cache holds, and 384 MiB, which none does."""

REPEATED_S = 0.3
"""Time that each program is repeated for, about."""

LONG_ENOUGH_S = 0.2
"""A product that takes this long is not made larger: the next would take eight times as long."""

LONGEST_S = 2.0
"""A product that would take longer, by the one before it, is not begun: without instructions for bfloat16 one of 1024
takes seconds."""

MOST_REPETITIONS = 200


def run(request: ProbeRequest) -> ProbeAnswer:
    """Products from small to large; with those of float32 sums in place, and the smallest call.

    A program that fails costs itself alone: it stands in `not_measured` with its reason.
    """
    backend = driver(request.backend)
    deadline = time.monotonic() + request.seconds
    products: list[ProductTimes] = []
    moves: list[MoveTimes] = []
    not_measured: list[str] = []

    def times(what: str, make: Callable[[], Callable[[], None]]) -> tuple[int, ...] | None:
        if time.monotonic() > deadline:
            not_measured.append(f"{what}: no time was left")
            return None
        try:
            return repeated_ns(make(), REPEATED_S, MOST_REPETITIONS)
        except KcostError as error:
            not_measured.append(f"{what}: {' '.join(str(error).split())}")
        except Exception as error:  # a backend without this dtype, or without the memory
            not_measured.append(f"{what}: {in_a_line(error)}")
        return None

    call_ns = None
    if request.dtype == "float32":
        call_ns = times("a call", lambda: backend.square_product(1, "float32"))
        for elements in ELEMENTS:
            moved = times(f"a sum of {elements}", lambda elements=elements: backend.sum_in_place(elements))  # type: ignore[misc]
            if moved is not None:
                moves.append(MoveTimes(elements=elements, ns=moved))
    for size in SIZES:
        if products and min(products[-1].ns) * (size / products[-1].size) ** 3 > LONGEST_S * 1e9:
            not_measured.append(f"a {request.dtype} product of {size}: it would take over {LONGEST_S:g} s")
            break
        ns = times(
            f"a {request.dtype} product of {size}",
            lambda size=size: backend.square_product(size, request.dtype),  # type: ignore[misc]
        )
        if ns is None:
            break
        products.append(ProductTimes(dtype=request.dtype, size=size, ns=ns))
        if min(ns) >= LONG_ENOUGH_S * 1e9:
            break
    return ProbeAnswer(
        version=backend.version(),
        simulated=backend.simulated,
        products=tuple(products),
        moves=tuple(moves),
        call_ns=call_ns or (),
        not_measured=tuple(not_measured),
    )

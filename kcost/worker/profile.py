"""Looks into a cell that has been measured: its operations, its arithmetic, and what the machine could do at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from kcost.backends.base import Driver, Subject
from kcost.core.errors import KcostError, UnavailableError, in_a_line
from kcost.core.plan import CellSpec
from kcost.core.profile import Peak, Profile, ProfileStatus, Work
from kcost.worker.repeated import repeated_ns

PROFILED_S = 0.2
"""Time that the profiled steps take together, about: a trace grows with each of them."""
FEWEST_STEPS = 3
MOST_STEPS = 50

PEAK_S = 0.4
"""Time that each of the two programs of a peak is repeated for, about."""
SIZES = (512, 1024, 2048, 4096, 8192)
LONG_ENOUGH_S = 0.05
"""A product that takes this long is not made larger: on a slow machine the next would take eight times as long."""
MOVED_ELEMENTS = 1 << 25
"""128 MiB an array, more than the caches of a processor hold."""
BYTES_AN_ELEMENT = 12
"""Two float32 numbers are read and one is written."""

_peaks: dict[str, Peak] = {}
"""By dtype: a worker is one backend with one number of threads, which the peak is of."""


def profile_cell(driver: Driver, subject: Subject, spec: CellSpec) -> Profile:
    """A profile of a cell that is ready. What cannot be found out has its reason in it."""
    status: ProfileStatus = "ok"
    reason = trace = peak_reason = None
    try:
        if spec.device != "cpu":
            raise UnavailableError("Operations are told apart on the CPU.", f"a cell on {spec.device}")
        driver.trace_steps(subject, 1)  # the first trace of a process also sets the profiler up
        trace = driver.trace_steps(subject, _steps(subject.step))
    except Exception as error:  # a profiler's own failure costs the operations, and nothing else
        status, reason = _status(error), _reason_of(error)
    peak = None
    try:
        peak = _peak(driver, spec)
    except Exception as error:
        peak_reason = _reason_of(error)
    return Profile(
        status=status,
        reason=reason,
        trace=trace,
        work=_work(driver, subject),
        peak=peak,
        peak_reason=peak_reason,
        simulated=driver.simulated,
    )


def _steps(step: Callable[[int], None]) -> int:
    """How many steps fit into PROFILED_S, by one that is timed."""
    seconds = _seconds(lambda: step(0))
    return max(FEWEST_STEPS, min(MOST_STEPS, int(PROFILED_S / max(seconds, 1e-9))))


def _work(driver: Driver, subject: Subject) -> Work:
    try:
        return driver.count_work(subject)
    except Exception as error:
        return Work(flops_source=_reason_of(error), bytes_source=_reason_of(error))


def _peak(driver: Driver, spec: CellSpec) -> Peak:
    """The peak of this worker for the dtype of a cell, measured once.

    Raises:
        UnavailableError: the cell computes in int8, or the driver runs models only.
    """
    if spec.precision not in ("float32", "bfloat16"):
        raise UnavailableError("A peak is measured in float32 or bfloat16.", f"a cell in {spec.precision}")
    dtype: Literal["float32", "bfloat16"] = "bfloat16" if spec.precision == "bfloat16" else "float32"
    if dtype not in _peaks:
        size, product_ns = _fastest_product(driver, dtype)
        _peaks[dtype] = Peak(
            dtype=dtype,
            product_size=size,
            product_ns=product_ns,
            moved_bytes=BYTES_AN_ELEMENT * MOVED_ELEMENTS,
            move_ns=repeated_ns(driver.sum_in_place(MOVED_ELEMENTS), PEAK_S),
        )
    return _peaks[dtype]


def _fastest_product(driver: Driver, dtype: str) -> tuple[int, tuple[int, ...]]:
    """Size and times of the largest product that is not too long for this machine."""
    for size in SIZES:
        product = driver.square_product(size, dtype)
        product()  # compiles
        if size == SIZES[-1] or _seconds(product) >= LONG_ENOUGH_S:
            break
    return size, repeated_ns(product, PEAK_S)


def _seconds(program: Callable[[], None]) -> float:
    start = time.perf_counter()
    program()
    return time.perf_counter() - start


def _status(error: Exception) -> ProfileStatus:
    if isinstance(error, UnavailableError):
        return "unsupported"
    return "oom" if isinstance(error, MemoryError) else "crash"


def _reason_of(error: Exception) -> str:
    if isinstance(error, KcostError):
        return " ".join(str(error).split())
    return in_a_line(error)

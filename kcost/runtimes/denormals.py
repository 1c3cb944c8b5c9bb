"""Numbers that are too small to be normal, as 0 while a library computes.

An exponential of a large negative number comes to such a number, and a processor of x86 takes many times as long for an
operation on it. TensorFlow's threads therefore take them for 0 (`tsl/platform/denormal.h`); a thread of Python that
computes in their place does not by itself.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from typing import Any

_BITS = 1 << 15 | 1 << 6
"""Flush to zero, and denormals are zero, in MXCSR: Intel 64 and IA-32 Architectures Software Developer's Manual,
volume 1, section 10.2.3."""

_Environment = ctypes.c_uint32 * 8
"""fenv_t of x86-64: 28 bytes of the x87 unit, then MXCSR (bits/fenv.h)."""

_MXCSR = 7


class DenormalsAreZero:
    """Has the thread that enters it take denormal numbers for 0, until it leaves.

    Where it does so already, this is looked at and no more. Where the processor or the C library is another, nothing is
    done.

    Examples:
        >>> with DenormalsAreZero():
        ...     "no number between 0 and 1.2e-38 here, in float32"
        'no number between 0 and 1.2e-38 here, in float32'
    """

    def __init__(self) -> None:
        self._functions = _functions()
        self._before: ctypes.Array[ctypes.c_uint32] | None = None
        """What to go back to, where it is another state."""

    def __enter__(self) -> None:
        if self._functions is None:
            return
        read, write = self._functions
        before = _Environment()
        read(before)
        if before[_MXCSR] & _BITS != _BITS:
            flushing = _Environment.from_buffer_copy(before)
            flushing[_MXCSR] |= _BITS
            write(flushing)
            self._before = before

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._before is not None and self._functions is not None:
            self._functions[1](self._before)
            self._before = None


@cache
def _functions() -> tuple[Any, Any] | None:
    """fegetenv and fesetenv; None where a floating-point environment does not lie as this module has it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return None
    try:
        library = ctypes.CDLL("libm.so.6")
        return library.fegetenv, library.fesetenv
    except (OSError, AttributeError):
        return None

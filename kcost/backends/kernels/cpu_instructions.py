"""Which products of lower precision oneDNN has here: by the CPU, and by what the environment holds oneDNN to."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

INT8_CPU_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Without one of these, oneDNN adds pairs of int8 products in 16 bits, which saturate: its sums are then not exact."""

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that hold oneDNN to fewer instructions than the CPU has; the first that is set counts.

Source: oneDNN, "CPU Dispatcher Control".
"""

_WITHOUT_INT8: dict[str, frozenset[str]] = {
    **dict.fromkeys(("SSE41", "AVX", "AVX2", "AVX512_CORE"), INT8_CPU_FEATURES),
    **dict.fromkeys(("AVX2_VNNI", "AVX2_VNNI_2"), INT8_CPU_FEATURES - {"avx_vnni"}),
}
"""Value of such a variable -> the features of a CPU that oneDNN leaves unused."""

_WITHOUT_BFLOAT16 = frozenset({"SSE41", "AVX", "AVX2", "AVX2_VNNI"})
"""Values by which oneDNN has no bfloat16 products. AVX2_VNNI_2 and AVX512_CORE have them."""


@cache
def no_int8_cpu() -> str | None:
    """Why this process has no exact int8 products in oneDNN; None if it has them. Known on Linux alone."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "the features of the CPU cannot be read here"
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return no_int8_within(flags.split(), os.environ)


def no_int8_within(flags: Collection[str], environment: Mapping[str, str]) -> str | None:
    """As `no_int8_cpu`, of a CPU with these features.

    Examples:
        >>> no_int8_within(["avx2", "avx512_vnni"], {})
        >>> no_int8_within(["avx2", "avx512_vnni"], {"ONEDNN_MAX_CPU_ISA": "AVX2"})
        'ONEDNN_MAX_CPU_ISA=AVX2 keeps oneDNN from VNNI and AMX'
        >>> no_int8_within(["avx2"], {})
        'the CPU has neither VNNI nor AMX'
    """
    usable = INT8_CPU_FEATURES.intersection(flags)
    if not usable:
        return "the CPU has neither VNNI nor AMX"
    name, value = _limit(environment)
    return None if usable - _WITHOUT_INT8.get(value, set()) else f"{name}={value} keeps oneDNN from VNNI and AMX"


def may_multiply_bfloat16(environment: Mapping[str, str]) -> bool:
    """Whether oneDNN is held to instructions without bfloat16 products, with which TensorFlow 2.21 ends the process."""
    return _limit(environment)[1] not in _WITHOUT_BFLOAT16


def _limit(environment: Mapping[str, str]) -> tuple[str, str]:
    """The variable that holds oneDNN to fewer instructions, and its value in capitals; two empty texts without one."""
    name = next((name for name in LIMITS if environment.get(name)), "")
    return name, environment.get(name, "").upper()

"""Which products of lower precision oneDNN has here: by the CPU, and by what the environment holds oneDNN to."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

INT8_CPU_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Without one of these, oneDNN adds pairs of int8 products in 16 bits, which saturate: its sums are then not exact."""

INT8_OPERATIONS = frozenset(
    {
        *("_QuantizedMatMul", "QuantizedMatMulWithBias"),
        *("QuantizedConv2D", "QuantizedConv2DWithBiasAndReluAndRequantize"),
    }
)
"""Operations of TensorFlow by which kcost's int8 layers multiply in graphs: oneDNN's, and exact as its products are."""

ONEDNN_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that hold oneDNN to fewer instructions than the CPU has; the first that is set counts.

Source: oneDNN, "CPU Dispatcher Control".
"""

_PERMITTED: dict[str, frozenset[str]] = {
    **dict.fromkeys(("SSE41", "AVX", "AVX2", "AVX512_CORE"), frozenset[str]()),
    **dict.fromkeys(("AVX2_VNNI", "AVX2_VNNI_2"), frozenset({"avx_vnni"})),
    **dict.fromkeys(("AVX512_CORE_VNNI", "AVX512_CORE_BF16"), frozenset({"avx512_vnni"})),
    **dict.fromkeys(("AVX512_CORE_FP16", "AVX10_1_512"), frozenset({"avx512_vnni", "avx_vnni"})),
}
"""Value of such a variable -> the int8 features that oneDNN may use. Other values are of more, or none that it knows.

Source: oneDNN's src/cpu/x64/cpu_isa_traits.hpp: each value is a set of bits, of which the CPU has to have all.
"""

_WITHOUT_BFLOAT16 = frozenset({"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"})
"""Values by which oneDNN has no bfloat16 products, the last one unless the CPU has AVX-NE-CONVERT."""


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
    return None if usable & _PERMITTED.get(value, usable) else f"{name}={value} keeps oneDNN from VNNI and AMX"


def may_multiply_bfloat16(environment: Mapping[str, str]) -> bool:
    """False where a variable keeps oneDNN from bfloat16 products: TensorFlow 2.21 crashes at one all the same."""
    return _limit(environment)[1] not in _WITHOUT_BFLOAT16


def _limit(environment: Mapping[str, str]) -> tuple[str, str]:
    """The variable that holds oneDNN to fewer instructions, and its value in capitals; two empty texts without one."""
    name = next((name for name in ONEDNN_LIMITS if environment.get(name)), "")
    return name, environment.get(name, "").upper()

"""The least time that a step can take: its products at the peak of the processor. What is above can't win, untried."""

from __future__ import annotations

from collections.abc import Collection

from kcost.core.plan import Precision

FMA_PER_CYCLE: dict[str, int] = {"avx512": 64, "avx2": 32, "none": 16}
"""FLOPs a cycle and core in float32 at most. Source: Intel 64 and IA-32 Architectures Optimization Reference Manual:
two fused multiply-adds a cycle, of 16 (AVX-512) or 8 (AVX2) numbers; without either, of 4."""

FASTER: dict[Precision, int] = {"float32": 1, "saved": 2, "bfloat16": 2, "int8": 4, "int8_dynamic": 4}
"""Times float32's peak, with vector instructions: numbers of half or a quarter of the width. Same source."""

TILES: dict[Precision, tuple[str, int]] = {
    "bfloat16": ("amx_bf16", 1024),
    "saved": ("amx_bf16", 1024),
    "int8": ("amx_int8", 2048),
    "int8_dynamic": ("amx_int8", 2048),
}
"""The feature of a processor with tiles, and its operations a cycle and core. Same source, chapter on AMX."""

FASTEST_MHZ = 6_000.0
"""No processor that is rented runs its vectors faster: taken where the clock is not known."""


def peak_flops_per_s(
    precision: Precision, cores: int, cpu_features: Collection[str], mhz: float = FASTEST_MHZ
) -> float:
    """The most operations a second that a processor can do, whatever program runs.

    Args:
        cores: that the way runs on.
        cpu_features: as of an Environment.
        mhz: the highest clock.

    Examples:
        >>> peak_flops_per_s("float32", 2, {"avx2"}, 3_000) / 1e9
        192.0
        >>> peak_flops_per_s("int8", 2, {"avx2"}, 3_000) / 1e9
        768.0
    """
    vectors = next((n for name, n in FMA_PER_CYCLE.items() if any(f.startswith(name) for f in cpu_features)), 16)
    each = vectors * FASTER[precision]
    if (tiles := TILES.get(precision)) is not None and tiles[0] in cpu_features:
        each = max(each, tiles[1])
    return cores * mhz * 1e6 * each


def least_step_s(flops_per_example: float, batch: int, peak_flops: float) -> float:
    """The roofline without its memory part: seconds that the products of a batch take at the peak.

    Source: Williams, Waterman and Patterson (2009), Roofline, Communications of the ACM 52(4), 65-76.
    """
    return flops_per_example * batch / peak_flops

"""The least time that a step can take: its products at the peak of the processor, or its weights through the memory.

What is above can't win, untried.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import NamedTuple

from kcost.core.plan import Precision
from kcost.core.probe import BYTES_AN_ELEMENT, Probe

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


class Work(NamedTuple):
    """What a way of running has to do, at least."""

    flops_per_example: float
    """0 where it is not known."""
    weight_bytes: int = 0
    """Of the weights that each step reads, in float32; 0 where they are not known."""
    convolution_flops: float = 0.0
    """Of the FLOPs."""


BYTES_A_WEIGHT: dict[Precision, float] = {"float32": 4, "saved": 2, "bfloat16": 2, "int8": 1, "int8_dynamic": 1}
"""At least, as a file may be saved under any policy."""


class Roof(NamedTuple):
    """What bounds a step from below."""

    flops_per_s: float
    bytes_per_s: float = math.inf
    """Of memory, for as many bytes as the weights have; infinite where they may lie in a cache, or nobody probed."""


def peak_of_parts(peak: float, slower: float, part: float) -> float:
    """FLOPs a second of a program that does a part of its FLOPs at another peak.

    Examples:
        >>> peak_of_parts(400, 100, 0.5)
        160.0
    """
    return 1 / ((1 - part) / peak + part / slower)


def least_step_s(work: Work, batch: int, roof: Roof, precision: Precision = "float32") -> float:
    """The roofline: seconds that a step takes where products run at the peak and weights come as fast as memory gives.

    Source: Williams, Waterman and Patterson (2009), Roofline, Communications of the ACM 52(4), 65-76.

    Examples:
        >>> round(least_step_s(Work(1e9), 32, Roof(1e11)), 2)
        0.32
        >>> round(least_step_s(Work(1e9, weight_bytes=400_000_000), 1, Roof(1e11, 1e10)), 2)  # the memory decides
        0.04
    """
    of_weights = work.weight_bytes * BYTES_A_WEIGHT[precision] / BYTES_A_WEIGHT["float32"] / roof.bytes_per_s
    return max(work.flops_per_example * batch / roof.flops_per_s, of_weights)


def most_per_s(work: Work, batches: Iterable[int], roof: Roof, precision: Precision) -> float:
    """Examples a second that no program exceeds at any of these batch sizes; infinite where nothing bounds them."""
    steps = {batch: least_step_s(work, batch, roof, precision) for batch in batches}
    return max((math.inf if not step else batch / step for batch, step in steps.items()), default=math.inf)


FASTER_THAN_PROBED = 1.25
"""A library may be faster than the products of the backend that probed, by a quarter at most: an assumption."""


def probed_roof(probe: Probe, precision: Precision, threads: int, weight_bytes: float) -> Roof | None:
    """What `kcost probe` saw of the machine, with room above it; None where it was of other threads, or saw nothing.

    The peak of int8 is four times that of float32, or twice that of bfloat16 where that is higher. Memory bounds
    weights alone that are as large as what was moved: smaller ones may stay in a cache.

    Args:
        threads: that the way runs on.
        weight_bytes: that a step reads, as it holds them.
    """
    answer = next((t.answer for t in probe.by_threads if t.threads == threads), None)
    if answer is None or not answer.products:
        return None
    peaks: dict[str, float] = {}
    for product in answer.products:
        fastest = 2 * product.size**3 / (max(1, min(product.ns)) * 1e-9)
        peaks[product.dtype] = max(peaks.get(product.dtype, 0.0), fastest)
    float32, bfloat16 = peaks.get("float32", 0.0), peaks.get("bfloat16", 0.0)
    each = {"float32": float32, "int8": max(4 * float32, 2 * bfloat16), "bfloat16": max(2 * float32, bfloat16)}
    each |= {"int8_dynamic": each["int8"], "saved": each["bfloat16"]}
    if not each[precision]:
        return None
    moves = [m for m in answer.moves if 2 * 4 * m.elements <= weight_bytes]
    # Of the sizes that are not larger the largest: memory gives larger ones no faster.
    largest = max(moves, key=lambda m: m.elements, default=None)
    is_beyond_caches = largest is not None and largest.elements == max(m.elements for m in answer.moves)
    fastest_move = 0.0
    if largest is not None and is_beyond_caches:
        fastest_move = largest.elements * BYTES_AN_ELEMENT / (max(1, min(largest.ns)) * 1e-9)
    return Roof(FASTER_THAN_PROBED * each[precision], FASTER_THAN_PROBED * fastest_move if fastest_move else math.inf)

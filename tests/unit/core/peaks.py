"""Peaks of a machine."""

from __future__ import annotations

from kcost.core.profile import (
    Peak,
)


def peak(flops_per_s: float = 1e11, bytes_per_s: float = 1e10) -> Peak:
    """A machine of these rates, by products of 1000 x 1000 and moves of 1 GB; slower repetitions change nothing."""
    product_ns, move_ns = round(2e9 / flops_per_s * 1e9), round(1e9 / bytes_per_s * 1e9)
    return Peak(
        dtype="float32",
        product_size=1000,
        product_ns=(3 * product_ns, product_ns, 2 * product_ns),
        moved_bytes=10**9,
        move_ns=(move_ns, 2 * move_ns),
    )

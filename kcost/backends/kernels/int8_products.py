"""What the int8 matrix products of the backends share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

EXACT_TERMS = 1024
"""Terms that float32 adds exactly in any order: |int8 x int8| <= 2^14, and float32 holds each integer up to 2^24."""

LOWEST = {"gelu": -0.17, "gelu_tanh": -0.17, "relu": 0.0}
"""What an activation's values never lie below: the least of GELU is -0.16997, that of its tanh form -0.17004."""


def steps_above(lowest: float, largest: Any) -> Any:
    """The size of 255 equal steps from the lowest value to the largest: half of what int8 needs around 0."""
    return (largest - lowest) / 255


def float32_product(x: Any, w: Any, matmul: Callable[[Any, Any], Any], to_float32: Any, to_int32: Any) -> Any:
    """An exact int8 product by float32 products over pieces of the inner axis, added as int32.

    Args:
        x: int8 tensor (..., k).
        w: int8 tensor (k, n).
        matmul: product of two float32 tensors.
        to_float32: function from an int8 tensor to a float32 one.
        to_int32: function from a float32 tensor to an int32 one.

    Returns:
        int32 tensor (..., n).
    """
    size = int(w.shape[0])
    total = None
    for start in range(0, size, EXACT_TERMS):
        piece = slice(start, min(start + EXACT_TERMS, size))
        product = to_int32(matmul(to_float32(x[..., piece]), to_float32(w[piece])))
        total = product if total is None else total + product
    return total

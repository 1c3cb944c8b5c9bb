"""Encoder blocks on JAX, written in the forms that XLA compiles well for CPUs.

Attention runs in the order (batch, heads, time, place): in einsum's own order it takes several times as long. A large
batch goes through a block in pieces, which stay in a core's cache.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kcost.backends.block_spec import BlockSpec
from kcost.backends.kernels.bfloat16_products import PROBE, clearly_faster
from kcost.backends.kernels.int8_products import LOWEST, steps_above

_MASKED = -1e9
_PIECE_ROWS = 1024
"""Rows (sentences times places) that a thread works on at a time: one piece of 4096 takes 1.3 times as long."""
_GELU_END = 3.66
_GELU = (1.4513815, -3.0731035, 5.1779165, -5.4831365, 3.2180318, -0.79108983)
"""GELU(x) is x * (0.5 + z * p(z**2)) with z = x / 3.66 clipped to 1, and p of these coefficients: at most 4.8e-4 off.

The smallest such maximum for a polynomial of this degree, by linear programming over 3,000 points.
"""
_SITES = {"qkv": "input", "out": "context", "up": "attended", "down": "hidden"}


def unavailable(spec: BlockSpec) -> str | None:
    """Why blocks of this kind run the plain implementation here; None: XLA compiles all of them for each device."""
    _multiplies_bfloat16()  # found now: what is traced later has no times
    return None


def encoder_block(spec: BlockSpec, parts: Mapping[str, Any], x: Any, padding_mask: Any | None) -> Any:
    """The output of an encoder block, (batch, time, width); float32 has gradients.

    Args:
        spec: of the block.
        parts: its variables, as kcost.backends.block_spec lays them out.
        x: (batch, time, width), any float dtype.
        padding_mask: (batch, time), 1 for what is real; None for no padding.
    """
    parts, (batch, time, _) = dict(parts), x.shape
    shapes_known = isinstance(batch, int) and isinstance(time, int)  # an export may leave them free
    rows = _PIECE_ROWS * _threads()
    if jax.default_backend() != "cpu" or not shapes_known or batch * time <= rows:
        return _block(spec, parts, x, padding_mask)
    size = max(1, rows // time)
    whole = batch - batch % size

    def pieces(array: Any) -> Any:
        return None if array is None else array[:whole].reshape(-1, size, *array.shape[1:])

    done = lax.map(lambda piece: _block(spec, parts, *piece), (pieces(x), pieces(padding_mask))).reshape(
        whole, time, -1
    )
    if whole == batch:
        return done
    rest = _block(spec, parts, x[whole:], None if padding_mask is None else padding_mask[whole:])
    return jnp.concatenate([done, rest])


@functools.partial(jax.jit, static_argnames="spec")  # blocks of one spec are traced once
def _block(spec: BlockSpec, parts: dict[str, Any], x: Any, padding_mask: Any | None) -> Any:
    stream = jnp.asarray(x, jnp.float32)
    entered = _norm(spec, parts, "attention_norm", stream) if spec.norm_first else stream
    context = _attention(spec, _product(spec, parts, "qkv", entered), padding_mask)
    middle = stream + _product(spec, parts, "out", context)
    attended = _norm(spec, parts, "output_norm" if spec.norm_first else "attention_norm", middle)
    hidden = _activation(spec, _product(spec, parts, "up", attended))
    output = (middle if spec.norm_first else attended) + _product(spec, parts, "down", hidden)
    return output if spec.norm_first else _norm(spec, parts, "output_norm", output)


def _product(spec: BlockSpec, parts: Mapping[str, Any], name: str, x: Any) -> Any:
    """x times the kernel, plus bias, float32."""
    kernel, bias = parts[f"{name}_kernel"], parts[f"{name}_bias"]
    if spec.compute == "float32":
        return x @ kernel + bias
    if spec.compute == "bfloat16":
        # Keeps more digits than bfloat16 does, so it changes nothing but what XLA fuses: without it, XLA on CPU puts
        # what comes before into a slow loop with the cast.
        apart = lax.reduce_precision(x, exponent_bits=8, mantissa_bits=16)
        return _dot(apart.astype(jnp.bfloat16), kernel, jnp.float32) + bias
    if spec.compute == "int8_static" and name == "down":
        lowest = LOWEST[spec.activation]
        step = steps_above(lowest, 127 * parts["hidden_scale"])
        whole = jnp.clip(jnp.round((x - lowest) * (1 / step)) - 128, -128, 127).astype(jnp.int8)
        sums = parts["down_sums"] if spec.balanced else kernel.sum(axis=0, dtype=jnp.int32)
        shift = (128 * step + lowest) * sums
        return (_dot(whole, kernel, jnp.int32).astype(jnp.float32) * step + shift) * parts["down_scale"] + bias
    left: Any
    if spec.compute == "int8_static":
        scale = parts[f"{_SITES[name]}_scale"]
        left = 1.0 if spec.is_balanced(name) else scale
    else:
        left = scale = jnp.maximum(jnp.abs(x).max(axis=-1, keepdims=True), 1e-12) / 127
    whole = jnp.clip(jnp.round(x * (1 / scale)), -127, 127).astype(jnp.int8)
    return _dot(whole, kernel, jnp.int32).astype(jnp.float32) * (left * parts[f"{name}_scale"]) + bias


def _dot(x: Any, kernel: Any, dtype: Any) -> Any:
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), preferred_element_type=dtype)


def _attention(spec: BlockSpec, qkv: Any, padding_mask: Any | None) -> Any:
    batch, time, _ = qkv.shape
    split = qkv.reshape(batch, time, 3, spec.heads, spec.head_width).transpose(2, 0, 3, 1, 4)
    dtype = jnp.bfloat16 if spec.compute != "float32" and _multiplies_bfloat16() else jnp.float32
    query, key, value = (part.astype(dtype) for part in (split[0] * spec.query_scale, split[1], split[2]))
    batched = ((0, 1), (0, 1))
    scores = lax.dot_general(query, key, (((3,), (3,)), batched), preferred_element_type=jnp.float32)
    if padding_mask is not None:
        scores += jnp.where(jnp.asarray(padding_mask, bool), 0.0, _MASKED).astype(scores.dtype)[:, None, None, :]
    # The softmax's division comes after the product with the values: there it is one pass over less.
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    context = lax.dot_general(weights.astype(dtype), value, (((3,), (2,)), batched), preferred_element_type=jnp.float32)
    context /= weights.sum(axis=-1, keepdims=True)
    return context.transpose(0, 2, 1, 3).reshape(batch, time, spec.projected)


def _activation(spec: BlockSpec, x: Any) -> Any:
    if spec.activation == "relu":
        return jnp.maximum(x, 0)
    if spec.compute == "float32":
        return jax.nn.gelu(x, approximate=spec.activation == "gelu_tanh")
    # With eight bits, or bfloat16's, forms that are 5e-4 apart can't be told apart, and this takes the least time.
    near = jnp.clip(x * (1 / _GELU_END), -1.0, 1.0)
    square = near * near
    total: Any = 0.0
    for coefficient in reversed(_GELU):
        total = total * square + coefficient
    return x * (0.5 + near * total)


def _norm(spec: BlockSpec, parts: Mapping[str, Any], name: str, x: Any) -> Any:
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + spec.epsilon) * parts[f"{name}_gamma"] + parts[f"{name}_beta"]


@functools.cache
def _multiplies_bfloat16() -> bool:
    """Whether bfloat16 products are clearly faster than float32 ones here."""
    if jax.default_backend() != "cpu":
        return True

    @jax.jit  # type: ignore[untyped-decorator]  # jax is not read by the type checker
    def product(x: Any) -> Any:
        return lax.dot_general(x, x, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)

    narrow, wide = (jnp.ones(PROBE, dtype) for dtype in (jnp.bfloat16, jnp.float32))
    return clearly_faster(lambda: product(narrow).block_until_ready(), lambda: product(wide).block_until_ready())


def _threads() -> int:
    """XLA on CPU makes one thread a core that the process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

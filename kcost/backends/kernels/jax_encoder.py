"""Encoder blocks on JAX, written in the forms that XLA compiles well for CPUs.

Attention runs in the order (batch, heads, time, place): in einsum's own order it takes several times as long. A large
batch goes through a block in pieces, which stay in a core's cache.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kcost.backends.block_spec import BlockSpec
from kcost.backends.encoder_block import LEAST, Product, int8_product, run_block
from kcost.backends.kernels.bfloat16_products import PROBE, clearly_faster

_MASKED = -1e9
_PIECE_ROWS = 1024
"""Rows (sentences times places) that a thread works on at a time: one piece of 4096 takes 1.3 times as long."""
_GELU_END = 3.66
_GELU = (1.4513815, -3.0731035, 5.1779165, -5.4831365, 3.2180318, -0.79108983)
"""GELU(x) is x * (0.5 + z * p(z**2)) with z = x / 3.66 clipped to 1, and p of these coefficients: at most 4.8e-4 off.

The smallest such maximum for a polynomial of this degree, by linear programming over 3,000 points.
"""


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
    return run_block(spec, _Operations(spec, parts, padding_mask), jnp.asarray(x, jnp.float32)).output


class _Operations(NamedTuple):
    spec: BlockSpec
    parts: Mapping[str, Any]
    padding_mask: Any | None

    def product(self, name: str, x: Any, residual: Any = None) -> Any:
        product = Product.of(self.spec, self.parts, name)
        if self.spec.is_int8:
            y = int8_product(product, _WholeNumbers(), x)
        elif self.spec.compute == "bfloat16":
            # Keeps more digits than bfloat16 does, so it changes nothing but what XLA fuses: without it, XLA on CPU
            # puts what comes before into a slow loop with the cast.
            apart = lax.reduce_precision(x, exponent_bits=8, mantissa_bits=16)
            y = _dot(apart.astype(jnp.bfloat16), product.kernel, jnp.float32) + product.bias
        else:
            y = x @ product.kernel + product.bias
        return y if residual is None else residual + y

    def activated(self, x: Any) -> Any:
        return _activation(self.spec, self.product("up", x))

    def attention(self, qkv: Any) -> Any:
        return _attention(self.spec, qkv, self.padding_mask)

    def norm(self, name: str, x: Any) -> Any:
        mean = x.mean(axis=-1, keepdims=True)
        variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
        gamma, beta = self.parts[f"{name}_gamma"], self.parts[f"{name}_beta"]
        return (x - mean) * lax.rsqrt(variance + self.spec.epsilon) * gamma + beta


class _WholeNumbers:
    def rounded(self, x: Any) -> Any:
        return jnp.clip(jnp.round(x), -128, 127).astype(jnp.int8)

    def multiplied(self, whole: Any, kernel: Any) -> Any:
        return _dot(whole, kernel, jnp.int32).astype(jnp.float32)

    def row_steps(self, x: Any) -> Any:
        return jnp.maximum(jnp.abs(x).max(axis=-1, keepdims=True), LEAST) / 127

    def column_sums(self, kernel: Any) -> Any:
        return kernel.sum(axis=0, dtype=jnp.int32)


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

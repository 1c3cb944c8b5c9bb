"""Convolutions on JAX: XLA's own, of int8 tensors with int32 sums.

XLA has no product of unsigned with signed bytes, and a shift by 128 costs a tenth of the time, as it needs padding of
its own: so what lies between two stages has 127 steps here, where other backends have 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kcost.backends.chain_spec import ChainSpec, Stage
from kcost.backends.convolution_chain import StageParts, entering_limits, run_chain

Parts = Mapping[str, Any]

IMAGES_AT_ONCE = 16
"""On CPU, in int8: with 256 small images at once, sums in memory made a chain as slow as float32, with 16 a quarter
faster (XLA of jax 0.10)."""

_COARSER = 255 / 127


def unavailable(spec: ChainSpec) -> str | None:
    """Why chains of this kind run the plain implementation here; None: XLA compiles all of them for each device."""
    return None


def convolution_chain(spec: ChainSpec, parts: Parts, x: Any) -> Any:
    """The output of a chain, (batch, height, width, filters), float32.

    Args:
        spec: of the chain.
        parts: its variables, as kcost.backends.chain_spec lays them out.
        x: (batch, height, width, channels), any float dtype.
    """
    batch = x.shape[0]
    if not spec.is_int8 or jax.default_backend() != "cpu" or batch <= IMAGES_AT_ONCE:
        return _chain(spec, parts, x)
    whole = batch // IMAGES_AT_ONCE * IMAGES_AT_ONCE
    pieces = x[:whole].reshape(-1, IMAGES_AT_ONCE, *x.shape[1:])
    output = lax.map(lambda piece: _chain(spec, parts, piece), pieces)
    output = output.reshape(whole, *output.shape[2:])
    return output if whole == batch else jnp.concatenate([output, _chain(spec, parts, x[whole:])])


def int8_convolution(x: Any, kernel: Any, strides: tuple[int, int], padding: str, dilation: tuple[int, int]) -> Any:
    """The exact convolution of two int8 tensors.

    Args:
        x: int8 (batch, height, width, channels).
        kernel: int8 (height, width, channels, filters).
        strides: along height and width.
        padding: valid or same, as in Keras.
        dilation: along height and width.

    Returns:
        int32 (batch, height, width, filters).
    """
    return _convolution(x, jnp.asarray(kernel), strides, padding, dilation, jnp.int32)


def _chain(spec: ChainSpec, parts: Parts, x: Any) -> Any:
    return run_chain(spec.stages, _Operations(spec, parts), x.astype(jnp.float32))


class _Operations(NamedTuple):
    spec: ChainSpec
    parts: Parts

    def convolved(self, number: int, stage: Stage, x: Any) -> Any:
        kernel, bias, kernel_scale, step = StageParts.of(self.spec, self.parts, number)
        if self.spec.is_int8:
            if number > 0:
                step = step * _COARSER
            smallest, _ = entering_limits(number)
            whole = jnp.clip(jnp.round(x * (1 / step)), smallest, 127).astype(jnp.int8)
            sums = int8_convolution(whole, kernel, stage.strides, stage.padding, stage.dilation)
            x = sums.astype(jnp.float32) * (step * kernel_scale)
        else:
            x = _convolution(x.astype(self.spec.compute), kernel, stage.strides, stage.padding, stage.dilation, None)
        x = x.astype(jnp.float32) + bias
        return jax.nn.relu(x) if stage.relu else x

    def pooled(self, stage: Stage, x: Any) -> Any:
        assert stage.pool is not None  # else it is not called
        window, strides = (1, *stage.pool, 1), (1, *stage.pool_strides, 1)
        return lax.reduce_window(x, np.float32(-np.inf), lax.max, window, strides, stage.pool_padding.upper())


def _convolution(
    x: Any, kernel: Any, strides: tuple[int, int], padding: str, dilation: tuple[int, int], sums: Any
) -> Any:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding.upper(),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=sums,
    )

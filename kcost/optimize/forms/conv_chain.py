# ruff: noqa: D102  # what Keras itself calls is described in keras.layers.Layer
"""Convolutions one after the other as one Keras layer, so that what lies between them stays int8 or bfloat16.

What a stage is and how the variables in `ConvolutionChain.parts` are laid out: kcost/backends/chain_spec.py.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kcost.backends.chain_spec import ChainSpec, Compute, Stage
from kcost.backends.convolution_chain import StageParts, entering_limits, run_chain
from kcost.core.errors import InputError
from kcost.optimize.forms.layers import PACKAGE
from kcost.optimize.forms.rounding import quantized_weights
from kcost.optimize.forms.short_call import FusedLayer

Tensors = Mapping[str, Any]


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConvolutionChain(FusedLayer):
    """A chain of convolutions, for inference: no variable is trained.

    Inputs (batch, height, width, channels) of a float dtype, outputs likewise, float32. Runs the code of the backend
    in use, where it has some and the machine can run it; otherwise the operations of keras.ops (`forward`).

    Args:
        spec: a ChainSpec, or its fields as a dict (which is how a .keras file keeps it).
    """

    spec: ChainSpec

    def __init__(self, spec: ChainSpec | dict[str, Any], **kwargs: Any) -> None:
        if not isinstance(spec, ChainSpec):
            stages = tuple(Stage(**stage) for stage in spec["stages"])
            spec = ChainSpec(**{**spec, "stages": stages})
        super().__init__(spec, **{**kwargs, "trainable": False})
        self._backend, self.fallback_reason = _backend_module(spec)
        """Why inference runs the plain implementation on this backend and machine; None where it does not."""

    def build(self, input_shape: Sequence[int | None] | None = None) -> None:
        """Makes the variables. Their shapes stand in the spec."""
        for name, (shape, dtype) in self.spec.variables().items():
            settings = {"initializer": "ones" if "scale" in name else "zeros", "trainable": False, "autocast": False}
            self.parts[name] = self.add_weight(name=name, shape=shape, dtype=dtype, **settings)
        self.built = True

    def call(self, inputs: Any) -> Any:
        values = {name: variable.value for name, variable in self.parts.items()}
        if self._backend is not None and self.fallback_reason is None:
            output = self._backend.convolution_chain(self.spec, values, inputs)
            if output is not None:
                return output
        return forward(self.spec, values, inputs)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Known without tracing what backends do inside."""
        x = keras.KerasTensor(inputs.shape, dtype="float32")
        for stage in self.spec.stages:
            x = _pooled(stage, _convolved(stage, x, keras.KerasTensor(stage.kernel_shape, dtype="float32")))
        return x

    def converted(self, compute: Compute, ranges: Sequence[float] | None = None) -> ConvolutionChain:
        """A chain with this one's weights, of the same name.

        Args:
            compute: what its convolutions are computed in.
            ranges: for int8_static, the largest absolute value that enters each stage; larger ones are clipped.

        Raises:
            InputError: this chain is not float32, or ranges are missing.
        """
        stages = self.spec.stages
        if self.spec.compute != "float32":
            raise InputError("A chain is converted from float32.", received=f"{self.name!r}, at {self.spec.compute}")
        if compute == "int8_static" and len(ranges or ()) != len(stages):
            raise InputError("int8_static needs the range that enters each stage.", received=f"{ranges}")
        made = ConvolutionChain(ChainSpec(stages, compute), name=self.name)
        made.build()
        for i in range(len(stages)):
            kernel, bias = (np.asarray(ops.convert_to_numpy(self.parts[f"{name}_{i}"])) for name in ("kernel", "bias"))
            values = {"kernel": kernel, "bias": bias}
            if compute == "int8_static":
                values["kernel"], values["kernel_scale"] = quantized_weights(kernel, (0, 1, 2))
            for name, value in values.items():
                made.parts[f"{name}_{i}"].assign(value)
        if compute == "int8_static":
            made.set_ranges(ranges or ())
        return made

    def set_ranges(self, ranges: Sequence[float]) -> None:
        """Gives an int8 chain other ranges of what enters each stage; its kernels stay as they are."""
        for number, largest in enumerate(ranges):
            step = max(float(largest), 1e-12) / entering_limits(number)[1]
            self.parts[f"input_scale_{number}"].assign(np.asarray(step, np.float32))


def forward(spec: ChainSpec, parts: Tensors, x: Any) -> Any:
    """A chain in operations of keras.ops: runs on every backend and device.

    Integer products are computed on whole numbers kept in float32: exact up to 2**24, and never slower than float32.

    Args:
        spec: of the chain.
        parts: its variables' values.
        x: inputs (batch, height, width, channels), any float dtype.

    Returns:
        Outputs (batch, height, width, filters), float32.
    """
    return run_chain(spec.stages, _Operations(spec, parts), ops.cast(x, "float32"))


class _Operations(NamedTuple):
    spec: ChainSpec
    parts: Tensors

    def convolved(self, number: int, stage: Stage, x: Any) -> Any:
        kernel, bias, kernel_scale, step = StageParts.of(self.spec, self.parts, number)
        if self.spec.is_int8:
            whole = ops.clip(ops.round(x / step), *entering_limits(number))
            x = _convolved(stage, whole, ops.cast(kernel, "float32")) * (step * kernel_scale)
        else:
            x = ops.cast(_convolved(stage, ops.cast(x, self.spec.compute), kernel), "float32")
        x = x + bias
        return ops.relu(x) if stage.relu else x

    def pooled(self, stage: Stage, x: Any) -> Any:
        return _pooled(stage, x)


def _convolved(stage: Stage, x: Any, kernel: Any) -> Any:
    settings = {"padding": stage.padding, "data_format": "channels_last", "dilation_rate": stage.dilation}
    return ops.conv(x, kernel, strides=stage.strides, **settings)


def _pooled(stage: Stage, x: Any) -> Any:
    if stage.pool is None:
        return x
    return ops.max_pool(x, stage.pool, stage.pool_strides, stage.pool_padding, data_format="channels_last")


def _backend_module(spec: ChainSpec) -> tuple[ModuleType | None, str | None]:
    """The module that runs chains on the backend in use, and why it does not run this one."""
    name = f"kcost.backends.kernels.{keras.backend.backend()}_convolution"
    if importlib.util.find_spec(name) is None:
        return None, f"kcost has no chain of convolutions for the {keras.backend.backend()} backend"
    module = importlib.import_module(name)
    return module, module.unavailable(spec)

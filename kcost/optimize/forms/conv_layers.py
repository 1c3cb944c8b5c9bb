# ruff: noqa: D102  # what Keras itself calls is described in keras.layers.Layer
"""Keras layers with int8 convolution kernels.

The sums of an int8 convolution are exact, the same bits on each backend and in each way of computing them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kcost.backends import driver
from kcost.optimize.forms.layers import (
    PACKAGE,
    QuantizedLayer,
    common,
    host,
    input_scale,
)
from kcost.optimize.forms.rounding import quantized_activations, quantized_weights, rounded_activations


class _Convolution(QuantizedLayer):
    """What both convolutions share; computes in floats. Channels stand last, unless `data_format` says otherwise."""

    operation: Any  # of keras.ops

    def __init__(
        self,
        kernel_shape: Sequence[int],
        mode: str,
        *,
        strides: Sequence[int] = (1, 1),
        padding: str = "valid",
        dilation_rate: Sequence[int] = (1, 1),
        data_format: str = "channels_last",
        activation: Any = None,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(mode, **kwargs)
        self.kernel_shape = tuple(kernel_shape)
        self.strides = tuple(strides)
        self.padding = padding
        self.dilation_rate = tuple(dilation_rate)
        self.data_format = data_format
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias

    @staticmethod
    def settings(layer: keras.layers.Layer) -> dict[str, Any]:
        """The arguments that a float convolution gives to its quantized form."""
        return {
            **common(layer),
            "strides": layer.strides,
            "padding": layer.padding,
            "dilation_rate": layer.dilation_rate,
            "data_format": layer.data_format,
            "activation": layer.activation,
            "use_bias": layer.use_bias,
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_shape": self.kernel_shape,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
            "data_format": self.data_format,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }

    def add_convolution(self, scales: Sequence[int], outputs: int) -> None:
        """Makes the variables."""
        self.kernel = self.add_state("kernel", self.kernel_shape, "int8")
        self.kernel_scale = self.add_state("kernel_scale", tuple(scales))
        self.bias = self.add_state("bias", (outputs,)) if self.use_bias else None

    def finished(self, x: Any) -> Any:
        """Adds the bias, gives the layer's dtype, applies the activation."""
        if self.bias is not None:
            shape = (1, -1, 1, 1) if self.data_format == "channels_first" else (1, 1, 1, -1)
            x = x + ops.reshape(ops.cast(self.bias, x.dtype), shape)
        x = ops.cast(x, self.compute_dtype)
        return x if self.activation is None else self.activation(x)

    def float_convolution(self, x: Any, kernel: Any) -> Any:
        """The convolution in floats; symbolic tensors give a symbolic tensor."""
        settings = {"padding": self.padding, "data_format": self.data_format, "dilation_rate": self.dilation_rate}
        return self.operation(x, kernel, strides=self.strides, **settings)

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, self.compute_dtype)
        kernel = ops.cast(self.kernel, self.compute_dtype) * ops.cast(self.kernel_scale, self.compute_dtype)
        return self.finished(self.float_convolution(x, kernel))

    def compute_output_spec(self, inputs: Any) -> Any:
        # Keras's rule for symbolic convolutions knows no groups, in which a kernel has some of the channels.
        channels = inputs.shape[1 if self.data_format == "channels_first" else -1]
        kernel_shape = (*self.kernel_shape[:2], channels, self.kernel_shape[-1])
        x, kernel = (keras.KerasTensor(shape, self.compute_dtype) for shape in (inputs.shape, kernel_shape))
        return self.float_convolution(x, kernel)


@keras.saving.register_keras_serializable(package=PACKAGE)
class QuantizedConv2D(_Convolution):
    """Conv2D with an int8 kernel (height, width, channels, filters), a scale for each filter.

    Inputs (batch, height, width, channels) of a float dtype, outputs in the layer's compute dtype. Mode dynamic has
    an activation scale for each image.
    """

    operation = staticmethod(ops.conv)

    @staticmethod
    def refusal(layer: keras.layers.Conv2D, mode: str) -> str | None:
        """Why a built Conv2D has no int8 form in this mode, or None."""
        if mode == "weight-only":
            return None
        if layer.groups != 1 or layer.data_format != "channels_last":
            return "an int8 convolution has one group and its channels last"
        sizes = (layer.get_build_config() or {}).get("input_shape", (None,) * 4)[1:3]
        if layer.padding == "same" and max(layer.strides) > 1 and None in sizes:
            return "its padding depends on the size of the images, which is not fixed"
        return None

    @classmethod
    def of(cls, layer: keras.layers.Conv2D, mode: str, largest: float | None = None) -> QuantizedConv2D:
        """The quantized form of a built Conv2D layer; `largest` as in `input_scale`."""
        kernel, scale = quantized_weights(host(layer.kernel), (0, 1, 2))
        made = cls(kernel.shape, mode, **cls.settings(layer))
        made.build()
        bias = host(layer.bias) if layer.use_bias else None
        return made.set_state(kernel=kernel, kernel_scale=scale, bias=bias, input_scale=input_scale(mode, largest))

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        filters = self.kernel_shape[-1]
        self.add_convolution((filters,), filters)
        self.input_scale = self.add_state("input_scale", ()) if self.mode == "static" else None

    def call(self, inputs: Any) -> Any:
        if self.mode == "weight-only":
            return super().call(inputs)
        if self.mode == "static":
            scale = ops.convert_to_tensor(self.input_scale)
            rounded = rounded_activations(inputs, scale)
        else:
            rounded, scale = quantized_activations(inputs, (1, 2, 3))
        return self.finished(ops.cast(self.sums(rounded), "float32") * (scale * self.kernel_scale))

    def sums(self, x: Any) -> Any:
        """The convolution of int8 images (batch, height, width, channels) in int32: the same bits on each backend.

        By the backend's integer convolution, or, where it has none here, by `patch_sums`.
        """
        module = importlib.import_module(f"kcost.backends.kernels.{keras.backend.backend()}_convolution")
        sums = module.int8_convolution(x, self.kernel.value, self.strides, self.padding, self.dilation_rate)
        return self.patch_sums(x) if sums is None else sums

    def patch_sums(self, x: Any) -> Any:
        """As `sums`, by one product of image patches (im2col) with the kernel."""
        kernel = ops.reshape(self.kernel, (-1, self.kernel_shape[-1]))
        return driver(keras.backend.backend()).int8_matmul(self._patches(x), kernel)

    def _patches(self, x: Any) -> Any:
        """int8 images (batch, height, width, channels) -> patches (batch, rows, columns, places * channels)."""
        spans = [(size - 1) * step for size, step in zip(self.kernel_shape, self.dilation_rate, strict=False)]
        if self.padding == "same":
            x = ops.pad(x, [(0, 0), *self._same_padding(x.shape[1:3], spans), (0, 0)])
        rows, columns = (range(self.kernel_shape[axis]) for axis in (0, 1))
        parts = [
            x[:, self._window(0, row, spans[0]), self._window(1, column, spans[1]), :]
            for row in rows
            for column in columns
        ]
        return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def _window(self, axis: int, place: int, span: int) -> slice:
        """The pixels along an axis that one place of the kernel meets, whatever the axis's size."""
        start = place * self.dilation_rate[axis]
        return slice(start, start - span or None, self.strides[axis])

    def _same_padding(self, sizes: Sequence[int | None], spans: Sequence[int]) -> list[tuple[int, int]]:
        padding = []
        for size, span, stride in zip(sizes, spans, self.strides, strict=True):
            # With a stride, the padding depends on what is left over at the end.
            total = span if stride == 1 or size is None else max((-(-size // stride) - 1) * stride + span + 1 - size, 0)
            padding.append((total // 2, total - total // 2))
        return padding


@keras.saving.register_keras_serializable(package=PACKAGE)
class QuantizedDepthwiseConv2D(_Convolution):
    """DepthwiseConv2D with an int8 kernel (height, width, channels, multiplier), computed in floats.

    A depthwise convolution sums few terms, so that there is no matrix product to win from.
    """

    operation = staticmethod(ops.depthwise_conv)

    def __init__(self, kernel_shape: Sequence[int], **kwargs: Any) -> None:
        kwargs.pop("mode", None)
        super().__init__(kernel_shape, "weight-only", **kwargs)

    @classmethod
    def of(cls, layer: keras.layers.DepthwiseConv2D) -> QuantizedDepthwiseConv2D:
        """The quantized form of a built DepthwiseConv2D layer."""
        kernel, scale = quantized_weights(host(layer.kernel), (0, 1))
        made = cls(kernel.shape, **cls.settings(layer))
        made.build()
        bias = host(layer.bias) if layer.use_bias else None
        return made.set_state(kernel=kernel, kernel_scale=scale, bias=bias)

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        channels, multiplier = self.kernel_shape[2:]
        self.add_convolution((channels, multiplier), channels * multiplier)

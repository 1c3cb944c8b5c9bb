# ruff: noqa: D102  # what Keras itself calls is described in keras.layers.Layer
"""Keras layers with int8 weights: dense products and embeddings.

Symmetric quantization: a number is int8 * scale, with int8 in -127..127 and scale = largest absolute value / 127.
A weight has a scale for each output channel. What the activations have is the layer's mode:

- dynamic: a scale for each row, from the row's own values at run time;
- static: one scale for the whole input, from calibration, stored in the layer;
- weight-only: none; weights become floats again before the product.

In the first two the product is int8 x int8 with int32 sums, which are the same bits on each backend. A static layer in
a graph of TensorFlow for inference has them to the precision of float32 (`Driver.static_int8_product`). Source of the
scheme: Jacob et al. (2018), arXiv 1712.05877, and Wu et al. (2020), arXiv 2004.09602, for the symmetric form.
"""

from __future__ import annotations

import string
from typing import Any, Literal, NamedTuple, Self, cast

import keras
import numpy as np
from keras import ops

from kcost.backends import driver
from kcost.core.errors import InputError
from kcost.optimize.forms.rounding import LARGEST, quantized_activations, quantized_weights, rounded_activations
from kcost.optimize.forms.short_call import LeanLayer

Mode = Literal["dynamic", "static", "weight-only"]
MODES: tuple[Mode, ...] = ("dynamic", "static", "weight-only")
PACKAGE = "kcost"


def host(tensor: Any) -> np.ndarray:
    """A Keras variable or tensor as a float32 numpy array."""
    return np.asarray(ops.convert_to_numpy(tensor), dtype=np.float32)


class QuantizedLayer(LeanLayer):
    """Base of the layers with int8 weights: no weight of them is trained."""

    def __init__(self, mode: str, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "trainable": False})
        if mode not in MODES:
            raise InputError(f"A quantized layer has one of the modes {', '.join(MODES)}.", received=repr(mode))
        self.mode = mode

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode}

    @property
    def computes_in(self) -> str:
        """What `computed_dtypes` says of it."""
        return f"int8_{self.mode.replace('-', '_')}"

    def add_state(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """A variable that is filled in later, by `set_state` or from a file."""
        settings = {"initializer": "zeros", "trainable": False, "autocast": False}
        return self.add_weight(name=name, shape=shape, dtype=dtype, **settings)

    def set_state(self, **values: np.ndarray | None) -> Self:
        """Assigns variables by attribute; None is for one that the layer does not have."""
        for name, value in values.items():
            if value is not None:
                getattr(self, name).assign(value)
        return self

    def set_range(self, largest: float) -> None:
        """Gives a static layer another range; its kernel stays as it is. `largest` as of `input_scale`."""
        self.set_state(input_scale=input_scale("static", largest))


def common(layer: keras.layers.Layer) -> dict[str, Any]:
    """The arguments that a quantized layer takes over from the float layer."""
    return {"name": layer.name, "dtype": layer.dtype_policy}


def input_scale(mode: str, largest: float | None) -> np.ndarray | None:
    """The stored activation scale of a static layer, None for the other modes.

    Args:
        largest: the largest absolute input that is to be told apart, from calibration.

    Raises:
        InputError: a static layer without `largest`.
    """
    if mode != "static":
        return None
    if largest is None:
        raise InputError("A static layer needs the range of its input.", remedy="Calibrate it on data.")
    return np.asarray(max(largest, 1e-30) / LARGEST, np.float32)


class _Product(QuantizedLayer):
    """One product of the inputs with an int8 kernel of two axes (inner, outer), then bias and activation."""

    def __init__(self, mode: str, activation: Any = None, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(mode, **kwargs)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": activation, "use_bias": self.use_bias}

    def add_product(self, inner: int, outer: int, bias_shape: tuple[int, ...]) -> None:
        """Makes the variables."""
        self.kernel = self.add_state("kernel", (inner, outer), "int8")
        self.kernel_scale = self.add_state("kernel_scale", (outer,))
        self.bias = self.add_state("bias", bias_shape) if self.use_bias else None
        self.input_scale = self.add_state("input_scale", ()) if self.mode == "static" else None

    def product(self, x: Any) -> Any:
        """(..., inner) -> (..., outer) in float32, or in the layer's compute dtype for weight-only."""
        if self.mode == "weight-only":
            dtype = self.compute_dtype
            return ops.matmul(x, ops.cast(self.kernel, dtype) * ops.cast(self.kernel_scale, dtype))
        backend = driver(keras.backend.backend())
        if self.mode == "static":
            assert self.input_scale is not None
            parts = (self.input_scale.value, self.kernel.value, self.kernel_scale.value)
            fused = backend.static_int8_product(x, *parts)
            if fused is not None:
                return fused
            scale = ops.convert_to_tensor(self.input_scale)
            rounded = rounded_activations(x, scale)
        else:
            rounded, scale = quantized_activations(x, (-1,))
        sums = backend.int8_matmul(rounded, ops.convert_to_tensor(self.kernel))
        return ops.cast(sums, "float32") * (scale * self.kernel_scale)

    def finished(self, x: Any) -> Any:
        """Adds the bias, gives the layer's dtype, applies the activation."""
        if self.bias is not None:
            x = x + ops.cast(self.bias, x.dtype)
        x = ops.cast(x, self.compute_dtype)
        return x if self.activation is None else self.activation(x)


@keras.saving.register_keras_serializable(package=PACKAGE)
class QuantizedDense(_Product):
    """Dense with an int8 kernel.

    Inputs (..., channels) of a float dtype, outputs (..., units) in the layer's compute dtype.
    """

    def __init__(self, units: int, mode: str, **kwargs: Any) -> None:
        super().__init__(mode, **kwargs)
        self.units = units

    @classmethod
    def of(cls, layer: keras.layers.Dense, mode: str, largest: float | None = None) -> QuantizedDense:
        """The quantized form of a built Dense layer; `largest` as in `input_scale`."""
        kernel, scale = quantized_weights(host(layer.kernel), (0,))
        made = cls(layer.units, mode, activation=layer.activation, use_bias=layer.bias is not None, **common(layer))
        made.build((None, kernel.shape[0]))
        bias = None if layer.bias is None else host(layer.bias)
        return made.set_state(kernel=kernel, kernel_scale=scale, bias=bias, input_scale=input_scale(mode, largest))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.add_product(cast(int, input_shape[-1]), self.units, (self.units,))

    def call(self, inputs: Any) -> Any:
        return self.finished(self.product(inputs))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package=PACKAGE)
class QuantizedEinsumDense(_Product):
    """EinsumDense with an int8 kernel, where the equation is one matrix product.

    Args:
        equation: as of EinsumDense, without an ellipsis: `abc,cde->abde`.
        kernel_shape: shape of the float layer's kernel, in the order of the equation.
        bias_shape: shape of the float layer's bias, or None.
    """

    def __init__(
        self, equation: str, kernel_shape: list[int], bias_shape: list[int] | None, mode: str, **kwargs: Any
    ) -> None:
        super().__init__(mode, **{**kwargs, "use_bias": bias_shape is not None})
        self.equation = equation
        self.kernel_shape = tuple(kernel_shape)
        self.bias_shape = None if bias_shape is None else tuple(bias_shape)
        self.plan = _plan(equation)

    @staticmethod
    def refusal(layer: keras.layers.EinsumDense, mode: str) -> str | None:
        """Why a built EinsumDense has no int8 form, whatever the mode, or None."""
        try:
            _plan(_without_ellipsis(layer.equation, layer.input_spec.ndim))
        except InputError as error:
            return error.rule
        return None

    @classmethod
    def of(cls, layer: keras.layers.EinsumDense, mode: str, largest: float | None = None) -> QuantizedEinsumDense:
        """The quantized form of a built EinsumDense layer; `largest` as in `input_scale`.

        Raises:
            InputError: the equation is not one matrix product.
        """
        equation = _without_ellipsis(layer.equation, layer.input_spec.ndim)
        weights = host(layer.kernel)
        bias = None if layer.bias is None else host(layer.bias)
        made = cls(
            *(equation, list(weights.shape), None if bias is None else list(bias.shape), mode),
            activation=layer.activation,
            **common(layer),
        )
        made.build()
        inner, outer = made.kernel.shape
        kernel, scale = quantized_weights(weights.transpose(made.plan.kernel_order).reshape(inner, outer), (0,))
        return made.set_state(kernel=kernel, kernel_scale=scale, bias=bias, input_scale=input_scale(mode, largest))

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        sizes = [self.kernel_shape[axis] for axis in self.plan.kernel_order]
        inner = int(np.prod(sizes[: self.plan.inner], dtype=int))
        self.add_product(inner, int(np.prod(sizes, dtype=int)) // inner, self.bias_shape or ())

    def call(self, inputs: Any) -> Any:
        plan = self.plan
        x = _transposed(inputs, plan.input_order)
        free = ops.shape(x)[: x.ndim - plan.inner]
        x = self.product(ops.reshape(x, (*free, self.kernel.shape[0])))
        outer = [self.kernel_shape[axis] for axis in plan.kernel_order[plan.inner :]]
        return self.finished(_transposed(ops.reshape(x, (*free, *outer)), plan.output_order))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        left, output = self.equation.split("->")
        inputs, kernel = left.split(",")
        sizes = {**dict(zip(inputs, input_shape, strict=True)), **dict(zip(kernel, self.kernel_shape, strict=True))}
        return tuple(sizes[label] for label in output)

    def get_config(self) -> dict[str, Any]:
        own = {"equation": self.equation, "kernel_shape": self.kernel_shape, "bias_shape": self.bias_shape}
        config = {**super().get_config(), **own}
        del config["use_bias"]
        return config


class _Plan(NamedTuple):
    """How an einsum becomes one matrix product: transpose, product over the last `inner` axes, transpose."""

    input_order: tuple[int, ...]
    kernel_order: tuple[int, ...]  # inner axes first
    output_order: tuple[int, ...]
    inner: int


def _plan(equation: str) -> _Plan:
    left, output = equation.split("->")
    inputs, kernel = left.split(",")
    summed = [label for label in kernel if label in inputs and label not in output]
    free = [label for label in inputs if label not in summed]
    outer = [label for label in kernel if label not in summed]
    repeated = any(len(set(labels)) < len(labels) for labels in (inputs, kernel, output))
    if repeated or not summed or set(free) & set(outer) or sorted(free + outer) != sorted(output):
        raise InputError(f"The equation {equation} is not one matrix product.")
    return _Plan(
        input_order=tuple(inputs.index(label) for label in free + summed),
        kernel_order=tuple(kernel.index(label) for label in summed + outer),
        output_order=tuple((free + outer).index(label) for label in output),
        inner=len(summed),
    )


def _without_ellipsis(equation: str, input_axes: int) -> str:
    """The equation with an ellipsis written out for inputs of so many axes."""
    equation = equation.replace(" ", "")
    if "..." not in equation:
        return equation
    named = equation.partition(",")[0].replace("...", "")
    unused = [label for label in string.ascii_letters if label not in equation]
    return equation.replace("...", "".join(unused[: input_axes - len(named)]))


def _transposed(x: Any, order: tuple[int, ...]) -> Any:
    return x if order == tuple(range(len(order))) else ops.transpose(x, order)


@keras.saving.register_keras_serializable(package=PACKAGE)
class QuantizedEmbedding(QuantizedLayer):
    """Embedding with int8 rows and a scale for each row: rows become floats when they are looked up.

    Also stands for a ReversibleEmbedding with tied weights: with reverse=True, inputs (..., output_dim) give
    logits (..., input_dim) by a product of floats.
    """

    def __init__(self, input_dim: int, output_dim: int, mask_zero: bool = False, **kwargs: Any) -> None:
        kwargs.pop("mode", None)
        super().__init__("weight-only", **kwargs)
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero

    @classmethod
    def of(cls, layer: keras.layers.Embedding) -> QuantizedEmbedding:
        """The quantized form of a built Embedding layer."""
        rows, scale = quantized_weights(host(layer.embeddings), (1,))
        made = cls(layer.input_dim, layer.output_dim, layer.mask_zero, **common(layer))
        made.build()
        return made.set_state(embeddings=rows, scale=scale)

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        self.embeddings = self.add_state("embeddings", (self.input_dim, self.output_dim), "int8")
        self.scale = self.add_state("scale", (self.input_dim,))

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        if reverse:
            rows = ops.cast(ops.transpose(self.embeddings), self.compute_dtype)
            return ops.matmul(inputs, rows) * ops.cast(self.scale, self.compute_dtype)
        inputs = ops.cast(inputs, "int32")
        rows = ops.cast(ops.take(self.embeddings, inputs, axis=0), "float32")
        return ops.cast(rows * ops.expand_dims(ops.take(self.scale, inputs), -1), self.compute_dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        looked_up = "float" not in keras.backend.standardize_dtype(inputs.dtype)
        return ops.not_equal(inputs, 0) if self.mask_zero and looked_up else None

    def compute_output_spec(self, inputs: Any, reverse: bool = False) -> keras.KerasTensor:
        shape = (*inputs.shape[:-1], self.input_dim) if reverse else (*inputs.shape, self.output_dim)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"input_dim": self.input_dim, "output_dim": self.output_dim, "mask_zero": self.mask_zero}
        return {**super().get_config(), **own}

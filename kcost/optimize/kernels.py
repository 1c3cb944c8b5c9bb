"""The kernels of a model: what can be pruned, wherever it lies in the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import keras
import numpy as np

from kcost.models.keras_private import inner_layers, own_variables
from kcost.optimize.coverage import Change
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.optimize.rewrite import rewrite

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_LEFT = {
    keras.layers.DepthwiseConv1D: "one small filter a channel: few weights, of which each counts",
    keras.layers.DepthwiseConv2D: "one small filter a channel: few weights, of which each counts",
    keras.layers.Embedding: "its rows are looked up, not multiplied",
}


@dataclass(frozen=True)
class Kernel:
    """A variable that is multiplied with inputs, and how to see it as a matrix (inputs, outputs)."""

    path: str
    """Path of its layer in the model, and behind a `.` its name where the layer has several."""
    layer: keras.layers.Layer
    variable: Any
    order: tuple[int, ...]
    """Axes of the variable, those that are summed over first."""
    summed: int
    """How many axes are summed over."""

    @property
    def kind(self) -> str:
        """Class of its layer."""
        return type(self.layer).__name__

    def matrix(self, array: np.ndarray) -> np.ndarray:
        """An array of the variable's shape as (inputs, outputs)."""
        shape = [array.shape[axis] for axis in self.order]
        return array.transpose(self.order).reshape(int(np.prod(shape[: self.summed])), -1)

    def from_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of `matrix`."""
        shape = [self.variable.shape[axis] for axis in self.order]
        return matrix.reshape(shape).transpose(np.argsort(self.order))

    def values(self) -> np.ndarray:
        """The weights on the host, as float32."""
        return np.asarray(keras.ops.convert_to_numpy(self.variable)).astype(np.float32)


def kernels_of(model: keras.Model, skip: Sequence[str] = ()) -> tuple[list[Kernel], list[Change]]:
    """The kernels of all layers of a model, those inside other layers among them, and the layers that were left.

    Args:
        skip: patterns of paths or names of layers to leave as they are, with all that lies in them.
    """
    kernels: list[Kernel] = []
    left: list[Change] = []
    seen: set[int] = set()
    for path, layer in walk(model):
        own = [v for v in own_variables(layer) if id(v) not in seen]
        seen |= {id(v) for v in own}
        if all(len(v.shape) < 2 for v in own):
            continue
        parameters = sum(int(np.prod(v.shape)) for v in own)
        reason = "left out on request" if is_named(path, skip) else _reason(layer)
        if reason is None:
            kernels += _kernels(path, layer)
        else:
            left.append(Change(layer=path, what=f"{type(layer).__name__}: {reason}", parameters=parameters))
    return kernels, left


def walk(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Every layer below a model with its path, `/` between levels, outer ones first; each layer once."""
    seen: set[int] = set()

    def below(layer: keras.layers.Layer, path: str) -> Iterator[tuple[str, keras.layers.Layer]]:
        for inner in inner_layers(layer):
            if id(inner) not in seen:
                seen.add(id(inner))
                inner_path = f"{path}/{inner.name}" if path else str(inner.name)
                yield inner_path, inner
                yield from below(inner, inner_path)

    yield from below(model, "")


def copy_of(model: keras.Model) -> keras.Model:
    """A model of its own with the same weights, not compiled.

    Raises:
        InputError: the model is not built, or cannot be made again from its config.
    """
    return own_buffers(rewrite(model, lambda layer, path: None))


def own_buffers(model: keras.Model) -> keras.Model:
    """Ends what a copy shares with its original: on jax a buffer of both would go when either one is trained."""
    for variable in model.variables:
        variable.assign(np.array(keras.ops.convert_to_numpy(variable), copy=True))
    return model


def parameters_of(layer: keras.layers.Layer) -> int:
    """Numbers that a layer holds, those of its sublayers included."""
    return sum(int(np.prod(v.shape)) for v in layer.weights)


def is_named(path: str, skip: Sequence[str]) -> bool:
    """Whether a pattern in `skip` (as in a shell) is that of a layer, or of one around it, by its path or name."""
    return bool(patterns_for(path, skip))


def patterns_for(path: str, patterns: Iterable[str]) -> list[str]:
    """Those of the patterns that name a layer, or one around it, by its path or name."""
    levels = path.split("/")
    names = {*levels, *("/".join(levels[: i + 1]) for i in range(len(levels)))}
    return [pattern for pattern in patterns if any(fnmatchcase(name, pattern) for name in names)]


def _reason(layer: keras.layers.Layer) -> str | None:
    """Why a layer with weights is not pruned."""
    for kind, reason in _LEFT.items():
        if isinstance(layer, kind):
            return reason
    kinds = (keras.layers.Dense, keras.layers.EinsumDense, *_CONVOLUTIONS, *_TRANSPOSED, *_SEPARABLE, EncoderBlock)
    if not isinstance(layer, kinds):
        return "of no kind that is pruned"
    if getattr(layer, "lora_enabled", False):
        return "it has low-rank updates; merge them first, by saving and loading the model"
    if any(not keras.backend.is_float_dtype(k.variable.dtype) for k in _kernels("", layer)):
        return "it holds integers; prune before quantizing"
    return None


def _kernels(path: str, layer: keras.layers.Layer) -> list[Kernel]:
    if isinstance(layer, EncoderBlock):
        names = ("qkv_kernel", "out_kernel", "up_kernel", "down_kernel")
        return [Kernel(f"{path}.{name}", layer, layer.parts[name], (0, 1), 1) for name in names]
    if isinstance(layer, keras.layers.Dense):
        return [Kernel(path, layer, layer.kernel, (0, 1), 1)]
    if isinstance(layer, keras.layers.EinsumDense):
        terms, output = layer.equation.split("->")
        letters = terms.split(",")[1]
        summed = [i for i, letter in enumerate(letters) if letter not in output]
        others = [i for i in range(len(letters)) if i not in summed]
        return [Kernel(path, layer, layer.kernel, (*summed, *others), len(summed))]
    variable = layer.pointwise_kernel if isinstance(layer, _SEPARABLE) else layer.kernel
    # Inputs and outputs are the last two axes, the other way round in transposed convolutions.
    rank = len(variable.shape)
    inputs = rank - 1 if isinstance(layer, _TRANSPOSED) else rank - 2
    return [Kernel(path, layer, variable, (inputs, *(i for i in range(rank) if i != inputs)), 1)]

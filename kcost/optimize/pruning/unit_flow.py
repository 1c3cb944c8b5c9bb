"""Where the units of a layer go: chains of layers in a model's graph, from one with weights to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from kcost.models.keras_private import nodes_of
from kcost.optimize.graphs import Readers, graphs_in, readers_in

_PRODUCERS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_WITH_ACTIVATION = (*_PRODUCERS, *_DEPTHWISE, keras.layers.Activation)
_BY_UNIT = tuple(
    getattr(keras.layers, name)
    for name in (
        *("ReLU", "LeakyReLU", "ELU", "Dropout", "GaussianDropout", "GaussianNoise"),
        *(f"{kind}{rank}D" for kind in ("MaxPooling", "AveragePooling") for rank in (1, 2, 3)),
        *(f"Global{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3)),
        *(
            f"{kind}{rank}D"
            for kind in ("SpatialDropout", "ZeroPadding", "Cropping", "UpSampling")
            for rank in (1, 2, 3)
        ),
    )
)
"""Layers without weights that treat every unit (the last axis) alike and apart."""

_ELEMENTWISE = (
    *(
        "linear",
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "gelu",
        "silu",
        "tanh",
        "sigmoid",
        "softplus",
        "softsign",
    ),
    *("hard_sigmoid", "hard_silu", "hard_tanh", "mish", "exponential", "celu", "log_sigmoid", "tanh_shrink"),
)


@dataclass(frozen=True)
class Chain:
    """A layer whose units may be removed, and what its output runs through."""

    path: str
    producer: keras.layers.Layer
    between: tuple[keras.layers.Layer, ...] = ()
    consumer: Any = None
    """The Dense or convolution layer that the output goes into; None where there is a reason."""
    reason: str | None = None
    """Why no unit can be removed."""


def chains_of(model: keras.Model) -> Iterator[Chain]:
    """A chain for every Dense and convolution layer in the graphs of a model and of the models in it."""
    graphs, paths, calls = graphs_in(model)
    for graph in graphs:
        reading = readers_in(graph)
        for node in nodes_of(graph):
            if isinstance(node.operation, _PRODUCERS):
                between: list[keras.layers.Layer] = []
                end = _end(node, reading, calls, between)
                path, producer = paths[id(node.operation)], node.operation
                if isinstance(end, str):
                    yield Chain(path, producer, reason=end)
                else:
                    yield Chain(path, producer, tuple(between), end)


def _end(
    node: Any, reading: Readers, calls: Counter[int], between: list[keras.layers.Layer]
) -> keras.layers.Layer | str:
    """The layer that a layer's output comes to, with what lies between collected; or why units cannot be told apart."""
    reason = _unfit(node.operation, calls)
    while reason is None:
        (tensor,) = node.output_tensors
        users = reading.readers.get(id(tensor), [])
        if id(tensor) in reading.outputs:
            return "its units are an output"
        if len(users) != 1:
            return f"its output goes to {len(users)} layers: {', '.join(user.operation.name for user in users)}"
        if (mixed := _mixes(node.operation, between)) is not None:
            return mixed
        (node,) = users
        reason = _unfit(node.operation, calls)
        if reason is None and isinstance(node.operation, _PRODUCERS):
            return node.operation
        between.append(node.operation)
    return reason


def _unfit(layer: Any, calls: Counter[int]) -> str | None:
    """Why a layer's channels cannot be taken away."""
    if calls[id(layer)] > 1:
        return f"{layer.name!r} is used {calls[id(layer)]} times"
    if getattr(layer, "data_format", None) == "channels_first":
        return f"{layer.name!r} has its channels first"
    if not isinstance(layer, _PRODUCERS):
        return None
    if getattr(layer, "groups", 1) != 1:
        return f"{layer.name!r} has groups of channels"
    if getattr(layer, "lora_enabled", False) or not keras.backend.is_float_dtype(layer.kernel.dtype):
        return f"{layer.name!r} is quantized or has low-rank updates"
    return None


def _mixes(layer: Any, before: list[keras.layers.Layer]) -> str | None:
    """Why a layer does not pass on units one by one, in their order on the last axis."""
    if isinstance(layer, _WITH_ACTIVATION):
        name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
        if name not in _ELEMENTWISE:
            return f"the activation {name} of {layer.name!r} may mix units"
    flat = any(isinstance(b, keras.layers.Flatten) for b in before)
    if isinstance(layer, _DEPTHWISE):
        return None if layer.depth_multiplier == 1 else f"{layer.name!r} makes several channels of one"
    if isinstance(layer, keras.layers.BatchNormalization):
        last = layer.axis in (-1, len(layer.input.shape) - 1)
        return None if last and not flat else f"{layer.name!r} does not normalise over the units alone"
    if isinstance(layer, (*_PRODUCERS, *_BY_UNIT, keras.layers.Activation, keras.layers.Flatten)):
        return None
    return f"{layer.name!r} ({type(layer).__name__}) does not pass on single units"

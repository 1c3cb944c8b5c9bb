"""Finds the chains of convolutions in anybody's model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from kcost.backends.chain_spec import ChainSpec, Stage
from kcost.models.keras_private import nodes_of
from kcost.optimize.forms.conv_chain import ConvolutionChain
from kcost.optimize.forms.layers import host
from kcost.optimize.graphs import graphs_in, readers_in

_NOTHING = (keras.layers.Dropout, keras.layers.SpatialDropout2D)
"""What does nothing in inference."""

Leave = Callable[[str], bool]
"""Path of a layer -> whether it stays as it is."""


class FoundChain(NamedTuple):
    """Layers of a model, one after the other, and the chain that does what they do."""

    chain: ConvolutionChain
    """In float32, with the weights of the layers and the name of the first."""
    layers: tuple[tuple[str, keras.layers.Layer], ...]
    """With their paths, in their order. The first is a convolution."""
    convolutions: tuple[keras.layers.Layer, ...]
    """Those of the layers that are the stages' convolutions."""


class _Part(NamedTuple):
    stage: Stage
    kernel: np.ndarray
    bias: np.ndarray
    nodes: list[Any]


def convolution_chains(model: keras.Model, leave: Leave = lambda path: False) -> list[FoundChain]:
    """The chains in the graphs of a model and of the models in it, each layer in one at most.

    A chain reaches over tensors that nothing else reads. It holds convolutions with one group and channels last, each
    with a batch normalisation, ReLU, dropout and max-pooling behind it where there are some.
    """
    graphs, paths, calls = graphs_in(model)
    chains: list[FoundChain] = []
    used: set[int] = set()

    def is_free(layer: Any) -> bool:
        return id(layer) not in used and calls[id(layer)] == 1 and not leave(paths[id(layer)])

    for graph in graphs:
        follow = _Follow(graph, is_free)
        for node in nodes_of(graph):
            parts = list(_parts(node, follow))
            if parts:
                layers = [node.operation for part in parts for node in part.nodes]
                used |= {id(layer) for layer in layers}
                named = tuple((paths[id(layer)], layer) for layer in layers)
                chains.append(FoundChain(_chain(parts), named, tuple(part.nodes[0].operation for part in parts)))
    return chains


class _Follow:
    """From a node of a graph to the only one that reads its output, if that may be taken into a chain."""

    def __init__(self, graph: Any, is_free: Callable[[Any], bool]) -> None:
        self.is_free = is_free
        self.readers, self.outputs = readers_in(graph)

    def next(self, node: Any) -> Any:
        (tensor,) = node.output_tensors
        readers = self.readers.get(id(tensor), [])
        if len(readers) != 1 or id(tensor) in self.outputs or len(readers[0].input_tensors) != 1:
            return None
        layer = readers[0].operation
        # What is the model's output keeps its layer, whose name is that of the output.
        is_output = any(id(given) in self.outputs for given in readers[0].output_tensors)
        return readers[0] if isinstance(layer, keras.layers.Layer) and not is_output and self.is_free(layer) else None


def _parts(node: Any, follow: _Follow) -> Iterator[_Part]:
    """The stages that begin at a node; none if it is no convolution that has a place in a chain."""
    if not _is_convolution(node.operation) or not follow.is_free(node.operation):
        return
    while True:
        part, node = _part(node, follow)
        yield part
        if not part.stage.relu or node is None or not _is_convolution(node.operation):
            return


def _part(node: Any, follow: _Follow) -> tuple[_Part, Any]:
    """The stage of a convolution, and the node behind it."""
    layer = node.operation
    nodes = [node]
    kernel = host(layer.kernel)
    bias = host(layer.bias) if layer.use_bias else np.zeros(kernel.shape[3], np.float32)
    settings: dict[str, Any] = {"relu": _is_relu(layer.activation)}
    node = follow.next(node)
    if node is not None and not settings["relu"] and _folds(node.operation):
        kernel, bias = _folded(node.operation, kernel, bias)
        nodes.append(node)
        node = follow.next(node)
    while node is not None:
        behind = node.operation
        if type(behind) is keras.layers.MaxPooling2D and behind.data_format == "channels_last":
            settings |= {"pool": behind.pool_size, "pool_strides": behind.strides, "pool_padding": behind.padding}
        elif _is_relu_layer(behind) and not settings["relu"]:
            settings["relu"] = True
        elif type(behind) not in _NOTHING:
            break
        nodes.append(node)
        node = follow.next(node)
        if "pool" in settings:
            break
    stage = Stage(
        kernel_shape=kernel.shape,
        strides=tuple(layer.strides),
        padding=layer.padding,
        dilation=tuple(layer.dilation_rate),
        **settings,
    )
    return _Part(stage, kernel, bias, nodes), node


def _chain(parts: list[_Part]) -> ConvolutionChain:
    chain = ConvolutionChain(ChainSpec(tuple(part.stage for part in parts)), name=parts[0].nodes[0].operation.name)
    chain.build()
    for i, part in enumerate(parts):
        chain.parts[f"kernel_{i}"].assign(part.kernel)
        chain.parts[f"bias_{i}"].assign(part.bias)
    return chain


def _is_convolution(layer: Any) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and layer.dtype_policy.name == "float32"
        and not layer.lora_enabled
        and (_is_relu(layer.activation) or layer.activation is keras.activations.linear)
    )


def _is_relu(activation: Any) -> bool:
    return activation is keras.activations.relu


def _is_relu_layer(layer: Any) -> bool:
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return type(layer) is keras.layers.Activation and _is_relu(layer.activation)


def _folds(layer: Any) -> bool:
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.axis in (-1, 3)
        and layer.dtype_policy.name == "float32"
    )


def _folded(norm: Any, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution with the batch normalisation behind it, as it is in inference."""
    factor = 1 / np.sqrt(host(norm.moving_variance).astype(np.float64) + norm.epsilon)
    if norm.scale:
        factor = factor * host(norm.gamma)
    shifted = (bias - host(norm.moving_mean)) * factor + (host(norm.beta) if norm.center else 0)
    return (kernel * factor).astype(np.float32), shifted.astype(np.float32)

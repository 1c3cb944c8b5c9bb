"""The graphs of a model and of the models in it: which layer lies where, who calls it, who reads what it gives."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import keras

from kcost.models.keras_private import graph_of, nodes_of
from kcost.optimize.kernels import walk


class Graphs(NamedTuple):
    """What the graphs of a model say of its layers."""

    graphs: list[Any]
    paths: dict[int, str]
    """id of a layer -> its path in the model."""
    calls: Counter[int]
    """id of a layer -> how often the graphs call it."""


class Readers(NamedTuple):
    """Where the tensors of one graph go."""

    readers: dict[int, list[Any]]
    """id of a tensor -> the nodes that it is an input of."""
    outputs: frozenset[int]
    """ids of the tensors that the graph gives."""


def graphs_in(model: keras.Model) -> Graphs:
    """The graphs in a model, its own first; models without one are passed over."""
    layers = list(walk(model))
    graphs = [graph for graph in map(graph_of, (model, *(layer for _, layer in layers))) if graph is not None]
    calls = Counter(id(node.operation) for graph in graphs for node in nodes_of(graph))
    return Graphs(graphs, {id(layer): path for path, layer in layers}, calls)


def readers_in(graph: Any) -> Readers:
    """Who reads each tensor of a graph."""
    readers: dict[int, list[Any]] = {}
    for node in nodes_of(graph):
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node)
    return Readers(readers, frozenset(id(tensor) for tensor in graph.outputs))

"""Einsum out of an ONNX graph: runtimes and quantizers are made for MatMul.

Keras's attention is six einsums a layer. ONNX Runtime runs them slower than the products that they are, and no
quantizer looks at them. Each product of two factors becomes Transpose, Reshape and MatMul, with the same outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper


class _Axes(NamedTuple):
    """The letters of an equation such as `abc,cde->abde`."""

    left: list[str]
    right: list[str]
    out: list[str]

    @property
    def batch(self) -> list[str]:
        return [letter for letter in self.out if letter in self.left and letter in self.right]

    @property
    def summed(self) -> list[str]:
        return [letter for letter in self.left if letter in self.right and letter not in self.out]

    @property
    def rows(self) -> list[str]:
        return [letter for letter in self.left if letter not in self.right]

    @property
    def columns(self) -> list[str]:
        return [letter for letter in self.right if letter not in self.left]

    def swapped(self) -> _Axes:
        return _Axes(self.right, self.left, self.out)


def replace_einsum(model: onnx.ModelProto) -> int:
    """Replaces what it can in place; returns how many Einsum nodes are left.

    Replaced are products with a constant factor whose letters are in the order of a matrix product (EinsumDense), and
    products of two tensors over one axis, with one axis of their own each (attention scores and their use).
    """
    rewriter = _Rewriter(model.graph)
    for node in list(model.graph.node):
        rewriter.add(node)
    del model.graph.node[:]
    model.graph.node.extend(rewriter.nodes)
    used = {name for node in rewriter.nodes for name in node.input}
    kept = [constant for constant in rewriter.constants.values() if constant.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    # Shapes between nodes are those of the old graph; runtimes and checkers infer them again.
    del model.graph.value_info[:]
    return sum(node.op_type == "Einsum" for node in rewriter.nodes)


class _Rewriter:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {constant.name: constant for constant in graph.initializer}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        self._fused: set[str] = set()  # outputs of nodes that were taken into a replacement
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)

    def add(self, node: onnx.NodeProto) -> None:
        """Takes over a node, or what replaces it."""
        if node.output[0] in self._fused:
            return
        axes = _axes(node)
        if axes is None or not (self._with_constant(node, axes) or self._of_two(node, axes)):
            self.nodes.append(node)

    def _with_constant(self, node: onnx.NodeProto, axes: _Axes) -> bool:
        ordered = (
            axes.left == axes.rows + axes.summed
            and axes.right == axes.summed + axes.columns
            and axes.out == axes.rows + axes.columns
        )
        if node.input[1] not in self.constants or not ordered:
            return False
        x, out = node.input[0], node.output[0]
        weight = numpy_helper.to_array(self.constants[node.input[1]])
        columns = weight.shape[len(axes.summed) :]
        if len(axes.summed) > 1:
            x = self._reshape(x, [*(0 for _ in axes.rows), -1], f"{out}/rows")
        kernel = self._constant(weight.reshape(-1, int(np.prod(columns))), f"{out}/kernel")
        if len(columns) == 1:
            self._node("MatMul", [x, kernel], out)
            return True
        x = self._node("MatMul", [x, kernel], f"{out}/product")
        users = self._users.get(out, [])
        if len(users) == 1 and users[0].op_type == "Add":
            # The bias before the reshape, beside its product, where runtimes look for it.
            other = next((name for name in users[0].input if name != out), out)
            if other in self.constants and tuple(self.constants[other].dims) == columns:
                bias = self._constant(numpy_helper.to_array(self.constants[other]).reshape(-1), f"{out}/bias")
                x = self._node("Add", [x, bias], f"{out}/biased")
                out = users[0].output[0]
                self._fused.add(out)
        self._reshape(x, [*(0 for _ in axes.rows), *columns], f"{out}/split", out)
        return True

    def _of_two(self, node: onnx.NodeProto, axes: _Axes) -> bool:
        left, right = node.input
        own = [letter for letter in axes.out if letter not in axes.batch]
        if own and own[0] in axes.columns:
            axes, left, right = axes.swapped(), right, left
        if not len(axes.summed) == len(axes.rows) == len(axes.columns) == 1:
            return False
        out = node.output[0]
        product = axes.batch + axes.rows + axes.columns
        left = self._transpose(left, axes.left, axes.batch + axes.rows + axes.summed, f"{out}/left")
        right = self._transpose(right, axes.right, axes.batch + axes.summed + axes.columns, f"{out}/right")
        if product == axes.out:
            self._node("MatMul", [left, right], out)
        else:
            multiplied = self._node("MatMul", [left, right], f"{out}/product")
            self._transpose(multiplied, product, axes.out, out)
        return True

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, value: np.ndarray, name: str) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def _reshape(self, x: str, shape: list[int], name: str, output: str | None = None) -> str:
        """A size of 0 keeps that of `x`."""
        return self._node("Reshape", [x, self._constant(np.array(shape, np.int64), f"{name}/shape")], output or name)

    def _transpose(self, x: str, letters: list[str], wanted: list[str], output: str) -> str:
        order = [letters.index(letter) for letter in wanted]
        return x if order == sorted(order) else self._node("Transpose", [x], output, perm=order)


def _axes(node: onnx.NodeProto) -> _Axes | None:
    """The letters of an Einsum of two factors, each letter once a factor; None for every other node."""
    if node.op_type != "Einsum" or len(node.input) != 2:
        return None
    equation = helper.get_node_attr_value(node, "equation").decode().replace(" ", "")
    factors, _, out = equation.partition("->")
    axes = _Axes(*(list(part) for part in (*factors.split(","), out)))
    if any(len(set(part)) != len(part) for part in axes) or "." in equation:
        return None
    # A letter of one factor alone that the output lacks would be summed away; MatMul does not do that.
    return axes if set(axes.out) == set(axes.batch + axes.rows + axes.columns) else None

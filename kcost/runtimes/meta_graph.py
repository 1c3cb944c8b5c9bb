"""What a SavedModel says of itself: its signatures, its operations, and what in its graph would need XLA.

Field numbers: tensorflow/core/protobuf/meta_graph.proto and tensorflow/core/framework/{graph,function,node_def,
attr_value,tensor_shape,types}.proto of TensorFlow 2.21; protocol buffers never change the number of a field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kcost.core.errors import ArtifactError
from kcost.runtimes.protobuf import fields, signed

DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
"""tensorflow.DataType -> name, as numpy and Keras call it."""

_XLA_ATTRIBUTES = (b"_XlaMustCompile", b"_XlaCompile")


class Tensor(NamedTuple):
    """One input or output of a signature."""

    operation: str | None
    """None where the tensor is sparse or composite, made of several."""
    output: int
    """Which output of the operation it is."""
    dtype: str
    shape: tuple[int | None, ...] | None
    """None on a free axis; None altogether where even the number of axes is free."""


class Signature(NamedTuple):
    """Inputs and outputs by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    method: str = ""
    """What the signature is for, as tensorflow/serving/predict; empty where the file does not say."""


class MetaGraph(NamedTuple):
    """The parts of a MetaGraphDef that matter to run it."""

    signatures: dict[str, Signature]
    xla: tuple[str, ...]
    """Operations and functions that are compiled by XLA wherever the graph runs, sorted; empty is good."""
    operations: frozenset[str]
    """The kinds of operations in the graph and its functions, such as MatMul."""


def parse(meta_graph_def: bytes | memoryview) -> MetaGraph:
    """Reads a serialized MetaGraphDef.

    Raises:
        ArtifactError: the bytes are none.
    """
    try:
        signatures: dict[str, Signature] = {}
        xla: set[str] = set()
        operations: set[str] = set()
        for number, value in _messages(meta_graph_def):
            if number == 2:  # graph_def
                xla.update(_xla_in_graph(value))
                operations.update(_operation(node) for node in _nodes(value))
            elif number == 5:  # signature_def
                name, signature = _entry(value)
                signatures[name] = _signature(signature)
    except ValueError as error:
        raise ArtifactError(
            "A SavedModel describes itself in a MetaGraphDef.",
            received=f"bytes that are none: {error}",
            remedy="The file is damaged. Export the model again.",
        ) from error
    return MetaGraph(signatures, tuple(sorted(xla)), frozenset(operations))


def _messages(message: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields that are messages or strings."""
    for number, value in fields(message):
        if not isinstance(value, int):
            yield number, value


def _entry(message: memoryview) -> tuple[str, memoryview]:
    """Key and value of one entry of a map from strings to messages."""
    key, value = "", memoryview(b"")
    for number, content in _messages(message):
        if number == 1:
            key = str(content, "utf-8")
        elif number == 2:
            value = content
    return key, value


def _signature(message: memoryview) -> Signature:
    signature = Signature({}, {})
    for number, content in _messages(message):
        if number == 3:  # method_name
            signature = signature._replace(method=str(content, "utf-8"))
        if number in (1, 2):  # inputs, outputs
            key, tensor_info = _entry(content)
            (signature.inputs if number == 1 else signature.outputs)[key] = _tensor(tensor_info)
    return signature


def _tensor(message: memoryview) -> Tensor:
    operation, output, dtype, shape = None, "0", 0, None
    for number, value in fields(message):
        if number == 1 and not isinstance(value, int):
            operation, _, output = str(value, "utf-8").partition(":")  # an initializer has no ":0"
        elif number == 2 and isinstance(value, int):
            dtype = value
        elif number == 3 and not isinstance(value, int):
            shape = _shape(value)
    return Tensor(operation, int(output or 0), DTYPES.get(dtype, f"DataType {dtype}"), shape)


def _shape(message: memoryview) -> tuple[int | None, ...] | None:
    shape: list[int | None] = []
    for number, value in fields(message):
        if number == 3 and value:  # unknown_rank
            return None
        if number == 2 and not isinstance(value, int):  # dim
            sizes = [signed(v) for n, v in fields(value) if n == 1 and isinstance(v, int)]
            size = sizes[-1] if sizes else 0
            shape.append(None if size < 0 else size)
    return tuple(shape)


def _functions(graph_def: memoryview) -> Iterator[memoryview]:
    libraries = (value for number, value in _messages(graph_def) if number == 2)
    return (function for library in libraries for number, function in _messages(library) if number == 1)


def _nodes(graph_def: memoryview) -> Iterator[memoryview]:
    """Those of a graph and of all its functions."""
    yield from (node for number, node in _messages(graph_def) if number == 1)
    yield from (node for function in _functions(graph_def) for number, node in _messages(function) if number == 3)


def _operation(node_def: memoryview) -> str:
    return next((str(value, "utf-8") for number, value in _messages(node_def) if number == 2), "")


def _xla_in_graph(graph_def: memoryview) -> Iterator[str]:
    for node in _nodes(graph_def):
        yield from _xla_in_node(node)
    for function in _functions(graph_def):
        if any(number == 5 and _is_xla_attribute(value) for number, value in _messages(function)):
            yield "a function compiled with jit_compile=True"


def _xla_in_node(node_def: memoryview) -> Iterator[str]:
    for number, value in _messages(node_def):
        if number == 2 and bytes(value[:3]) == b"Xla":  # op
            yield f"the operation {str(value, 'utf-8')}"
        elif number == 5 and _is_xla_attribute(value):
            yield "a call compiled with jit_compile=True"


def _is_xla_attribute(entry: memoryview) -> bool:
    """Whether an entry of an attribute map asks for XLA: the name is one of its, and the value is true."""
    name, value = b"", memoryview(b"")
    for number, content in _messages(entry):
        if number == 1:
            name = bytes(content)
        elif number == 2:
            value = content
    return name in _XLA_ATTRIBUTES and any(number == 5 and flag for number, flag in fields(value))

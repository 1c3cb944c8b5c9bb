"""What TensorFlow tells of a step: the trace of its profiler, and the products in the step's graph.

The trace is an XSpace, whose classes come with TensorFlow. The count of `tf.compat.v1.profiler` is made for the graphs
of TensorFlow 1 and was tried on a frozen one alone; here the traced function is read, with einsum and fused operations.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from kcost.backends.base import Subject, arrange
from kcost.backends.kernels.tensorflow_constants import constant_weights
from kcost.backends.profiling.trace import TENSORFLOW_EVENT, Event, instruction_name, operations
from kcost.backends.profiling.work import LEAST_BYTES, least_bytes
from kcost.core.errors import UnavailableError
from kcost.core.profile import Trace, Work, trace_of

GRAPH_FLOPS = "kcost's count of the step's graph: matrix products, einsums and convolutions alone"

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase", "While", "StatelessWhile")


def trace_steps(subject: Subject, steps: int) -> Trace:
    """The nodes of the graph that ran in a few steps by type, or the instructions of XLA, by tf.profiler.

    Raises:
        UnavailableError: the trace holds none.
    """
    # Level 3 records operations that TensorFlow holds to be cheap as well: together they may not be.
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=3, python_tracer_level=0)
    with tempfile.TemporaryDirectory(prefix="kcost-trace-") as folder:
        tf.profiler.experimental.start(folder, options)
        try:
            start = time.perf_counter_ns()
            for number in range(steps):
                subject.step(number)
            wall_ns = time.perf_counter_ns() - start
        finally:
            tf.profiler.experimental.stop()
        spaces = [xplane_pb2.XSpace.FromString(file.read_bytes()) for file in Path(folder).rglob("*.xplane.pb")]
    lines = [_events(plane, line) for space in spaces for plane in space.planes for line in plane.lines]
    if not any(lines):
        raise UnavailableError("A trace of TensorFlow's profiler holds the operations that ran.", "a trace without any")
    return trace_of("tf.profiler", steps, wall_ns, operations(lines))


def _events(plane: Any, line: Any) -> list[Event]:
    """The operations among the events of a line, with times in nanoseconds from its start."""
    events = []
    for event in line.events:
        name = plane.event_metadata[event.metadata_id].name
        about = {plane.stat_metadata[stat.metadata_id].name: stat for stat in event.stats}
        if "hlo_op" in about:
            label, place = instruction_name(name), name
        elif (node := TENSORFLOW_EVENT.fullmatch(name)) is not None:
            label, place = node["type"], node["node"]
        else:
            continue
        start_ns = event.offset_ps / 1000
        events.append(Event(label, place, start_ns, start_ns + event.duration_ps / 1000))
    return events


def count_work(subject: Subject) -> Work:
    """Flops of a step, by tracing its graph once more."""
    graph, outputs = _graph(subject)
    try:
        flops, source = graph_flops(graph), GRAPH_FLOPS
    except UnavailableError as error:
        flops, source = None, str(error)
    known = [output for output in outputs if output.shape.is_fully_defined()]
    return Work(
        flops=flops,
        flops_source=source,
        bytes=least_bytes(subject.model, subject.batches[0], known),
        bytes_source=LEAST_BYTES,
        bytes_are_least=True,
    )


def _graph(subject: Subject) -> tuple[Any, list[Any]]:
    """The graph of a step, and the outputs that leave it."""
    model = subject.model
    x = tf.nest.map_structure(_spec, arrange(model, subject.batches[0]))
    if subject.labels is not None:
        step = tf.function(lambda x, y: model.train_step((x, y)), autograph=False)
        return step.get_concrete_function(x, _spec(subject.labels)).graph, []

    def forward(x: Any) -> Any:
        with constant_weights():
            return model(x, training=False)

    graph = tf.function(forward, autograph=False).get_concrete_function(x).graph
    return graph, list(graph.outputs)


def _spec(array: np.ndarray) -> Any:
    return tf.TensorSpec(array.shape, array.dtype)


def graph_flops(graph: Any) -> int:
    """Flops of the products that a function's graph needs for its outputs, in called functions too.

    Raises:
        UnavailableError: a product has a shape that the graph does not know, or stands in a loop or a branch.
    """
    total = 0
    for op in _needed(graph):
        if op.type in _CALLS:
            total += graph_flops(graph._get_function(op.get_attr("f").name).graph)
        elif op.type in _BRANCHES:
            if any(_has_products(graph._get_function(name).graph) for name in _bodies(op)):
                raise UnavailableError(
                    "The flops of a graph are counted where each product runs once.", f"{op.name}, of type {op.type}"
                )
        else:
            total += _product_flops(op)
    return total


def _needed(graph: Any) -> list[Any]:
    """The operations that the outputs depend on; the others are cut off before a graph runs."""
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    needed: dict[str, Any] = {}
    while waiting:
        op = waiting.pop()
        if op.name not in needed:
            needed[op.name] = op
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return list(needed.values())


def _bodies(op: Any) -> list[str]:
    attributes = op.node_def.attr.values()
    return [a.func.name for a in attributes if a.func.name] + [f.name for a in attributes for f in a.list.func]


def _has_products(graph: Any) -> bool:
    return any("MatMul" in op.type or "Conv" in op.type or op.type == "Einsum" for op in graph.get_operations())


def _product_flops(op: Any) -> int:
    """Flops of one operation: 2 for each multiplication of a product; 0 for all that is none."""
    kind = op.type
    if "MatMul" in kind:
        flags = {name: op.node_def.attr[name].b for name in ("transpose_a", "adj_x") if name in op.node_def.attr}
        inner = _shape(op, op.inputs[0])[-2 if any(flags.values()) else -1]
        return 2 * math.prod(_shape(op, op.outputs[0])) * inner
    if kind == "Einsum":
        return _einsum_flops(op)
    if "Conv" not in kind or not any(size in kind for size in ("Conv2D", "Conv3D", "DepthwiseConv2dNative")):
        return 0
    kernel_axes = 2 if "Depthwise" in kind else -1
    if "BackpropInput" in kind:
        return 2 * math.prod(_shape(op, op.inputs[2])) * math.prod(_shape(op, op.inputs[1])[:kernel_axes])
    if "BackpropFilter" in kind:
        return 2 * math.prod(_shape(op, op.inputs[2])) * math.prod(_shape(op, op.outputs[0])[:kernel_axes])
    return 2 * math.prod(_shape(op, op.outputs[0])) * math.prod(_shape(op, op.inputs[1])[:kernel_axes])


def _einsum_flops(op: Any) -> int:
    """2 times the product of the sizes of all letters; axes under an ellipsis are those of the larger input."""
    terms = op.get_attr("equation").decode().split("->")[0].split(",")
    sizes: dict[str, int] = {}
    hidden: list[int] = []
    for term, tensor in zip(terms, op.inputs, strict=True):
        shape = list(_shape(op, tensor))
        before, dots, after = term.strip().partition("...")
        if dots:
            under = shape[len(before) : len(shape) - len(after)]
            hidden = max(hidden, under, key=math.prod)
            shape = shape[: len(before)] + shape[len(shape) - len(after) :]
        sizes.update(zip(before + after, shape, strict=True))
    products = len(terms) > 1
    return 2 * math.prod(sizes.values()) * math.prod(hidden) if products else 0


def _shape(op: Any, tensor: Any) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise UnavailableError(
            "The flops of a graph are counted where its shapes are known.", f"{op.name} with the shape {tensor.shape}"
        )
    shape: list[int] = tensor.shape.as_list()
    return shape


def square_product(size: int, dtype: str) -> Callable[[], None]:
    """A program that multiplies two (size, size) matrices of a dtype and waits for the product."""
    a, b = (tf.cast(tf.random.stateless_normal((size, size), (0, seed)), dtype) for seed in (0, 1))
    return _waits(lambda: tf.matmul(a, b))


def convolution(images: int, side: int, channels: int, dtype: str) -> Callable[[], None]:
    """A program that convolves images of a dtype with windows of 3 x 3 and waits for what comes out."""
    shapes = (images, side, side, channels), (3, 3, channels, channels)
    x, w = (tf.cast(tf.random.stateless_normal(shape, (0, seed)), dtype) for seed, shape in enumerate(shapes))
    return _waits(lambda: tf.nn.conv2d(x, w, 1, "SAME"))


def transfer(elements: int) -> Callable[[], None]:
    """A program that takes float32 numbers of numpy's to the device and back."""
    numbers = np.ones(elements, np.float32)
    copy = tf.function(tf.identity, autograph=False)

    def run() -> None:
        np.array(copy(tf.convert_to_tensor(numbers)))

    return run


def _waits(compute: Callable[[], Any]) -> Callable[[], None]:
    """A program that computes a tensor and waits for it.

    One element is fetched to wait for all, and not all of them. It is taken in the graph: outside, taking it costs more
    than the call.
    """

    def with_one() -> Any:
        computed = compute()
        return computed, tf.reshape(computed, [-1])[0]

    function = tf.function(with_one, autograph=False)

    def run() -> None:
        function()[1].numpy()

    return run


def sum_in_place(elements: int) -> Callable[[], None]:
    """A program that adds `elements` float32 numbers to as many others where these lie, and waits."""
    held, ones = tf.Variable(tf.zeros(elements)), tf.ones(elements)

    def add(ones: Any) -> Any:
        held.assign_add(ones)
        return held[0]  # one element is fetched to wait for all

    # XLA's loop: TensorFlow's own kernel reaches about two thirds of it.
    compiled = tf.function(add, autograph=False, jit_compile=True)

    def run() -> None:
        compiled(ones).numpy()

    return run

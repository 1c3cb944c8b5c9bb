"""A model that is called on rows of several lengths which lie end to end, without padding between them.

Of an encoder, all but attention and the positions is computed for each place by itself. It makes no difference there
which places stand beside one another: a batch of rows may be one long row. Attention has a line for each row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kcost.backends.kernels.tensorflow_constants import constant_weights
from kcost.backends.kernels.tensorflow_packing import Packing
from kcost.core.conversion import ROW_LENGTHS
from kcost.core.errors import in_a_line
from kcost.models.calibrated import DividedLogits
from kcost.models.keras_private import nodes_of, run_through_graph
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.optimize.forms.layers import QuantizedDense, QuantizedEmbedding
from kcost.optimize.forms.norm import InferenceLayerNormalization
from kcost.worker.convert.endpoint import ModelInput, output_names
from kcost.worker.convert.saved_model import Serve
from kcost.worker.packed_rows import cut_rows, packed_rows

ROUGHLY = 0.05
"""Of the root mean square of answers: more than int8 that rounds the other way changes, less than another row does."""

_LOOKUPS = (keras.layers.Embedding, keras.layers.ReversibleEmbedding, QuantizedEmbedding)
_MERGES = (
    *(keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply),
    *(keras.layers.Average, keras.layers.Maximum, keras.layers.Minimum),
)
_ANY_PLACE = (
    *(keras.layers.Dropout, keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU),
    *(keras.layers.LayerNormalization, InferenceLayerNormalization, DividedLogits),
)
_LAST_AXIS = (keras.layers.Dense, QuantizedDense)
_POSITIONS = "PositionEmbedding"


def unpacked_because(model: keras.Model) -> str | None:
    """Why rows of a functional model cannot lie end to end; None where they can.

    Every operation is an encoder block of kcost, a table of positions, or one that is known to compute each place of
    a row by itself. A class of somebody's own, also one that inherits from such a layer, may do anything.
    """
    if ROW_LENGTHS in {tensor.name for tensor in model.inputs}:
        return f"it has an input {ROW_LENGTHS} of its own"
    if any(tuple(tensor.shape) != (None, None) or "int" not in tensor.dtype for tensor in model.inputs):
        return "an input is something else than integers of shape (rows, length), both free"
    blocks = 0
    for node in nodes_of(model):
        layer = node.operation
        if node.is_input:
            continue
        reason = _node_reason(node, layer)
        if reason is not None:
            return f"{layer.name}: {reason}"
        blocks += isinstance(layer, EncoderBlock)
    if any(len(tensor.shape) < 2 or tuple(tensor.shape[:2]) != (None, None) for tensor in model.outputs):
        return "an output is not one for each place"
    if not blocks:
        return "it has no encoder block"
    return None if _hang_together(model) else "its inputs may have rows of several lengths"


def packed_function(
    model: keras.Model, serve: Serve, inputs: Sequence[ModelInput], rows: Mapping[str, np.ndarray], *, portable: bool
) -> tuple[Any | None, str | None]:
    """The function of `serving_packed`, traced; or None and why there is none.

    It is an extra, and costs nobody an export: where it cannot be traced, or answers otherwise, the model has none.

    Args:
        model: of which `unpacked_because` says nothing.
        serve: the function of `serving_default`.
        rows: inputs of that by name, at least one row, for a comparison.
    """
    names = output_names(model)

    def call(tensors: dict[str, Any]) -> dict[str, Any]:
        with constant_weights(portable):
            lines = [tensors[i.name] for i in inputs]
            return dict(zip(names, packed_call(model, lines, tensors[ROW_LENGTHS]), strict=True))

    specs = {i.name: tf.TensorSpec((None,), i.dtype, name=i.name) for i in inputs}
    specs[ROW_LENGTHS] = tf.TensorSpec((None,), tf.int32, name=ROW_LENGTHS)
    function = tf.function(call, input_signature=[specs], autograph=False)
    try:
        function.get_concrete_function()
        return (function, None) if _is_alike(function, serve, rows) else (None, "its answers are others")
    except MemoryError:
        raise
    except Exception as error:  # whatever tracing a layer on one long row raises, or running it
        return None, f"it cannot be run so: {in_a_line(error)}"


def _is_alike(packed: Any, serve: Serve, rows: Mapping[str, np.ndarray]) -> bool:
    """Whether three rows, each a place shorter than the last, have the answers that they have alone.

    Roughly: `check_serving` holds what TensorFlow's C library makes of the file closer. What mixes rows is far off.
    """
    cut = cut_rows(rows, 3)
    answers = packed({name: tf.constant(array) for name, array in packed_rows(cut).items()})
    start = 0
    for row in cut:
        alone = serve({name: tf.constant(array[None]) for name, array in row.items()})
        end = start + len(next(iter(row.values())))
        for name, answer in answers.items():
            wanted = np.asarray(tf.cast(alone[name][0], tf.float32))
            off = np.asarray(tf.cast(answer[start:end], tf.float32)) - wanted
            if not np.sqrt(np.mean(off**2)) <= ROUGHLY * max(np.sqrt(np.mean(wanted**2)), 1e-6):
                return False
        start = end
    return True


def packed_call(model: keras.Model, inputs: list[Any], lengths: Any) -> list[Any]:
    """The flattened outputs for rows that lie end to end, (places, ...) each, in inference mode.

    Args:
        model: of which `unpacked_because` says nothing.
        inputs: (places,) each, in the order of the flattened input structure.
        lengths: int32 (rows,), of each row; what lies beyond the last of them has answers that mean nothing.
    """
    packing = Packing.of(lengths, tf.shape(inputs[0])[0])

    def run_as(operation: Any) -> Callable[..., Any]:
        if isinstance(operation, EncoderBlock):
            return lambda x, padding_mask=None, training=False: operation.packed(x, padding_mask, packing)
        if type(operation).__name__ == _POSITIONS:
            return lambda x: operation(x, positions=packing.place)
        return operation  # type: ignore[no-any-return]

    outputs = run_through_graph(model, [x[None] for x in inputs], run_as)
    return [tf.squeeze(x, 0) for x in keras.tree.flatten(outputs)]


def _node_reason(node: Any, layer: Any) -> str | None:
    """Why one operation does not compute each place by itself, as it is called here."""
    kind, tensors = type(layer), node.input_tensors
    values = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    if any(not isinstance(value, keras.KerasTensor | bool | None) for value in values):
        return "it is called with a value of its own"
    ranks = {len(tensor.shape) for tensor in tensors}
    if kind is EncoderBlock:
        if layer.fallback_reason is not None:
            return str(layer.fallback_reason)
        others = set(node.arguments.kwargs) - {"padding_mask", "training"}
        if node.arguments.kwargs.get("training"):
            return "it is called in training"
        return "it has a mask of its own" if others or len(node.arguments.args) != 1 else None
    if kind.__name__ == _POSITIONS and kind.__module__.startswith("keras_hub."):
        takes = "positions" in inspect.signature(layer.call).parameters
        return None if takes and len(values) == 1 else "this version takes no positions"
    if kind in _LOOKUPS:
        if layer.mask_zero:
            return "it makes a mask, which layers hand on beside what they give"
        return None if ranks == {2} and len(values) == 1 else "no lookup of whole numbers"
    if kind not in (*_MERGES, *_ANY_PLACE, *_LAST_AXIS):
        return f"nobody knows whether {kind.__name__} computes each place by itself"
    if ranks != {3}:
        return "it is called on something else than (rows, length, width)"
    if isinstance(layer, keras.layers.LayerNormalization) and list(layer.axis) not in ([-1], [2]):
        return "it normalizes over places"
    function = getattr(layer, "activation", None)
    if function is not None and getattr(keras.activations, getattr(function, "__name__", ""), None) is not function:
        return "its activation is none of keras.activations"
    return None


def _hang_together(model: keras.Model) -> bool:
    """Whether inputs and outputs are all of the same rows: operations read one with another, directly or not."""
    group: dict[int, int] = {}

    def first(tensor: int) -> int:
        while group.setdefault(tensor, tensor) != tensor:
            tensor = group[tensor]
        return tensor

    for node in nodes_of(model):
        tensors = [id(tensor) for tensor in (*node.input_tensors, *node.output_tensors)]
        for tensor in tensors[1:]:
            group[first(tensor)] = first(tensors[0])
    return len({first(id(tensor)) for tensor in (*model.inputs, *model.outputs)}) == 1

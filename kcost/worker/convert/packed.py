"""A model that is called on rows of several lengths which lie end to end, without padding between them.

Of an encoder, all but attention and the positions is computed for each place by itself. It makes no difference there
which places stand beside one another: a batch of rows may be one long row. Attention has each row alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kcost.backends.kernels.tensorflow_packing import Packing
from kcost.core.conversion import ROW_LENGTHS
from kcost.models.keras_private import nodes_of, run_through_graph
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.optimize.forms.layers import QuantizedDense, QuantizedEmbedding
from kcost.optimize.forms.norm import InferenceLayerNormalization

_LOOKUPS = (keras.layers.Embedding, keras.layers.ReversibleEmbedding, QuantizedEmbedding)
_MERGES = (
    *(keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply),
    *(keras.layers.Average, keras.layers.Maximum, keras.layers.Minimum),
)
_ANY_PLACE = (
    *(keras.layers.Dropout, keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU),
    *(keras.layers.LayerNormalization, InferenceLayerNormalization),  # of free lengths, over the last axis alone
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
    return None if blocks else "it has no encoder block"


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
            return lambda x, padding_mask=None: operation.packed(x, padding_mask, packing)
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
    function = getattr(layer, "activation", None)
    if function is not None and not getattr(function, "__module__", "").startswith("keras."):
        return "an activation of somebody's own"
    return None

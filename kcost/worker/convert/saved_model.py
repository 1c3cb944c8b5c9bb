"""Writes a SavedModel: endpoint by endpoint, not with `model.export`.

Keras's own export tracks the model too, and then stores each weight twice
(https://github.com/keras-team/keras/issues/23553).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kcost.core.conversion import PACKED_SIGNATURE
from kcost.core.errors import ArtifactError, StorageError, in_a_line
from kcost.worker.convert.endpoint import model_inputs, output_names
from kcost.worker.convert.without_xla import without_xla

if TYPE_CHECKING:
    import keras

ENDPOINT = "serving_default"

Serve = Callable[[dict[str, Any]], dict[str, Any]]

CONSTANTS_LIMIT_BYTES = (2 << 30) - (64 << 20)
"""A graph is one protocol buffer, of less than 2 GiB; some of it is left to all that is no constant."""


def write_saved_model(
    model: keras.Model,
    keras_file: Path,
    folder: Path,
    *,
    portable: bool,
    more: Sequence[MoreSignature] = (),
    packed: Callable[[Serve], Any] | None = None,
) -> None:
    """Writes the SavedModel, without XLA. Weights of fused and int8 layers become constants of its graph.

    Args:
        keras_file: that the model is from, for messages.
        folder: of the SavedModel.
        portable: public operations of TensorFlow only.
        more: signatures beside `serving_default`, which call it.
        packed: makes the function of `serving_packed` of that of `serving_default`, or None; None for a model without.

    Raises:
        ArtifactError: the model has inputs, layers or weights that cannot be exported.
        StorageError: the SavedModel cannot be written.
    """
    import keras
    import tensorflow as tf

    from kcost.backends.kernels.tensorflow_constants import constant_weights

    _refuse_large_constants(model, portable=portable)
    inputs = model_inputs(model, keras_file)
    names = output_names(model)

    def serve(tensors: dict[str, Any]) -> dict[str, Any]:
        with constant_weights(portable):
            return dict(zip(names, _call(model, [tensors[i.name] for i in inputs]), strict=True))

    archive = keras.export.ExportArchive()
    for layer in _with_tables(model):
        archive.track(layer)
    specs = {i.name: tf.TensorSpec(i.shape, i.dtype, name=i.name) for i in inputs}
    try:
        with without_xla():
            default = archive.add_endpoint(ENDPOINT, serve, input_signature=[specs])
            for signature in more:
                text = tf.TensorSpec((None,), tf.string, name=signature.input_name)
                # Of `default` itself, not of `serve`: a graph then holds the constants of the weights once.
                archive.add_endpoint(signature.name, signature.around(default), input_signature=[text])
            if packed is not None and (function := packed(default)) is not None:
                archive.add_endpoint(PACKED_SIGNATURE, function)
            archive.write_out(str(folder), verbose=False)
    except (tf.errors.OpError, OSError) as error:
        raise StorageError(
            "kcost needs to write the SavedModel.",
            received=f"{folder}: {in_a_line(error)}",
            remedy="Free some space, or name another folder.",
        ) from error
    except (ValueError, TypeError, AssertionError) as error:  # the last is TensorFlow's own check of what a graph holds
        raise ArtifactError(
            "A model is exported as a graph of TensorFlow operations.",
            received=f"the model {model.name!r}, whose graph cannot be made: {in_a_line(error)}",
            remedy="Change the layer that the reason names, and save the model again.",
        ) from error


class MoreSignature(NamedTuple):
    """A signature that makes arrays of strings and gives them to `serving_default`."""

    name: str
    input_name: str
    around: Callable[[Callable[[dict[str, Any]], dict[str, Any]]], Callable[[Any], dict[str, Any]]]
    """Makes the signature's function of that of `serving_default`."""


def _call(model: keras.Model, tensors: Sequence[Any]) -> list[Any]:
    """The flattened outputs of the model in inference mode, for flattened inputs."""
    import keras

    outputs = model(keras.tree.pack_sequence_as(model.input, list(tensors)), training=False)
    flat: list[Any] = keras.tree.flatten(outputs)
    return flat


def _refuse_large_constants(model: keras.Model, *, portable: bool) -> None:
    """Raises ArtifactError where the weights that become constants are more than a graph can hold."""
    constant = _constant_layers(model, portable=portable)
    held = _bytes_of(constant)
    if held > CONSTANTS_LIMIT_BYTES:
        raise ArtifactError(
            f"Fused and int8 layers are constants of the graph, which holds {CONSTANTS_LIMIT_BYTES:,} bytes of them.",
            received=f"the model {model.name!r} with {held:,} bytes in {len(constant)} such layers",
            remedy="Export the model from before kcost optimized it: its weights lie in files of their own.",
        )


def constant_bytes(model: keras.Model, *, portable: bool) -> int:
    """Of the weights that become constants of a graph."""
    return _bytes_of(_constant_layers(model, portable=portable))


def _constant_layers(model: keras.Model, *, portable: bool) -> list[keras.layers.Layer]:
    from kcost.models.keras_private import layers_of

    return [layer for layer in layers_of(model) if _is_constant(layer, portable=portable)]


def _bytes_of(layers: Sequence[keras.layers.Layer]) -> int:
    return sum(int(np.prod(w.shape)) * itemsize(str(w.dtype)) for layer in layers for w in layer.weights)


def _is_constant(layer: keras.layers.Layer, *, portable: bool) -> bool:
    """Whether the weights of a layer become constants of the graph, of its own operations or of public ones alone."""
    from kcost.optimize.forms.layers import QuantizedDense, QuantizedEinsumDense
    from kcost.optimize.forms.short_call import FusedLayer

    if isinstance(layer, QuantizedDense | QuantizedEinsumDense):
        return layer.mode == "static" and not portable
    return isinstance(layer, FusedLayer)


def _with_tables(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that hold a resource of TensorFlow which is no variable: a lookup's table."""
    from tensorflow.saved_model.experimental import TrackableResource

    from kcost.models.keras_private import layers_of

    layers = layers_of(model, itself=False)
    return [layer for layer in layers if any(isinstance(value, TrackableResource) for value in vars(layer).values())]


def operations(folder: Path) -> frozenset[str]:
    """The kinds of operations in the graph of a SavedModel and its functions, such as MatMul."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return frozenset(node.op for node in nodes)


def plain_blocks(model: keras.Model) -> list[tuple[str, str]]:
    """Encoder blocks and chains of convolutions that run in their plain form on this machine, and why."""
    from kcost.models.keras_private import layers_of
    from kcost.optimize.forms.conv_chain import ConvolutionChain
    from kcost.optimize.forms.encoder_block import EncoderBlock

    blocks = [layer for layer in layers_of(model) if isinstance(layer, EncoderBlock | ConvolutionChain)]
    return [(block.path, reason) for block in blocks if (reason := block.fallback_reason) is not None]


def itemsize(dtype: str) -> int:
    """Bytes of a number of a Keras dtype."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize

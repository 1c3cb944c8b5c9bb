"""Writes a SavedModel from a `.keras` file, and inputs with the outputs that the model gives for them.

The SavedModel is built endpoint by endpoint, not with `model.export`: Keras's own export tracks the model too, and
then stores each weight twice (https://github.com/keras-team/keras/issues/23553).
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from kcost.backends.base import Inputs
from kcost.core.artifact import TensorSpec
from kcost.core.errors import ArtifactError, KcostError, StorageError, in_a_line
from kcost.core.export import ExportAnswer, ExportProbe, ExportRequest
from kcost.core.signature import signature_of_structure
from kcost.models.loading import load_keras_file
from kcost.models.probing import Probe, cut, probes, recipe_of
from kcost.models.watched_forward import WatchedForward
from kcost.worker.inputs import read_samples

if TYPE_CHECKING:
    import keras

ENDPOINT = "serving_default"

CONSTANTS_LIMIT_BYTES = (2 << 30) - (64 << 20)
"""A graph is one protocol buffer, of less than 2 GiB; some of it is left to all that is no constant."""

SEED = 0

ROUNDED = ("int8", "uint8", "bfloat16", "float16")
"""Dtypes of weights that tell a model that rounds what it computes."""


class ModelInput(NamedTuple):
    """One input of the model."""

    name: str  # in the signature
    model_name: str  # in the model, and in samples.npz
    shape: tuple[int | None, ...]
    dtype: str
    key: str | None  # in the dictionary that the model takes, if it takes one


class _Probe(NamedTuple):
    """Inputs by name, the model's outputs for them, and, if it rounds, how much they change with its weights."""

    batch: int
    source: Literal["samples", "random"]
    inputs: dict[str, np.ndarray]
    outputs: list[np.ndarray]
    changes: list[float]


def run(request: ExportRequest) -> ExportAnswer:
    """Writes the SavedModel, and a probe for each batch size; `_with_changes` says what `change/NAME` in it is.

    Raises:
        ArtifactError: the file cannot be loaded or exported, or the samples do not fit the model.
        StorageError: the SavedModel cannot be written.
    """
    model = functional_model(load_keras_file(request.keras_file), request.keras_file)
    import keras
    import tensorflow as tf

    inputs = model_inputs(model, request.keras_file)
    names = output_names(model)
    written = []
    for probe in _probes(model, inputs, request):
        file = request.probes / f"batch{probe.batch}.npz"
        named = dict(zip(names, probe.outputs, strict=True))
        np.savez(
            file,
            allow_pickle=False,
            **{f"input/{k}": v for k, v in probe.inputs.items()},
            **{f"output/{k}": v for k, v in named.items()},
            **{f"change/{k}": np.float64(v) for k, v in zip(names, probe.changes, strict=False)},
        )
        free = free_axes(inputs, probe.inputs)
        written.append(ExportProbe(file=file, batch=probe.batch, free_axes=free, source=probe.source))
    write_saved_model(model, inputs, names, str(request.folder), request.portable)
    return ExportAnswer(
        inputs=tuple(TensorSpec(name=i.name, shape=i.shape, dtype=i.dtype) for i in inputs),
        outputs=tuple(
            TensorSpec(name=name, shape=(None, *y.shape[1:]), dtype=keras.backend.standardize_dtype(y.dtype))
            for name, y in zip(names, keras.tree.flatten(model.output), strict=True)
        ),
        probes=tuple(written),
        keras_version=keras.__version__,
        tensorflow_version=tf.__version__,
        weights_bytes=sum(int(np.prod(w.shape)) * _itemsize(w.dtype) for w in model.weights),
        internal_operations=tuple(_internal_operations(request.folder)),
        plain_blocks=tuple(_plain_blocks(model)),
    )


def functional_model(model: keras.Model, path: Path) -> keras.Model:
    """The model as a functional one, which knows its inputs and outputs."""
    import keras

    if isinstance(model, keras.Sequential) and model.built and model.inputs:
        return keras.Model(model.inputs, model.outputs, name=model.name)
    # `output_names` is what tells a functional model; its class is not part of Keras's public API.
    if not getattr(model, "output_names", None):
        raise ArtifactError(
            "A functional or Sequential model that was built can be exported.",
            received=f"{path}, which holds a {type(model).__name__} without inputs of a known shape",
            remedy="Give a Sequential model a keras.Input, wrap another: keras.Model(x, model(x)). Then save it again.",
        )
    return model


def model_inputs(model: keras.Model, path: Path) -> list[ModelInput]:
    """The inputs in the order of the flattened input structure."""
    import keras

    tensors = keras.tree.flatten(model.input)
    for tensor in tensors:
        refused = None
        if tensor.sparse or tensor.ragged:
            refused = "a sparse or ragged input"
        elif tensor.dtype == "string":
            refused = "an input of text"
        elif tensor.shape[0] is not None:
            refused = f"a fixed batch size of {tensor.shape[0]}"
        if refused:
            raise ArtifactError(
                "An exported model takes dense numbers with a free batch axis.",
                received=f"{path}: {tensor.name!r} is {refused}",
                remedy="Build the model with a dense keras.Input without batch_size, and save it again.",
            )
    signature = signature_of_structure(model.input)
    # TensorFlow makes each input a parameter of a Python function, so these names are taken.
    taken = {*keyword.kwlist, "self"}
    names = _endpoint_names([f"tensor_{t.name}" if t.name in taken else t.name for t in tensors])
    return [
        ModelInput(name, t.name, tuple(t.shape), keras.backend.standardize_dtype(t.dtype), signature[t.name].key)
        for name, t in zip(names, tensors, strict=True)
    ]


def output_names(model: keras.Model) -> list[str]:
    """Names of the flattened outputs: the key in a dictionary of outputs, else the layer that gives it."""
    import keras

    paths = [path for path, _ in keras.tree.flatten_with_path(model.output)]
    keys = [[part for part in path if isinstance(part, str)] for path in paths]
    return _endpoint_names([k[-1] if k else layer for k, layer in zip(keys, model.output_names, strict=True)])


def _endpoint_names(names: Sequence[str]) -> list[str]:
    """The names as TensorFlow allows them in a signature: unique, of letters, digits and underscores."""
    found: list[str] = []
    for name in names:
        clean = re.sub(r"\W", "_", name, flags=re.ASCII)
        clean = clean if clean[:1].isalpha() else f"tensor_{clean.lstrip('_')}"
        count = 1
        unique = clean
        while unique in found:
            unique = f"{clean}_{count}"
            count += 1
        found.append(unique)
    return found


def _call(model: keras.Model, tensors: Sequence[Any]) -> list[Any]:
    """The flattened outputs of the model in inference mode, for flattened inputs."""
    import keras

    outputs = model(keras.tree.pack_sequence_as(model.input, list(tensors)), training=False)
    flat: list[Any] = keras.tree.flatten(outputs)
    return flat


def _refuse_large_constants(model: keras.Model) -> None:
    """Raises ArtifactError where the weights of encoder blocks are more than a graph can hold."""
    from kcost.models.keras_private import layers_of
    from kcost.optimize.forms.encoder_block import EncoderBlock

    blocks = [layer for layer in layers_of(model) if isinstance(layer, EncoderBlock)]
    held = sum(int(np.prod(w.shape)) * _itemsize(str(w.dtype)) for block in blocks for w in block.weights)
    if held > CONSTANTS_LIMIT_BYTES:
        raise ArtifactError(
            f"Encoder blocks become constants of the graph, which holds {CONSTANTS_LIMIT_BYTES:,} bytes of them.",
            received=f"the model {model.name!r} with {held:,} bytes in {len(blocks)} encoder blocks",
            remedy="Export the model from before its layers were fused: its weights lie in files of their own.",
        )


def write_saved_model(
    model: keras.Model, inputs: Sequence[ModelInput], output_names: Sequence[str], folder: str, portable: bool
) -> None:
    """Writes the SavedModel with one endpoint, without XLA. Weights of encoder blocks become constants of its graph."""
    import keras
    import tensorflow as tf

    from kcost.backends.kernels.tensorflow_constants import constant_weights

    _refuse_large_constants(model)

    def serve(tensors: dict[str, Any]) -> dict[str, Any]:
        with constant_weights(portable):
            return dict(zip(output_names, _call(model, [tensors[i.name] for i in inputs]), strict=True))

    archive = keras.export.ExportArchive()
    for layer in _with_tables(model):
        archive.track(layer)
    specs = {i.name: tf.TensorSpec(i.shape, i.dtype, name=i.name) for i in inputs}
    try:
        archive.add_endpoint(ENDPOINT, serve, input_signature=[specs])
        archive.write_out(folder, verbose=False)
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


def _with_tables(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that hold a resource of TensorFlow which is no variable: a lookup's table."""
    from tensorflow.saved_model.experimental import TrackableResource

    from kcost.models.keras_private import layers_of

    layers = layers_of(model, itself=False)
    return [layer for layer in layers if any(isinstance(value, TrackableResource) for value in vars(layer).values())]


def _internal_operations(folder: Path) -> list[str]:
    """Operations of the SavedModel that only some builds of TensorFlow have, or can run with int8 weights."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return sorted({node.op for node in nodes if node.op.startswith(("_", "QuantizedConv2D"))})


def _plain_blocks(model: keras.Model) -> list[tuple[str, str]]:
    """Encoder blocks and chains of convolutions that run in their plain form on this machine, and why."""
    from kcost.models.keras_private import layers_of
    from kcost.optimize.forms.conv_chain import ConvolutionChain
    from kcost.optimize.forms.encoder_block import EncoderBlock

    blocks = [layer for layer in layers_of(model) if isinstance(layer, EncoderBlock | ConvolutionChain)]
    return [(block.path, reason) for block in blocks if (reason := block.fallback_reason) is not None]


def _probes(model: keras.Model, inputs: Sequence[ModelInput], request: ExportRequest) -> list[_Probe]:
    """One probe a batch size, of real samples where there are some."""
    file = request.samples
    samples = None if file is None else read_samples(file, signature_of_structure(model.input)).inputs
    given = probes_of(model, request.keras_file, samples, request.batches)
    source: Literal["samples", "random"] = "random" if samples is None else "samples"
    probes = [
        _Probe(batch, source, {i.name: probe.inputs[i.model_name] for i in inputs}, list(probe.outputs), [])
        for batch, probe in zip(request.batches, given, strict=True)
    ]
    return _with_changes(model, inputs, probes) if is_rounded(model) else probes


def probes_of(model: keras.Model, keras_file: Path, samples: Inputs | None, batches: Sequence[int]) -> list[Probe]:
    """The probes of a functional model: of real samples where there are some, else of made-up inputs.

    Raises:
        ArtifactError: the model does not take the samples.
        UnavailableError: no samples, and the model refuses made-up inputs of each length.
    """
    signature = signature_of_structure(model.input)
    forward = WatchedForward(model)
    if samples is None:
        recipe = recipe_of(model)
        return probes(forward, signature, lambda rows, scale: recipe.scaled(scale).make(rows, SEED), batches)
    try:
        return probes(forward, signature, lambda rows, scale: cut(samples, signature, rows, scale), batches)
    except (MemoryError, KcostError):
        raise
    except Exception as error:  # each framework has its own for a shape that does not fit
        raise ArtifactError(
            "A model is checked after its export or conversion, on inputs that it takes.",
            received=f"{keras_file}, which refused its real samples: {in_a_line(error)}",
            remedy="Make the artifact again, or give its .keras file alone.",
        ) from error


def is_rounded(model: keras.Model) -> bool:
    """Whether a model rounds what it computes to int8 or 16 bits."""
    return any(weight.dtype in ROUNDED for weight in model.weights)


def _with_changes(model: keras.Model, inputs: Sequence[ModelInput], probes: Sequence[_Probe]) -> list[_Probe]:
    """The probes with the root mean square of what outputs change when each float32 weight does by up to 1/512 of it.

    That is what rounding to bfloat16 changes. In a model that rounds to int8, a last bit that differs somewhere makes
    whole steps further on, so that two right ways of computing it differ by as much as this.
    """
    import tensorflow as tf

    random = np.random.default_rng(SEED)
    weights = [w for w in model.weights if w.dtype == "float32"]
    before = [np.array(w) for w in weights]
    try:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value * (1 + random.uniform(-1, 1, value.shape).astype(np.float32) / 512))
        outputs = [_call(model, [tf.constant(p.inputs[i.name], i.dtype) for i in inputs]) for p in probes]
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)
    differences = [
        [_to_numpy(y).astype(np.float64) - old for y, old in zip(ys, p.outputs, strict=True)]
        for p, ys in zip(probes, outputs, strict=True)
    ]
    return [
        p._replace(changes=[float(np.sqrt(np.mean(np.square(d)))) for d in found])
        for p, found in zip(probes, differences, strict=True)
    ]


def free_axes(inputs: Sequence[ModelInput], arrays: dict[str, np.ndarray]) -> tuple[int, ...]:
    """The different lengths of the free axes other than the batch, in order."""
    lengths = {
        length
        for i in inputs
        for size, length in zip(i.shape[1:], arrays[i.name].shape[1:], strict=True)
        if size is None
    }
    return tuple(sorted(lengths))


def _to_numpy(tensor: Any) -> np.ndarray:
    """The values; bfloat16, which npz does not know, as float32."""
    array: np.ndarray = tensor.numpy()
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize

"""tensorflow_model_optimization for Keras 3 models of images: pruned or trained for int8 in tf_keras, and brought back.

It knows only Keras 2 (tf_keras), so that the model is made again there layer by layer, with its weights, and checked to
give the same answers. For a tensorflow process alone; Keras 3 goes on beside it undisturbed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import keras
import numpy as np

from kcost.core.errors import InputError, UnavailableError, in_a_line
from kcost.core.prune_spec import BlockPruning, MaskPruning, PatternPruning
from kcost.models.keras_private import graph_of, nodes_of
from kcost.optimize.coverage import Coverage
from kcost.optimize.kernels import copy_of
from kcost.optimize.pruning.pruning import coverage_of
from kcost.optimize.pruning.schedules import Schedule, schedule_of

_BATCH = 32
_CONV = ("kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias")
_POOL = ("pool_size", "strides", "padding")
_SETTINGS: dict[str, tuple[str, ...]] = {
    "Conv2D": ("filters", "groups", *_CONV),
    "DepthwiseConv2D": ("depth_multiplier", *_CONV),
    "Dense": ("units", "activation", "use_bias"),
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale"),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Activation": ("activation",),
    "Softmax": ("axis",),
    "MaxPooling2D": _POOL,
    "AveragePooling2D": _POOL,
    "GlobalAveragePooling2D": ("keepdims",),
    "GlobalMaxPooling2D": ("keepdims",),
    "ZeroPadding2D": ("padding",),
    "Flatten": (),
    "Reshape": ("target_shape",),
    "Dropout": ("rate",),
    "Add": (),
    "Concatenate": ("axis",),
}
"""Layers that mean the same in tf_keras, and the settings that say what they compute."""


@dataclass(frozen=True)
class Training:
    """How a model is trained in tf_keras: Adam on cross-entropy over integer labels.

    `x` is what the model takes, with a leading axis of examples; `y` their labels, integers of shape (examples,).
    """

    x: np.ndarray
    y: np.ndarray
    from_logits: bool = False
    epochs: int = 1
    batch_size: int = _BATCH
    learning_rate: float = 1e-4
    seed: int = 0

    @property
    def total_steps(self) -> int:
        """Optimizer steps in all epochs."""
        return self.epochs * -(-len(self.x) // self.batch_size)


def prune_in_tfmot(model: keras.Model, spec: MaskPruning, training: Training) -> tuple[keras.Model, Coverage]:
    """A copy of a model, pruned by tensorflow_model_optimization while it is trained.

    Raises:
        UnavailableError: not a tensorflow process, something is not installed, or a layer cannot be made in tf_keras.
        InputError: the spec asks for what TFMOT does not have.
    """
    if spec.importance == "taylor" or getattr(spec, "scope", "layer") == "global":
        raise InputError("TFMOT prunes by magnitude, layer by layer.", spec, "Leave importance and global out.")
    _, tfmot = _modules()
    arguments: dict[str, Any] = {"pruning_schedule": _schedule(tfmot, schedule_of(spec, training.total_steps))}
    if isinstance(spec, PatternPruning):
        arguments["sparsity_m_by_n"] = (spec.group - spec.kept, spec.group)
    if isinstance(spec, BlockPruning):
        arguments |= {"block_size": (spec.height, spec.width), "block_pooling_type": spec.pooling.upper()}
    pruned = tfmot.sparsity.keras.prune_low_magnitude(in_tf_keras(model), **arguments)
    _train(pruned, training, [tfmot.sparsity.keras.UpdatePruningStep()])
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    back = _brought_back(model, lambda name: [np.asarray(w) for w in stripped.get_layer(name).get_weights()])
    return back, coverage_of(back, spec)


def train_for_int8(model: keras.Model, training: Training) -> tuple[keras.Model, bytes]:
    """Quantization-aware training by tensorflow_model_optimization.

    Returns:
        A copy of the model with the trained float weights, and the LiteRT file (.tflite) of the trained model, whose
        weights, activations, inputs and outputs are int8.

    Raises:
        UnavailableError: as `prune_in_tfmot` says, or TFMOT or the converter cannot quantize the model.
    """
    _, tfmot = _modules()
    try:
        aware = tfmot.quantization.keras.quantize_model(in_tf_keras(model))
    except (ValueError, RuntimeError) as error:
        raise _not_in_int8(model, error) from error
    _train(aware, training, [])
    values = {v.name: v.numpy() for v in aware.weights}

    def trained(name: str) -> list[np.ndarray]:
        return [_named(values, name, v.name) for v in model.get_layer(name).weights]

    return _brought_back(model, trained), _tflite(aware, None)


def full_int8(model: keras.Model, samples: np.ndarray) -> bytes:
    """A LiteRT file (.tflite) of a model quantized after training: weights, activations, inputs and outputs are int8.

    Args:
        samples: inputs that the ranges of activations are measured on, with a leading axis of examples.

    Raises:
        UnavailableError: as `train_for_int8` says.
    """
    return _tflite(in_tf_keras(model), samples)


def in_tf_keras(model: keras.Model) -> Any:
    """The model made again in tf_keras, with its weights; it gives the same answers.

    Raises:
        UnavailableError: not a tensorflow process, tf_keras is not installed, or a layer cannot be made there.
    """
    tf_keras, _ = _modules()
    graph = graph_of(model)
    if graph is None or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise _refused(
            model.name, type(model).__name__, "it is no functional or Sequential model of one input and output"
        )
    (given,) = graph.inputs
    first = tf_keras.Input(given.shape[1:], dtype=given.dtype, name=given.name)
    tensors = {id(given): first}
    made: dict[str, Any] = {}
    for node in nodes_of(graph):
        if isinstance(node.operation, keras.layers.InputLayer):
            continue
        layer = node.operation
        if layer.name not in made:
            made[layer.name] = _made(tf_keras, layer)
        inputs = [tensors[id(tensor)] for tensor in node.input_tensors]
        tensors[id(node.output_tensors[0])] = made[layer.name](inputs[0] if len(inputs) == 1 else inputs)
    rebuilt = tf_keras.Model(first, tensors[id(graph.outputs[0])], name=model.name)
    for name, layer in made.items():
        layer.set_weights(model.get_layer(name).get_weights())
    _check(model, rebuilt)
    return rebuilt


def _made(tf_keras: ModuleType, layer: Any) -> Any:
    """A layer in tf_keras, without its weights."""
    kind = type(layer).__name__
    if kind not in _SETTINGS or type(layer).__module__.split(".")[0] != "keras":
        raise _refused(layer.name, kind, f"of the kinds of layers it knows {', '.join(_SETTINGS)}")
    config = layer.get_config()
    if config.get("data_format") == "channels_first":
        raise _refused(layer.name, kind, "its channels come first")
    if layer.dtype_policy.name != "float32":
        raise _refused(layer.name, kind, f"its dtype policy is {layer.dtype_policy.name}, not float32")
    for name, value in config.items():
        if value is not None and (name.endswith("_regularizer") or name.endswith("_constraint")):
            raise _refused(layer.name, kind, f"it has a {name}")
    settings = {name: config[name] for name in _SETTINGS[kind]}
    if not isinstance(settings.get("activation", ""), str):
        raise _refused(layer.name, kind, "its activation is a function of somebody's own")
    try:
        return getattr(tf_keras.layers, kind)(name=layer.name, **settings)
    except (ValueError, TypeError) as error:
        raise _refused(layer.name, kind, in_a_line(error)) from error


def _check(model: keras.Model, rebuilt: Any) -> None:
    (given,) = model.inputs
    shape = (2, *(size or 8 for size in given.shape[1:]))
    x = np.random.default_rng(0).uniform(size=shape).astype(given.dtype)
    ours, theirs = np.asarray(model(x, training=False)), np.asarray(rebuilt(x, training=False))
    difference = float(np.abs(ours - theirs).max())
    if difference > 1e-4 * max(1.0, float(np.abs(ours).max())):
        raise _refused(model.name, type(model).__name__, f"its answers differ there by {difference:.1e}")


def _brought_back(model: keras.Model, weights_of: Callable[[str], list[np.ndarray]]) -> keras.Model:
    copy = copy_of(model)
    for layer in copy.layers:
        if layer.weights:
            layer.set_weights(weights_of(layer.name))
    return copy


def _named(values: dict[str, np.ndarray], layer: str, weight: str) -> np.ndarray:
    """A layer's weight among those of a model whose layers TFMOT has wrapped: it keeps their variables' names."""
    names = {"kernel": ("kernel", "depthwise_kernel")}.get(weight, (weight,))
    named = [v for n, v in values.items() if n.removesuffix(":0").split("/")[-2:] in [[layer, name] for name in names]]
    if len(named) != 1:
        raise _refused(layer, "layer", f"TFMOT gives {len(named)} variables for its {weight}")
    return named[0]


def _train(model: Any, training: Training, callbacks: list[Any]) -> None:
    tf_keras, _ = _modules()
    tf_keras.utils.set_random_seed(training.seed)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=training.from_logits)
    model.compile(tf_keras.optimizers.Adam(training.learning_rate), loss)
    settings = {"batch_size": training.batch_size, "epochs": training.epochs, "verbose": 0}
    model.fit(training.x, training.y, callbacks=callbacks, **settings)


def _schedule(tfmot: ModuleType, schedule: Schedule) -> Any:
    steps = {"begin_step": schedule.begin_step, "end_step": schedule.end_step, "frequency": schedule.frequency}
    if schedule.initial == schedule.final:
        return tfmot.sparsity.keras.ConstantSparsity(schedule.final, **steps)
    return tfmot.sparsity.keras.PolynomialDecay(schedule.initial, schedule.final, power=schedule.power, **steps)


def _tflite(model: Any, samples: np.ndarray | None) -> bytes:
    """Converts a tf_keras model; `samples` None where it was trained for int8 and holds the ranges itself."""
    import tensorflow as tf

    (given,) = model.inputs
    function = tf.function(lambda x: model(x, training=False))
    one = function.get_concrete_function(tf.TensorSpec((1, *given.shape[1:]), given.dtype))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([one], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if samples is not None:
        converter.representative_dataset = lambda: ([x[None].astype(np.float32)] for x in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        return bytes(converter.convert())
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise _not_in_int8(model, error) from error


def _modules() -> tuple[ModuleType, ModuleType]:
    """tf_keras and tensorflow_model_optimization."""
    if keras.backend.backend() != "tensorflow":
        raise UnavailableError(
            "tensorflow_model_optimization runs in a tensorflow process.",
            received=keras.backend.backend(),
            remedy="Set KERAS_BACKEND=tensorflow; the model may come from any backend.",
        )
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization as tfmot
        import tf_keras
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "Pruning and quantization-aware training in TFMOT need it and tf_keras.",
            received=f"an environment without {error.name}",
            remedy="Install them: pip install tensorflow-model-optimization tf_keras",
        ) from error
    finally:
        # TFMOT sets it on import; processes started from here are to have Keras 3.
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
        if before is not None:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tf_keras, tfmot


def _refused(name: str, kind: str, reason: str) -> UnavailableError:
    return UnavailableError(
        "A model is made again in tf_keras layer by layer.",
        received=f"the {kind} {name!r}: {reason}",
        remedy="Use kcost's own pruning and int8, which take any Keras 3 model, or replace that layer.",
    )


def _not_in_int8(model: Any, error: Exception) -> UnavailableError:
    return UnavailableError(
        "A model is brought to full int8 where TFMOT and LiteRT know each of its layers.",
        received=f"{model.name}: {in_a_line(error)}",
        remedy="Use kcost's own int8, which takes any Keras 3 model, or replace that layer.",
    )

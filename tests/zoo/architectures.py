"""Whole architectures in their smallest forms, with random weights: keras.applications and keras_nlp's backbones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from .specimens import ROWS, Specimen

FAMILIES = {
    "convnext": "ConvNeXtTiny",
    "densenet": "DenseNet121",
    "efficientnet": "EfficientNetB0",
    "efficientnet_v2": "EfficientNetV2B0",
    "inception_resnet_v2": "InceptionResNetV2",
    "inception_v3": "InceptionV3",
    "mobilenet": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3": "MobileNetV3Small",
    "nasnet": "NASNetMobile",
    "resnet": "ResNet50",
    "resnet_v2": "ResNet50V2",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "xception": "Xception",
}
"""Module of keras.applications -> its smallest model."""

NO_FAMILIES = {"imagenet_utils", "resnet50"}
"""Modules of keras.applications with no model, or with another module's."""

MIXTURES = {"MixtralBackbone"}
"""Backbones that rounding takes further than others: their router chooses among experts."""

NOT_ON = {"torch": {"nasnet"}}
"""Backend -> modules that Keras itself refuses to make there."""

SIDES = (32, 71, 75)
"""Sides of square images in pixels: the first that a model takes."""

SIZES: dict[str, Any] = {
    "embedding_dim": 8,
    "head_dim": 8,
    "head_size": 8,
    "hidden_dim": 16,
    "intermediate_dim": 24,
    "max_sequence_length": 32,
    "moe_intermediate_dim": 16,
    "num_attention_heads": 2,
    "num_experts": 2,
    "num_heads": 2,
    "num_key_value_heads": 1,
    "num_layers": 2,
    "num_query_heads": 2,
    "shared_expert_intermediate_dim": 16,
    "top_k": 1,
    "vocab_size": 30,
    "vocabulary_size": 30,
}
"""Arguments of a backbone, by name. One that needs others is no encoder of texts, and is left out."""

LENGTH = 12


def application(family: str) -> Specimen:
    """The smallest model of a module of keras.applications, with logits of ten classes."""
    make = getattr(keras.applications, FAMILIES[family])
    given = {"weights": None, "classes": 10, "classifier_activation": None}
    for side in SIDES:
        try:
            model = make(input_shape=(side, side, 3), **given)
            break
        except ValueError as error:
            refusal = error
    else:
        raise refusal
    images = np.random.default_rng(1).integers(0, 256, (ROWS, side, side, 3)).astype(np.float32)
    return _specimen(model, {model.inputs[0].name: images})


def backbones() -> dict[str, Callable[[], keras.Model]]:
    """Every backbone of keras_nlp whose required arguments are sizes of texts, by name."""
    import keras_nlp

    makers = {}
    for name, kind in inspect.getmembers(keras_nlp.models, inspect.isclass):
        parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
        named = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        required = {p.name for p in named if p.default is p.empty}
        if name.endswith("Backbone") and "num_layers" in required and required <= SIZES.keys():
            given = {p.name: SIZES[p.name] for p in named if p.name in SIZES}
            makers[name] = lambda kind=kind, given=given: kind(**given)
    return makers


def backbone(name: str) -> Specimen:
    """A tiny backbone, and texts of LENGTH tokens."""
    model = backbones()[name]()
    rng = np.random.default_rng(2)
    inputs = {}
    for tensor in keras.tree.flatten(model.input):
        shape = (ROWS, *(LENGTH if size is None else size for size in tensor.shape[1:]))
        if "mask" in tensor.name:
            mask = np.ones(shape, tensor.dtype)
            mask[1:, LENGTH - 3 :] = 0
            inputs[tensor.name] = mask
        elif "int" in tensor.dtype:
            below = 2 if "segment" in tensor.name else SIZES["vocabulary_size"]
            inputs[tensor.name] = rng.integers(0, below, shape).astype(tensor.dtype)
        else:
            inputs[tensor.name] = rng.normal(size=shape).astype(np.float32)
    return _specimen(model, inputs)


def _specimen(model: keras.Model, inputs: dict[str, np.ndarray]) -> Specimen:
    """With biases, scales and statistics a little off the defaults: random kernels of many layers stay as they are."""
    rng = np.random.default_rng(3)
    for variable in model.variables:
        if "float" in variable.dtype and len(variable.shape) == 1:
            variable.assign(keras.ops.convert_to_numpy(variable) + np.abs(rng.normal(0, 0.05, variable.shape)))
    layers = [
        layer for layer in model._flatten_layers(include_self=False) if not isinstance(layer, keras.layers.InputLayer)
    ]
    names = {name for layer in layers for name in (layer.name, type(layer).__name__)}
    return Specimen(tuple(sorted(names)), model, inputs)

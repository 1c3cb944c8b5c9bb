"""Five models as users bring them, for `recommend_own.py`: weights as Keras draws them, data that are made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.recommend_models import resnet20

PACKAGE = "recommend_own"
CLASSES = 10
ROWS = {"train": 512, "test": 384}
"""More test rows than a cell answers."""


@keras.saving.register_keras_serializable(package=PACKAGE)
class Scale(keras.layers.Layer):
    """A layer of a user's own: a factor for each channel. From (..., channels) to the same shape, float32."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factor")
        self.built = True

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor


@keras.saving.register_keras_serializable(package=PACKAGE)
class TwoLayers(keras.Model):
    """A subclassed model: from (batch, 32), float32, to probabilities (batch, 10), float32."""

    def __init__(self, units: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.answer = keras.layers.Dense(CLASSES, activation="softmax")

    def call(self, inputs: Any) -> Any:
        return self.answer(self.hidden(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def resnet() -> keras.Model:
    """A functional model with residual connections: the ResNet of 20 layers."""
    return resnet20()


def subclassed() -> keras.Model:
    model = TwoLayers(name="subclassed")
    model(np.zeros((1, 32), np.float32))
    return model


def mobilenet() -> keras.Model:
    """MobileNetV3Small of keras.applications as it stands: from (batch, 224, 224, 3), 0 to 255, to 1,000 classes."""
    return keras.applications.MobileNetV3Small(weights=None, name="mobilenet")


def two_inputs() -> keras.Model:
    image = keras.Input((28, 28, 1), name="image")
    numbers = keras.Input((6,), name="numbers")
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(image)
    x = keras.layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(x), keras.layers.Dense(16)(numbers)])
    return keras.Model([image, numbers], keras.layers.Dense(CLASSES, activation="softmax")(joined), name="two-inputs")


def own_class() -> keras.Model:
    inputs = keras.Input((32,), name="features")
    x = Scale(name="scale")(keras.layers.Dense(128, activation="relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(x), name="own-class")


OWN: dict[str, Callable[[], keras.Model]] = {
    "resnet": resnet,
    "subclassed": subclassed,
    "mobilenet": mobilenet,
    "two-inputs": two_inputs,
    "own-class": own_class,
}


def arrays_of(name: str) -> dict[str, np.ndarray]:
    """Made-up data of a model in the form of docs/data.md: labels are drawn, too.

    Returns:
        x_train, y_train, x_test and y_test, or x_train/NAME for each input; features float32, labels int64.
    """
    rng = np.random.default_rng(0)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "resnet": {"": (32, 32, 3)},
        "subclassed": {"": (32,)},
        "mobilenet": {"": (224, 224, 3)},
        "two-inputs": {"image": (28, 28, 1), "numbers": (6,)},
        "own-class": {"": (32,)},
    }
    arrays: dict[str, np.ndarray] = {}
    for part, rows in ROWS.items():
        # MobileNetV3's images are large: as many as a cell answers are enough.
        count = rows if name != "mobilenet" else min(rows, 256)
        for own, shape in shapes[name].items():
            drawn = rng.random((count, *shape), np.float32)
            arrays[f"x_{part}/{own}" if own else f"x_{part}"] = drawn if len(shape) == 3 else drawn * 2 - 1
        arrays[f"y_{part}"] = rng.integers(0, CLASSES, count)
    return arrays

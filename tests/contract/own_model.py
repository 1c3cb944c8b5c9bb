"""A model of somebody's own, which a kept file names."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="own")
class OwnModel(keras.Model):  # type: ignore[misc]  # keras is not read by the type checker
    """Two dense layers without a graph."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(8, activation="relu", name="hidden")
        self.last = keras.layers.Dense(2, name="last")

    def call(self, inputs: Any) -> Any:
        return self.last(self.hidden(inputs))

# ruff: noqa: D102  # what Keras itself calls is described in keras.layers.Layer
"""Layer norms of a model that is for inference alone, so that a backend may run each as one operation."""

from __future__ import annotations

from typing import Any, Self

import keras

from kcost.backends import driver
from kcost.optimize.forms.short_call import LeanLayer


@keras.saving.register_keras_serializable(package="kcost")
class InferenceLayerNormalization(LeanLayer, keras.layers.LayerNormalization):  # type: ignore[misc]  # Keras is not read by the type checker
    """Keras's LayerNormalization over the last axis, with scale and offset, in float32, which is not trained.

    Inputs (..., width), outputs of that shape. In a graph of TensorFlow for inference it is one operation of oneDNN,
    where the machine has it, without gradients; everywhere else it is Keras's own.
    """

    @classmethod
    def of(cls, layer: keras.layers.LayerNormalization) -> Self | None:
        """The form of a built norm, with its weights; None for one of other axes, other parts or another dtype."""
        whole = layer.gamma is not None and layer.beta is not None and not layer.rms_scaling
        if not whole or list(layer.axis) != [-1] or layer.dtype_policy.name != "float32":
            return None
        made: Self = cls.from_config({**layer.get_config(), "trainable": False})
        made.build((None, *layer.gamma.shape))
        made.gamma.assign(layer.gamma)
        made.beta.assign(layer.beta)
        return made

    def call(self, inputs: Any) -> Any:
        if self.dtype_policy.name != "float32":  # as of a model that was given another precision since
            return super().call(inputs)
        backend = driver(keras.backend.backend())
        fused = backend.fused_layer_norm(inputs, self.gamma.value, self.beta.value, self.epsilon)
        return super().call(inputs) if fused is None else fused

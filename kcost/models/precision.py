"""What the layers of a model compute in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import keras


class LayerDtypes(NamedTuple):
    """What a layer computes in."""

    path: str
    compute: str
    is_fixed: bool
    """Whether it is the layer's kind that says what it computes in, whatever its policy."""


def computed_dtypes(model: keras.Model) -> list[LayerDtypes]:
    """The dtypes of every layer that holds no other. Layers without floats have an integer or string dtype here."""
    import keras

    return [
        LayerDtypes(layer.path, layer.compute_dtype, False)
        for layer in model._flatten_layers()
        if not isinstance(layer, keras.Model | keras.layers.InputLayer)
    ]

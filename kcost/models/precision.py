"""What the layers of a model compute in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def computed_dtypes(model: keras.Model) -> tuple[str, ...]:
    """The floating-point dtypes that the layers of a model compute in, sorted, each once."""
    import keras

    layers = [
        layer
        for layer in model._flatten_layers()
        if not isinstance(layer, keras.Model | keras.layers.InputLayer) and "float" in layer.compute_dtype
    ]
    return tuple(sorted({layer.compute_dtype for layer in layers}))

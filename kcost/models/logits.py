"""The logits of a model that answers with probabilities: what its softmax is given."""

from __future__ import annotations

import keras


def before_softmax(model: keras.Model, place: int) -> keras.Model | None:
    """A model over the same layers that gives what the softmax of an output is given; None where none is seen.

    The layers are shared: where the softmax is the activation of a layer, that layer answers with logits from now on,
    in the model itself as well.

    Args:
        model: functional or Sequential.
        place: of the output among the model's outputs.

    Examples:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
        >>> before_softmax(model, 0).layers[-1].activation.__name__
        'linear'
    """
    outputs = getattr(model, "outputs", None)
    if not outputs:
        return None
    last = next((layer for layer in reversed(model.layers) if _gives(layer, outputs[place])), None)
    if last is None:
        return None
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input  # a Sequential has no `input`
    if isinstance(last, keras.layers.Softmax):
        return keras.Model(inputs, last.input)
    if getattr(last, "activation", None) is not keras.activations.softmax:
        return None
    last.activation = keras.activations.linear
    return keras.Model(inputs, outputs[place])


def _gives(layer: keras.layers.Layer, tensor: keras.KerasTensor) -> bool:
    try:
        return layer.output is tensor
    except (AttributeError, ValueError):  # called more than once, or not at all: it has no one output
        return False

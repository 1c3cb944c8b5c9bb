"""A call of a model as a function of its state, as a compiled program of jax needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def answers_with(model: Any, trainable: Sequence[Any], others: Sequence[Any], inputs: Any) -> Any:
    """What a model answers in inference with the given values of its variables, which stay as they were.

    Keras's `stateless_call` goes to the method `call` at once: it hands `training` to one that takes none, and leaves
    out what `model(x)` does around it, such as casting inputs to the model's dtype.

    Args:
        model: a built keras model or layer.
        trainable: a tensor for each of its trainable variables, in their order.
        others: a tensor for each of its other variables, in their order.
        inputs: in the structure that it takes.
    """
    variables = (*model.trainable_variables, *model.non_trainable_variables)
    with keras.StatelessScope(state_mapping=list(zip(variables, (*trainable, *others), strict=True))):
        return model(inputs, training=False)

"""From the model that was trained back to the model as it was built."""

from __future__ import annotations

from typing import Any

import keras

from kcost.core.errors import UnavailableError
from kcost.models.comparing import DifferentError, check_copy
from kcost.models.copying import StateError, carry_state, from_config, refuse_unset, without_initializers
from kcost.models.keras_private import layers_of


def copy_weights(trained: keras.Model, plain: keras.Model) -> keras.Model:
    """A fresh copy of `plain` with the weights of `trained`, low-rank updates merged into them.

    `plain` may be `trained` itself: what compiling and freezing left on it does not come along.

    Raises:
        UnavailableError: `plain` can't be made again from its config, or the copy gives other outputs than `trained`.
    """
    try:
        with without_initializers() as unset:
            fresh: keras.Model = from_config(plain, _without_training_state)
            carry_state(trained, fresh)
            refuse_unset(unset, fresh)
        if _computes_alike(trained, fresh):
            check_copy(trained, fresh)
    except (StateError, DifferentError) as error:
        raise UnavailableError(
            "A trained model is made again as it was built, and gives the outputs that it was trained to give.",
            received=str(error),
            remedy="Give the layer's class get_config, save_own_variables and load_own_variables that hold all of it.",
        ) from error
    return fresh


def _computes_alike(trained: keras.Model, fresh: keras.Model) -> bool:
    """Whether both have the same layers at the same precision: low-rank updates merge with a rounding of their own."""
    ours, theirs = ([(type(x), x.dtype_policy.name) for x in layers_of(m)] for m in (trained, fresh))
    return ours == theirs and not any(getattr(layer, "lora_enabled", False) for layer in layers_of(trained))


def _without_training_state(config: Any) -> Any:
    if isinstance(config, dict):
        return {
            key: True if key == "trainable" else _without_training_state(value)
            for key, value in config.items()
            if key not in ("lora_rank", "lora_alpha")
        }
    if isinstance(config, list | tuple):
        return type(config)(_without_training_state(value) for value in config)
    return config

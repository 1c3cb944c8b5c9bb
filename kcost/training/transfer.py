"""From the model that was trained back to the model as it was built."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras


def copy_weights(trained: keras.Model, plain: keras.Model) -> keras.Model:
    """A fresh copy of `plain` with the weights of `trained`, low-rank updates merged into them.

    `plain` may be `trained` itself: what compiling and freezing left on it does not come along.
    """
    fresh = plain.__class__.from_config(_without_training_state(plain.get_config()))
    with tempfile.TemporaryDirectory(prefix="kcost-weights-") as folder:
        # Keras's weight files are where low-rank updates are merged.
        path = Path(folder) / "model.weights.h5"
        trained.save_weights(path)
        fresh.load_weights(path)
    return fresh


def _without_training_state(config: object) -> object:
    if isinstance(config, dict):
        return {
            key: True if key == "trainable" else _without_training_state(value)
            for key, value in config.items()
            if key not in ("lora_rank", "lora_alpha")
        }
    if isinstance(config, list | tuple):
        return type(config)(_without_training_state(value) for value in config)
    return config

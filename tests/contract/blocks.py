"""Encoder blocks with random weights, and their inputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kcost.backends.block_spec import BlockSpec
from kcost.optimize.forms.encoder_block import EncoderBlock

WIDTH, INNER, HEADS = 64, 96, 4


def numpy(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))


def inputs(batch: int = 3, time: int = 9, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, time, width)).astype("float32")
    lengths = np.linspace(time, 1, batch).astype(int)[:, None]
    return x, (np.arange(time) < lengths).astype("int32")


def block(spec: BlockSpec | None = None) -> EncoderBlock:
    spec = spec or BlockSpec(WIDTH, HEADS, 16, INNER, "gelu", norm_first=False)
    made = EncoderBlock(spec)
    made.build()
    return made

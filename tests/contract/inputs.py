"""Inputs of the models that tests make."""

from __future__ import annotations

import numpy as np

from kcost.models.bert import INPUT_NAMES


def token_inputs(batch: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 50, (batch, length)).astype("int32")
    mask = (np.arange(length) < rng.integers(3, length + 1, (batch, 1))).astype("int32")
    return dict(zip(INPUT_NAMES, (ids, np.zeros_like(ids), mask), strict=True))

"""References of models that do not exist, for what watches traffic."""

from __future__ import annotations

from typing import Any

import numpy as np

from kcost.risk.drift_reference import Reading, Reference, features_of
from kcost.risk.drift_usd import bands_of


def made_up_reference(
    model: str,
    label_names: tuple[str, ...],
    reading: Reading,
    outputs: dict[str, Any],
    inputs: dict[str, Any],
    right: np.ndarray,
) -> Reference:
    """A reference whose features are these.

    Args:
        outputs, inputs: name of a feature -> its values, shape (rows,); `confidence` is among the outputs.
        right: whether each answer is right, shape (rows,), bool.
    """
    return Reference(
        model=model,
        model_sha256="0",
        dataset="d",
        split="test",
        rows=len(right),
        unit="rows",
        label_names=label_names,
        reading=reading,
        features=features_of({"output": outputs, "input": inputs}),
        bands=bands_of(outputs["confidence"], right),
    )

"""What can be told of before a framework starts."""

from __future__ import annotations

from pathlib import Path

from kcost.core.artifact import Model, refuse_existing
from kcost.core.keras_file import inspect_keras_file
from kcost.core.plan import BACKENDS, Backend


def refuse_before_training(data: str, out: Path) -> None:
    """Raises where there are no such data, or the output folder is taken."""
    from kcost.data import refuse_unknown

    refuse_unknown(data)
    refuse_existing(out)


def refuse_before_scoring(model: Model, data: str | None, backend: Backend) -> None:
    """Raises where the model is one that is never loaded, or the data are not there."""
    from kcost.data import chosen

    chosen(model, data)
    if backend in BACKENDS:
        inspect_keras_file(model.keras_file)

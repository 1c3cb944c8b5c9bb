"""Verbs that bring a model to where it is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kcost.core.artifact import open_model
from kcost.core.keras_file import inspect_keras_file

if TYPE_CHECKING:
    from kcost.ship.export import ExportReport
    from kcost.ship.huggingface import CheckpointReport


def export(
    model: Path | str,
    out: Path | str,
    *,
    name: str,
    version: int = 1,
    portable: bool = False,
    calibrated: bool = False,
    risk: Path | str | None = None,
) -> ExportReport:
    """Writes a TensorFlow Serving model base path and checks it with TensorFlow's own C++ loader.

    Args:
        portable: keep to public operations, for a server of another build or CPU; int8 blocks are slower then.
        calibrated: put the probabilities at the temperature that `assess_risk` fitted for this model.
        risk: the folder of that report, where it was given another.

    Raises:
        InputError: `calibrated`, and there is no report of this very model, or no temperature does best.
        UnavailableError: tensorflow is not installed.
        GateError: the saved model does not answer as the artifact does. Nothing is left behind.
        StorageError: the version is there already, or the folder cannot be written to.

    Examples:
        >>> report = kcost.export("digits-cnn", "serving", name="digits")
        >>> report.version
        1
    """
    from kcost.ship.export import export as export_model

    opened = open_model(model)
    temperature = None
    if calibrated:
        from kcost.api.risk_predictions import temperature_of

        temperature = temperature_of(opened, risk)
    inspect_keras_file(opened.keras_file)
    return export_model(opened, Path(out), name, version, portable=portable, temperature=temperature)


def export_huggingface(model: Path | str, out: Path | str) -> CheckpointReport:
    """Writes a trained bert as a Hugging Face folder that transformers loads.

    Raises:
        ArtifactError: the model is no bert that kcost trained.
        StorageError: `out` holds something already, or cannot be written to.
    """
    from kcost.ship.huggingface import export_checkpoint

    return export_checkpoint(open_model(model), Path(out))

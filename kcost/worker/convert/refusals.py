"""Why a conversion cannot be made: a package is missing, or the converter does not take the model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from kcost.core.errors import ArtifactError, UnavailableError, in_a_line


def need(module: str, extra: str) -> None:
    """Raises UnavailableError where a package of a converter is not installed. Imports nothing."""
    if importlib.util.find_spec(module) is None:
        raise UnavailableError(
            f"This conversion needs the package {module}.",
            received="an environment without it",
            remedy=f"Install it: pip install 'kcost[{extra}]'",
        )


def refused(path: Path, runtime: str, error: BaseException) -> ArtifactError:
    """The error for a model that a converter does not take, with the converter's reason."""
    return ArtifactError(
        f"The converter to {runtime} knows each operation of the model.",
        received=f"{path}: {in_a_line(error)}",
        remedy="Measure the model on its Keras backends, or change the layer that the reason names.",
    )

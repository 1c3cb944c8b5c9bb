"""Writes the model of a function, or of a BERT folder, as a `.keras` file."""

from __future__ import annotations

from kcost.core.request import BuildAnswer, BuildRequest
from kcost.models.factory import write_keras_file


def run(request: BuildRequest) -> BuildAnswer:
    """Builds and saves. Raises as `write_keras_file` does."""
    write_keras_file(request.source, request.file)
    return BuildAnswer()

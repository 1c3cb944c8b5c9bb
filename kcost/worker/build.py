"""Writes the model of a function, or of a BERT folder, as a `.keras` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kcost.models.factory import write_keras_file


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Builds and saves; the request holds `source` and `file`. Raises as `write_keras_file` does."""
    write_keras_file(request["source"], Path(request["file"]))
    return {}

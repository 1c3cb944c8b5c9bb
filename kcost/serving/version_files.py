"""Which files of a version's folder a runtime serves, and which of them tell that the version has changed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kcost.core.conversion import FILE_NAMES, INDEX_FILE, Runtime

SAVED_MODEL_FILE = "saved_model.pb"
SUFFIXES: dict[Runtime, str] = {"litert": ".tflite", "onnx": ".onnx", "openvino": ".xml"}
"""Of files that are no version by themselves, as they do not say their signature: what is told of them is an error."""


class VersionFiles(NamedTuple):
    """What is served of a version's folder."""

    folder: Path
    """That a SavedModel is opened in; else with conversion.json."""
    marker: Path
    """The file whose change says that the version has changed."""


def version_files(folder: Path, runtime: Runtime) -> VersionFiles | None:
    """What a runtime serves of a version's folder; None where the folder is no version for it.

    A SavedModel lies in the folder itself. A converted model lies in a folder below that is named as its runtime, as
    `kcost export --to` writes it beside the SavedModel, or in the folder itself.
    """
    if runtime == "saved_model" and (folder / SAVED_MODEL_FILE).is_file():
        return VersionFiles(folder, folder / SAVED_MODEL_FILE)
    places = (folder / runtime, folder)
    for place in places:
        if (place / INDEX_FILE).is_file() and (place / FILE_NAMES[runtime]).exists():
            opened = place / FILE_NAMES[runtime] if runtime == "saved_model" else place
            return VersionFiles(opened, place / INDEX_FILE)
    for place in places if runtime in SUFFIXES else ():
        bare = next(iter(sorted(place.glob(f"*{SUFFIXES[runtime]}"))), None)
        if bare is not None:
            return VersionFiles(place, bare)
    return None


def layout(runtime: Runtime) -> str:
    """Where a runtime looks for a version, for a message."""
    if runtime == "saved_model":
        return f"DIR/NAME/VERSION/{SAVED_MODEL_FILE}"
    return f"DIR/NAME/VERSION/{runtime}/{INDEX_FILE} with {FILE_NAMES[runtime]} beside it"


def how_to_make(runtime: Runtime) -> str:
    """The command that writes a version, for a message."""
    to = "" if runtime == "saved_model" else f" --to {runtime}"
    return f"kcost export ARTIFACT --out DIR --name NAME{to}"

"""A `.keras` file from a model that is given as module:function or as a Hugging Face BERT folder; the parent's side."""

from __future__ import annotations

from pathlib import Path

from kcost.core.artifact import INDEX_FILE, new_folder
from kcost.core.jobs import BUILD
from kcost.core.plan import MODULE_FUNCTION
from kcost.core.process import chosen_backend, run_job
from kcost.core.request import BuildRequest

CONFIG_FILE = "config.json"


def needs_building(source: str) -> bool:
    """Whether a model is given as module:function or as a checkpoint's folder, and not as a file that kcost opens."""
    path = Path(source)
    if path.is_dir():
        return (path / CONFIG_FILE).is_file() and not (path / INDEX_FILE).is_file()
    return not path.exists() and path.suffix != ".keras" and MODULE_FUNCTION.fullmatch(source) is not None


def build(source: str, folder: Path, *, log: Path | None = None) -> Path:
    """Builds the model and returns its `.keras` file, alone in the new folder `folder`, named after the source.

    Raises:
        InputError: the function is not there, raises, or returns no built model.
        ArtifactError: the folder holds no BERT, or the model cannot be loaded without code of its own.
        StorageError: `folder` holds something already, or cannot be written to.
        UnavailableError: no backend is installed.
    """
    path = Path(source)
    name = path.resolve().name if path.is_dir() else source.rpartition(":")[2]
    backend = chosen_backend()
    with new_folder(Path(folder)) as draft:
        source = str(path.absolute()) if path.is_dir() else source
        run_job(BUILD, backend, BuildRequest(source=source, file=draft.absolute() / f"{name}.keras"), log=log)
    return Path(folder) / f"{name}.keras"

"""Writes a trained BERT as a folder that transformers loads: AutoModelForTokenClassification, AutoTokenizer."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from kcost.core.artifact import Model, new_folder, sha256_of
from kcost.core.errors import ArtifactError
from kcost.core.jobs import EXPORT_CHECKPOINT
from kcost.core.plan import Backend
from kcost.core.process import chosen_backend, run_job
from kcost.core.request import CheckpointRequest
from kcost.core.schema import Record


class CheckpointReport(Record):
    """A Hugging Face folder that was written, and what is in it."""

    folder: str
    model: str = Field(description="name of the model that was written")
    model_sha256: str
    task: str
    label_names: tuple[str, ...]
    parameters: int
    tensors: int
    backend: Backend = Field(description="that read the model")
    files: dict[str, str] = Field(description="name -> SHA-256")


def export_checkpoint(model: Model, out: Path, *, log: Path | None = None) -> CheckpointReport:
    """Writes config.json, model.safetensors and the whole tokenizer, weights in float32.

    Args:
        model: an artifact folder of a bert that `kcost train` made.
        out: a folder that is new or empty; it appears whole or not at all.
        log: takes what the process prints; None keeps it until it ends well.

    Raises:
        ArtifactError: the model is no such bert, or it was changed since (pruned, quantized, fused).
        StorageError: `out` holds something already, or cannot be written to.
        UnavailableError: no backend is installed.
    """
    about = model.artifact
    if about is None or about.family != "bert":
        received = (
            f"{model.keras_file}, a bare file" if about is None else f"{model.name}, of the family {about.family}"
        )
        raise ArtifactError(
            "A Hugging Face folder is written from the artifact folder of a bert.",
            received=received,
            remedy="Give a folder that `kcost train bert` made.",
        )
    backend = chosen_backend()
    with new_folder(Path(out)) as draft:
        request = CheckpointRequest(model=model.keras_file.parent.absolute(), folder=draft.absolute())
        written = run_job(EXPORT_CHECKPOINT, backend, request, log=log)
        files = {path.name: sha256_of(path) for path in sorted(draft.iterdir())}
    return CheckpointReport(
        folder=str(out),
        model=model.name,
        model_sha256=model.sha256,
        task=about.task,
        label_names=about.label_names,
        parameters=written.parameters,
        tensors=written.tensors,
        backend=backend,
        files=files,
    )

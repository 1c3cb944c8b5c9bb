"""Writes a trained BERT classifier as a Hugging Face folder."""

from __future__ import annotations

from kcost.core.artifact import open_model
from kcost.core.errors import ArtifactError
from kcost.core.request import CheckpointAnswer, CheckpointRequest
from kcost.data.tokenizer_files import read_tokenizer
from kcost.models.checkpoint_writer import write_checkpoint
from kcost.models.loading import load_keras_file


def run(request: CheckpointRequest) -> CheckpointAnswer:
    """Writes an artifact folder into an existing folder; answers with the number of tensors."""
    opened = open_model(request.model)
    about = opened.artifact
    if about is None:
        raise ArtifactError("A Hugging Face folder is written from an artifact folder.", received=opened.keras_file)
    model = load_keras_file(opened.keras_file)
    pieces = read_tokenizer(opened.keras_file.parent)
    tensors = write_checkpoint(model, about.task, about.label_names, pieces.pad_id, request.folder)
    pieces.save(request.folder, max_length=int(model.get_layer("position_embedding").sequence_length))
    return CheckpointAnswer(tensors=tensors, parameters=int(model.count_params()))

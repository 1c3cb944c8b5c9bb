"""Fine-tuning: a pretrained encoder with its tokenizer, and the model that training starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras

from kcost.core.artifact import Task as TaskName
from kcost.core.errors import ArtifactError, InputError
from kcost.data.tokenize import WordPiece
from kcost.data.tokenizer_files import read_tokenizer
from kcost.models.bert import sequence_classifier, token_classifier
from kcost.models.checkpoint import Checkpoint, Head, read_checkpoint, with_head


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A pretrained encoder and the tokenizer that it was trained with."""

    checkpoint: Checkpoint
    pieces: WordPiece

    def label_names(self, task: TaskName, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """The outputs of the model to train: those of the checkpoint's own head where it knows all the wanted ones.

        A checkpoint that was fine-tuned for the same task and labels so goes on from its head; others get a new one.
        """
        head = self._head(task, wanted)
        return wanted if head is None else head.label_names

    def model(self, task: TaskName, wanted: tuple[str, ...], *, dropout: float = 0.1) -> keras.Model:
        """A classifier over the encoder, with the outputs that `label_names` gives."""
        if self._head(task, wanted) is not None:
            return with_head(self.checkpoint, dropout=dropout)
        build = token_classifier if task == "token-classification" else sequence_classifier
        return build(self.checkpoint.encoder, len(wanted), dropout=dropout)

    def _head(self, task: TaskName, wanted: tuple[str, ...]) -> Head | None:
        head = self.checkpoint.head
        usable = head is not None and head.task == task and set(wanted) <= set(head.label_names)
        return head if usable else None


def from_checkpoint(folder: Path | str, max_length: int, *, dropout: float | None = None) -> Pretrained:
    """Reads a folder to start training from: see `read_checkpoint` and `read_tokenizer` for its forms.

    Args:
        folder: a Hugging Face BERT folder or a Keras preset folder.
        max_length: the longest input of the training.
        dropout: of the encoder; None takes that of the folder.

    Raises:
        ArtifactError: the folder is of another kind, or its vocabulary is larger than the encoder's table.
        InputError: the encoder has no positions for inputs of that length.
    """
    pieces = read_tokenizer(folder)
    checkpoint = read_checkpoint(folder, dropout=dropout)
    rows = max(pieces.vocab.values()) + 1
    if rows > checkpoint.vocabulary_size:
        raise ArtifactError(
            "Each piece of the vocabulary and each added token has its row in the encoder's table.",
            received=f"{folder} with ids up to {rows - 1} and {checkpoint.vocabulary_size} rows",
            remedy="Give the tokenizer files that came with the model.",
        )
    if max_length > checkpoint.max_length:
        raise InputError(
            "An input is no longer than the positions that the encoder knows.",
            received=f"a length of {max_length}, and {checkpoint.max_length} positions in {folder}",
            remedy=f"Lower --max-length to {checkpoint.max_length}.",
        )
    return Pretrained(checkpoint, pieces)

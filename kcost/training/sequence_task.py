"""One class a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from kcost.backends.base import as_host_array
from kcost.core.answer_scores import outcomes_of, report_of, score_answers
from kcost.core.artifact import Artifact, QualityReport, Score, answers_of_task
from kcost.core.errors import InputError
from kcost.data import TextSet
from kcost.data.tokenize import WordPiece
from kcost.data.tokenizer_files import read_tokenizer
from kcost.training.batches import ArrayBatches, bucketed, share_saved, shortest_bucket
from kcost.training.tasks import DEFAULT_MAX_LENGTH, Task, refuse_not_finite, uncounted


class SequenceClassification(Task):
    """One class a text. A text that is longer than `max_length` pieces keeps its start."""

    name = "sequence-classification"
    unit = "texts"

    def __init__(self, data: TextSet, label_names: tuple[str, ...], pieces: WordPiece, max_length: int) -> None:
        """`label_names` are those of the model, in the order of its outputs.

        Raises:
            InputError: the data have a label that is not one of them.
        """
        unknown = [label for label in data.label_names if label not in label_names]
        if unknown:
            raise InputError(
                f"The data have the labels that the model knows: {', '.join(label_names)}.",
                received=", ".join(unknown),
                remedy="Name the data that the model was trained for, or data with the same labels.",
            )
        self.data, self.pieces, self.max_length = data, pieces, max_length
        self.record, self.label_names = data.record, label_names
        self.answers = answers_of_task(self.name)
        self._index = np.array([label_names.index(label) for label in data.label_names], np.int32)
        self._encoded: dict[str, dict[str, np.ndarray]] = {}

    @staticmethod
    def with_own_vocabulary(data: TextSet, vocabulary_size: int, max_length: int) -> SequenceClassification:
        """A task whose vocabulary is learnt from the texts of the training split."""
        pieces = WordPiece.train_on_texts(data.splits["train"].texts, vocabulary_size)
        return SequenceClassification(data, data.label_names, pieces, max_length)

    @staticmethod
    def of_artifact(data: TextSet, folder: Path, about: Artifact) -> SequenceClassification:
        """A task on other data with the vocabulary, labels and length of a trained classifier."""
        max_length = int(about.training.settings["max_length"]) if about.training else DEFAULT_MAX_LENGTH
        return SequenceClassification(data, about.label_names, read_tokenizer(folder), max_length)

    def encoded(self, split: str) -> dict[str, np.ndarray]:
        """The model's inputs of a split, shape (n, max_length) each, int32; made once."""
        if split not in self._encoded:
            self._encoded[split] = self.pieces.encode_texts(self.data.splits[split].texts, self.max_length)
        return self._encoded[split]

    def batches(self, split: str, batch_size: int, *, seed: int | None) -> ArrayBatches:
        """As `Task.batches`: texts of like length together."""
        encoded = self.encoded(split)
        plan = bucketed(_lengths(encoded), batch_size, self.max_length, seed)
        return ArrayBatches(encoded, self.labels(split), plan)

    def labels(self, split: str) -> np.ndarray:
        """The class of each text as an index into `label_names`, shape (n,), int32."""
        return np.take(self._index, self.data.splits[split].y)

    def predict(
        self, model: keras.Model, split: str, batch_size: int, count: Callable[[int], None] = uncounted
    ) -> np.ndarray:
        """As `Task.predict`."""
        encoded = self.encoded(split)
        predictions = np.zeros_like(self.labels(split))
        for rows, length in bucketed(_lengths(encoded), batch_size, self.max_length, None)(0):
            batch = {name: array[rows, :length] for name, array in encoded.items()}
            logits = np.asarray(model.predict_on_batch(batch))
            refuse_not_finite([self.answers.main.output], [as_host_array(logits)], split)
            predictions[rows] = logits.argmax(-1)
            count(len(rows))
        return predictions

    def score(self, predictions: np.ndarray, split: str) -> tuple[Score, ...]:
        """Accuracy, with how many texts it rests on."""
        return score_answers(self.answers.main, predictions, self.labels(split), split, self.unit)

    def report(self, predictions: np.ndarray, split: str) -> QualityReport:
        """As `Task.report`; it counts the texts that were cut."""
        lengths = _lengths(self.encoded(split))
        report = report_of(self.answers.main, predictions, self.labels(split), self.label_names, split, self.unit)
        assert report is not None
        return report.model_copy(
            update={
                "truncated": self.pieces.count_truncated(self.data.splits[split].texts, self.max_length),
                "padding_saved": share_saved(lengths, self.max_length),
            }
        )

    def outcomes(self, predictions: np.ndarray, split: str) -> np.ndarray:
        """As `Task.outcomes`."""
        return outcomes_of(self.answers.main, predictions, self.labels(split))

    def examples(self, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """As `Task.examples`, cut to the bucket of the longest text."""
        return {**self._cut(split, rows), "labels": self.labels(split)[rows]}

    def inputs(self, split: str, count: int) -> dict[str, np.ndarray]:
        """As `Task.inputs`, cut to the bucket of the longest text."""
        return self._cut(split, np.arange(min(count, len(self.labels(split)))))

    def _cut(self, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        encoded = {name: array[rows] for name, array in self.encoded(split).items()}
        longest = int(_lengths(encoded).max())
        length = shortest_bucket(longest, self.max_length)
        return {name: array[:, :length] for name, array in encoded.items()}

    def save_files(self, folder: Path) -> None:
        """Writes the tokenizer."""
        self.pieces.save(folder)


def _lengths(encoded: dict[str, np.ndarray]) -> np.ndarray:
    """Positions of each text that are not padding."""
    return np.asarray(encoded["padding_mask"].sum(axis=1))

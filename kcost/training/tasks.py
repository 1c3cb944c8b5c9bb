"""What is learnt: a task turns a data set into arrays, names the model's head, and scores what a model answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import keras
import numpy as np

from kcost.core import scores
from kcost.core.artifact import Artifact, Dataset, QualityReport, Score
from kcost.core.pixels import Pixels
from kcost.data import ImageSet, TagSet
from kcost.data.tokenize import Encoded, WordPiece, decode_predictions
from kcost.training.batches import ArrayBatches, bucketed, share_saved, shortest_bucket, shuffled

SAMPLES = 256
"""Held-out examples that an artifact carries, for benchmarks to be fed with and scored on."""


DEFAULT_MAX_LENGTH = 128
"""Word pieces of a sentence where an artifact does not say."""


class Task(ABC):
    """A data set made ready for one kind of head."""

    name: str
    record: Dataset
    label_names: tuple[str, ...]
    pixels: Pixels | None = None
    """The scale that images are fed in; None for texts."""

    @abstractmethod
    def batches(self, split: str, batch_size: int, *, seed: int | None) -> ArrayBatches:
        """The batches of a split; `seed` None keeps them in order."""

    @abstractmethod
    def labels(self, split: str) -> np.ndarray:
        """The integer labels of a split, in any shape; negative ones do not count."""

    def balanced_class_weights(self) -> list[float]:
        """A weight for each class: all examples over the number of classes times the class's own examples.

        A class without an example weighs 1. Source: King and Zeng (2001), Logistic Regression in Rare Events Data, as
        scikit-learn's `balanced` has it.
        """
        labels = self.labels("train")
        counts = np.bincount(labels[labels >= 0].ravel(), minlength=len(self.label_names))
        weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
        return [float(w) for w in np.where(counts > 0, weights, 1.0)]

    @abstractmethod
    def predict(self, model: keras.Model, split: str, batch_size: int) -> np.ndarray:
        """Class numbers that a model answers on a split, in the shape of its labels, integers."""

    @abstractmethod
    def score(self, predictions: np.ndarray, split: str) -> tuple[Score, ...]:
        """The scores of such answers, each with its interval and count."""

    @abstractmethod
    def report(self, predictions: np.ndarray, split: str) -> QualityReport:
        """Such answers by class or entity type."""

    @abstractmethod
    def outcomes(self, predictions: np.ndarray, split: str) -> np.ndarray:
        """What is right and wrong in each example, for a paired test of two models: int64.

        Shape (n, 1), 1 where the class is right; or (n, 3): entities found, wrongly found and missed.
        """

    def scores(self, model: keras.Model, split: str, batch_size: int) -> tuple[Score, ...]:
        """The scores of a model on a split."""
        return self.score(self.predict(model, split, batch_size), split)

    @abstractmethod
    def samples(self) -> dict[str, np.ndarray]:
        """Up to SAMPLES test examples: one array a model input, by name, and `labels`."""

    @abstractmethod
    def inputs(self, split: str, count: int) -> dict[str, np.ndarray]:
        """The first `count` examples of a split as the model takes them: one array a model input, by name."""

    def save_files(self, folder: Path) -> None:  # noqa: B027 -- most tasks have none
        """Writes what a user of the model needs beside it, such as a vocabulary."""


class ImageClassification(Task):
    """One class an image."""

    name = "image-classification"

    def __init__(self, data: ImageSet) -> None:
        self.data = data
        self.record, self.label_names, self.pixels = data.record, data.label_names, data.pixels

    def batches(self, split: str, batch_size: int, *, seed: int | None) -> ArrayBatches:
        images = self.data.splits[split]
        return ArrayBatches(images.x, images.y, shuffled(len(images), batch_size, seed))

    def labels(self, split: str) -> np.ndarray:
        return self.data.splits[split].y

    def predict(self, model: keras.Model, split: str, batch_size: int) -> np.ndarray:
        answers = np.asarray(model.predict(self.data.splits[split].x, batch_size=batch_size, verbose=0))
        found: np.ndarray = answers.argmax(-1)
        return found

    def score(self, predictions: np.ndarray, split: str) -> tuple[Score, ...]:
        return (scores.accuracy(self.labels(split), predictions, split),)

    def report(self, predictions: np.ndarray, split: str) -> QualityReport:
        return class_report(self.labels(split), predictions, self.label_names, split, "examples")

    def outcomes(self, predictions: np.ndarray, split: str) -> np.ndarray:
        right: np.ndarray = self.labels(split) == predictions
        return right.astype(np.int64)[:, None]

    def samples(self) -> dict[str, np.ndarray]:
        return {**self.inputs("test", SAMPLES), "labels": self.data.splits["test"].y[:SAMPLES]}

    def inputs(self, split: str, count: int) -> dict[str, np.ndarray]:
        return {"images": self.data.splits[split].x[:count]}


class TokenClassification(Task):
    """One tag a word; a word is tagged at its first piece."""

    name = "token-classification"

    def __init__(self, data: TagSet, tag_names: tuple[str, ...], pieces: WordPiece, max_length: int) -> None:
        """`tag_names` are those of the model, in the order of its outputs."""
        self.data, self.pieces, self.max_length = data, pieces, max_length
        self.record, self.label_names = data.record, tag_names
        self._encoded: dict[str, Encoded] = {}

    @staticmethod
    def with_own_vocabulary(data: TagSet, vocabulary_size: int, max_length: int) -> TokenClassification:
        """A task whose vocabulary is learnt from the words of the training split."""
        pieces = WordPiece.train(data.splits["train"], vocabulary_size)
        return TokenClassification(data, data.tag_names, pieces, max_length)

    @staticmethod
    def of_artifact(data: TagSet, folder: Path, about: Artifact) -> TokenClassification:
        """A task on other data with the vocabulary, tags and length of a trained tagger."""
        trained = next((s for s in reversed(about.steps) if s.kind == "train"), None)
        max_length = int(trained.settings["max_length"]) if trained else DEFAULT_MAX_LENGTH
        return TokenClassification(data, about.label_names, WordPiece.from_vocab_file(folder), max_length)

    def encoded(self, split: str) -> Encoded:
        """A split as arrays, made once."""
        if split not in self._encoded:
            sentences = self.data.splits[split]
            self._encoded[split] = self.pieces.encode(sentences, self.label_names, self.max_length)
        return self._encoded[split]

    def batches(self, split: str, batch_size: int, *, seed: int | None) -> ArrayBatches:
        encoded = self.encoded(split)
        plan = bucketed(encoded.lengths, batch_size, self.max_length, seed)
        return ArrayBatches(_inputs(encoded), encoded.labels, plan)

    def labels(self, split: str) -> np.ndarray:
        return self.encoded(split).labels

    def predict(self, model: keras.Model, split: str, batch_size: int) -> np.ndarray:
        encoded = self.encoded(split)
        predictions = np.zeros_like(encoded.labels)
        for rows, length in bucketed(encoded.lengths, batch_size, self.max_length, None)(0):
            logits = model.predict_on_batch({n: a[rows, :length] for n, a in _inputs(encoded).items()})
            predictions[rows, :length] = np.asarray(logits).argmax(-1)
        return predictions

    def score(self, predictions: np.ndarray, split: str) -> tuple[Score, ...]:
        return (scores.entity_f1(*self._tags(predictions, split), split),)

    def report(self, predictions: np.ndarray, split: str) -> QualityReport:
        encoded = self.encoded(split)
        return QualityReport(
            split=split,
            unit="entities",
            classes=scores.entity_report(*self._tags(predictions, split)),
            truncated=encoded.truncated_words,
            padding_saved=share_saved(encoded.lengths, self.max_length),
        )

    def outcomes(self, predictions: np.ndarray, split: str) -> np.ndarray:
        return scores.sentence_counts(*self._tags(predictions, split))

    def _tags(self, predictions: np.ndarray, split: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """The true tags of each sentence, and the predicted ones."""
        true = [sentence.tags for sentence in self.data.splits[split]]
        return true, list(decode_predictions(self.encoded(split), predictions, self.label_names))

    def samples(self) -> dict[str, np.ndarray]:
        cut = self._first("test", SAMPLES)
        return {**_inputs(cut), "labels": cut.labels}

    def inputs(self, split: str, count: int) -> dict[str, np.ndarray]:
        return _inputs(self._first(split, count))

    def _first(self, split: str, count: int) -> Encoded:
        """The first sentences of a split, cut to the bucket of the longest."""
        encoded = self.encoded(split)
        rows = np.arange(min(count, len(encoded)))
        longest = int(encoded.lengths[rows].max())
        return encoded.take(rows, shortest_bucket(longest, self.max_length))

    def save_files(self, folder: Path) -> None:
        self.pieces.save(folder)


def class_report(
    labels: np.ndarray, predictions: np.ndarray, label_names: tuple[str, ...], split: str, unit: str
) -> QualityReport:
    """The report of one class an example: counts by class, and the confusion matrix."""
    matrix = scores.confusion_matrix(labels, predictions, len(label_names))
    return QualityReport(
        split=split,
        unit=unit,
        classes=scores.per_class_report(labels, predictions, label_names),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
    )


def _inputs(encoded: Encoded) -> dict[str, np.ndarray]:
    return {"token_ids": encoded.token_ids, "segment_ids": encoded.segment_ids, "padding_mask": encoded.padding_mask}

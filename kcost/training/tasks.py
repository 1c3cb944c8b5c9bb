"""What is learnt: a task turns a data set into arrays, names the model's head, and scores what a model answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kcost.backends.base import as_host_array
from kcost.core import entities, scores
from kcost.core.answer import Answers
from kcost.core.answer_scores import not_finite, outcomes_of, predictions_of, report_of, score_answers
from kcost.core.artifact import SAMPLES, Artifact, Dataset, QualityReport, Score, answers_of_task
from kcost.core.errors import GateError, InputError
from kcost.core.pixels import Pixels
from kcost.data import ImageSet, TagSet
from kcost.data.tokenize import Encoded, WordPiece
from kcost.data.tokenizer_files import read_tokenizer
from kcost.models.nan_weights import nan_weights
from kcost.training.batches import ArrayBatches, Arrays, bucketed, share_saved, shortest_bucket, shuffled

DEFAULT_MAX_LENGTH = 128
"""Word pieces of a sentence where an artifact does not say."""


def uncounted(examples: int) -> None:
    """Of examples that nobody counts."""


class _Counting(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Counts the examples that `Model.predict` has answered."""

    def __init__(self, count: Callable[[int], None], total: int, batch_size: int) -> None:
        super().__init__()
        self._count, self._total, self._batch_size, self._done = count, total, batch_size, 0

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after one batch, or after several that ran in one go: `batch` is the last of them."""
        done = min(self._total, (batch + 1) * self._batch_size)
        self._count(done - self._done)
        self._done = done


class Task(ABC):
    """A data set made ready for one kind of head."""

    name: str
    unit: str
    """What outcomes are of."""
    record: Dataset
    label_names: tuple[str, ...]
    answers: Answers
    """What the model's outputs say."""
    is_text = True
    """Whether the model takes tokens."""
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
    def predict(
        self, model: keras.Model, split: str, batch_size: int, count: Callable[[int], None] = uncounted
    ) -> np.ndarray:
        """What a model answers on a split, as `predictions_of` keeps it.

        Args:
            count: told after each batch how many more examples are done.

        Raises:
            GateError: an answer is NaN or infinite.
        """

    @abstractmethod
    def score(self, predictions: np.ndarray, split: str) -> tuple[Score, ...]:
        """The scores of such answers, each with its interval and count."""

    @abstractmethod
    def report(self, predictions: np.ndarray, split: str) -> QualityReport | None:
        """Such answers by class or entity type; None where there are no classes."""

    @abstractmethod
    def outcomes(self, predictions: np.ndarray, split: str) -> np.ndarray:
        """What is right and wrong in each example, for a paired test of two models.

        As `answer_scores.outcomes_of` has it; for entities (n, 3), int64: found, wrongly found and missed.
        """

    def ask_auroc(self) -> None:
        """Scores the area under the ROC curve as well.

        Raises:
            InputError: the scored output is not binary.
        """
        raise InputError(
            "The area under the ROC curve is of a binary output.",
            received=str(self.answers.main),
            remedy="Leave --auroc out.",
        )

    def scores(self, model: keras.Model, split: str, batch_size: int) -> tuple[Score, ...]:
        """The scores of a model on a split."""
        return self.score(self.predict(model, split, batch_size), split)

    def samples(self) -> dict[str, np.ndarray]:
        """The first SAMPLES test examples, or as many as there are; as of `examples`."""
        return self.examples("test", np.arange(min(SAMPLES, len(self.labels("test")))))

    @abstractmethod
    def examples(self, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Chosen examples of a split.

        One array a model input, by name; `labels`; and of a tagger the labels of words without a position, as
        `core.entities` has them.

        Args:
            rows: their places in the split, shape (n,), integers.
        """

    @abstractmethod
    def inputs(self, split: str, count: int) -> dict[str, np.ndarray]:
        """The first `count` examples of a split as the model takes them: one array a model input, by name."""

    def save_files(self, folder: Path) -> None:  # noqa: B027 -- most tasks have none
        """Writes what a user of the model needs beside it, such as a vocabulary."""


class ArrayTask(Task):
    """Whatever a model answers on arrays: its scored output, held against labels of that output's kind."""

    name = "arrays"
    unit = "examples"
    is_text = False

    def __init__(
        self,
        record: Dataset,
        inputs: dict[str, Arrays],
        labels: dict[str, np.ndarray],
        answers: Answers,
        label_names: tuple[str, ...] = (),
    ) -> None:
        """What the model takes and should answer.

        Args:
            inputs: for each split one array, or one by name of an input.
            labels: for each split, as `fitted_labels` gives them.
            label_names: of the classes; those without a name are called by their numbers.
        """
        self.record, self.answers, self.label_names = record, answers, label_names
        self._x, self._labels = inputs, labels
        self._auroc = False

    def ask_auroc(self) -> None:
        if self.answers.scored is None or self.answers.main.kind != "binary":
            super().ask_auroc()
        self._auroc = True

    def batches(self, split: str, batch_size: int, *, seed: int | None) -> ArrayBatches:
        labels = self._labels[split]
        return ArrayBatches(self._x[split], labels, shuffled(len(labels), batch_size, seed))

    def labels(self, split: str) -> np.ndarray:
        return self._labels[split]

    def predict(
        self, model: keras.Model, split: str, batch_size: int, count: Callable[[int], None] = uncounted
    ) -> np.ndarray:
        total = len(next(iter(self._named(split).values())))
        callbacks = None if count is uncounted else [_Counting(count, total, batch_size)]
        outputs = keras.tree.flatten(
            model.predict(self._x[split], batch_size=batch_size, verbose=0, callbacks=callbacks)
        )
        arrays = [np.asarray(as_host_array(np.asarray(y))) for y in outputs]
        refuse_not_finite([a.output for a in self.answers.outputs], arrays, split)
        return predictions_of(self.answers.main, arrays[self.answers.main_place])

    def score(self, predictions: np.ndarray, split: str) -> tuple[Score, ...]:
        if self.answers.scored is None:
            return ()
        of_main = score_answers(self.answers.main, predictions, self._labels[split], split, self.unit, self._auroc)
        output = self.answers.scored if len(self.answers.outputs) > 1 else None
        return tuple(score.model_copy(update={"output": output}) for score in of_main)

    def report(self, predictions: np.ndarray, split: str) -> QualityReport | None:
        if self.answers.scored is None:
            return None
        return report_of(self.answers.main, predictions, self._labels[split], self.label_names, split, self.unit)

    def outcomes(self, predictions: np.ndarray, split: str) -> np.ndarray:
        if self.answers.scored is None:
            raise InputError(
                "What a change cost is judged by the scores of an output with labels.",
                received=f"{self.record.name}: {self.answers.unscored_because}",
                remedy="Name the output that labels are of with --output, or its kind with --task.",
            )
        return outcomes_of(self.answers.main, predictions, self._labels[split])

    def examples(self, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        labels = {} if self.answers.scored is None else {"labels": self._labels[split][rows]}
        return {**{name: a[rows] for name, a in self._named(split).items()}, **labels}

    def inputs(self, split: str, count: int) -> dict[str, np.ndarray]:
        return {name: a[:count] for name, a in self._named(split).items()}

    def _named(self, split: str) -> dict[str, np.ndarray]:
        x = self._x[split]
        return x if isinstance(x, dict) else {self.input_name: x}

    input_name = "inputs"
    """Of an only input."""


class ImageClassification(ArrayTask):
    """One class an image."""

    name = "image-classification"
    input_name = "images"

    def __init__(self, data: ImageSet) -> None:
        """Of a model of kcost's own, which answers with a probability for each class of the data."""
        super().__init__(
            data.record,
            {split: images.x for split, images in data.splits.items()},
            {split: images.y for split, images in data.splits.items()},
            answers_of_task(self.name),
            data.label_names,
        )
        self.data, self.pixels = data, data.pixels


class TokenClassification(Task):
    """One tag a word; a word is tagged at its first piece."""

    name = "token-classification"
    unit = "sentences"

    def __init__(self, data: TagSet, tag_names: tuple[str, ...], pieces: WordPiece, max_length: int) -> None:
        """`tag_names` are those of the model, in the order of its outputs."""
        self.data, self.pieces, self.max_length = data, pieces, max_length
        self.record, self.label_names = data.record, tag_names
        self.answers = answers_of_task(self.name)
        self._encoded: dict[str, Encoded] = {}

    @staticmethod
    def with_own_vocabulary(data: TagSet, vocabulary_size: int, max_length: int) -> TokenClassification:
        """A task whose vocabulary is learnt from the words of the training split."""
        pieces = WordPiece.train(data.splits["train"], vocabulary_size)
        return TokenClassification(data, data.tag_names, pieces, max_length)

    @staticmethod
    def of_artifact(data: TagSet, folder: Path, about: Artifact) -> TokenClassification:
        """A task on other data with the vocabulary, tags and length of a trained tagger."""
        max_length = int(about.training.settings["max_length"]) if about.training else DEFAULT_MAX_LENGTH
        return TokenClassification(data, about.label_names, read_tokenizer(folder), max_length)

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

    def predict(
        self, model: keras.Model, split: str, batch_size: int, count: Callable[[int], None] = uncounted
    ) -> np.ndarray:
        encoded = self.encoded(split)
        predictions = np.zeros_like(encoded.labels)
        for rows, length in bucketed(encoded.lengths, batch_size, self.max_length, None)(0):
            logits = np.asarray(model.predict_on_batch({n: a[rows, :length] for n, a in _inputs(encoded).items()}))
            refuse_not_finite([self.answers.main.output], [as_host_array(logits)], split)
            predictions[rows, :length] = logits.argmax(-1)
            count(len(rows))
        return predictions

    def score(self, predictions: np.ndarray, split: str) -> tuple[Score, ...]:
        return (scores.entity_f1_of(self.outcomes(predictions, split), split),)

    def report(self, predictions: np.ndarray, split: str) -> QualityReport:
        encoded = self.encoded(split)
        return QualityReport(
            split=split,
            unit="entities",
            classes=scores.entity_report(*entities.tags_of_words(*self._answered(predictions, split))),
            truncated=encoded.unseen_words,
            padding_saved=share_saved(encoded.lengths, self.max_length),
        )

    def outcomes(self, predictions: np.ndarray, split: str) -> np.ndarray:
        return entities.entity_counts(*self._answered(predictions, split))

    def _answered(
        self, predictions: np.ndarray, split: str
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...], tuple[str, ...]]:
        """What entities are read from: see `core.entities`."""
        encoded = self.encoded(split)
        return encoded.labels, predictions, encoded.unseen_labels, self.label_names

    def examples(self, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        cut = self._cut(split, rows)
        unseen = entities.in_one_array(cut.unseen_labels)
        return {**_inputs(cut), "labels": cut.labels, entities.UNSEEN_LABELS: unseen}

    def inputs(self, split: str, count: int) -> dict[str, np.ndarray]:
        return _inputs(self._cut(split, np.arange(min(count, len(self.encoded(split))))))

    def _cut(self, split: str, rows: np.ndarray) -> Encoded:
        """Chosen sentences of a split, cut to the bucket of the longest."""
        encoded = self.encoded(split)
        longest = int(encoded.lengths[rows].max())
        return encoded.take(rows, shortest_bucket(longest, self.max_length))

    def save_files(self, folder: Path) -> None:
        self.pieces.save(folder)


def refuse_nan_weights(model: keras.Model) -> None:
    """Raises GateError where a weight is no number, whatever the model answers."""
    no_numbers = nan_weights(model)
    if no_numbers is not None:
        raise GateError(
            "The weights of a model are numbers.",
            received=no_numbers,
            remedy="The training may have diverged. Lower its learning rate, or load an earlier checkpoint.",
        )


def refuse_not_finite(names: Sequence[str], outputs: Sequence[np.ndarray], split: str) -> None:
    """Raises GateError where a model answers with numbers that are none: no score of them means anything."""
    not_finite_outputs = not_finite(names, outputs)
    if not_finite_outputs is not None:
        raise GateError(
            "A model answers with finite numbers.",
            received=f"{not_finite_outputs} on the {split} split",
            remedy="Look for weights that are not finite: the training may have diverged. Lower its learning rate.",
        )


def _inputs(encoded: Encoded) -> dict[str, np.ndarray]:
    return {"token_ids": encoded.token_ids, "segment_ids": encoded.segment_ids, "padding_mask": encoded.padding_mask}

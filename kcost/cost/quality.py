"""Whether a cell's model still answers as the reference does: differences of outputs, scores, agreement."""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from pydantic import Field

from kcost.core.answer import Answer, Answers, Kind, plain_answers
from kcost.core.answer_scores import agreement, score_answers
from kcost.core.artifact import Score
from kcost.core.entities import UNSEEN_LABELS, entity_counts
from kcost.core.plan import BACKENDS, INFERENCE_METHODS
from kcost.core.result import CellResult, ModelEntry, Preparation
from kcost.core.schema import Record
from kcost.core.score_drop import ScoreDrop, f1_drop
from kcost.core.scores import accuracy, entity_f1_of
from kcost.core.stats import NORMAL_95

Arrays = Mapping[str, np.ndarray]
ReadOutputs = Callable[[CellResult], Arrays | None]
"""Gives the arrays of a cell, as far as it has them: see `CellResult.outputs_file`."""

SPLIT = "measured samples"

SEEN_WORDS_F1 = "entity_f1_of_seen_words"
"""An F1 where nothing is known of the words that a model did not see: entities with such words are not among the
missed, as they are in `entity_f1`. Of samples and cells of before, and of labels of one's own."""

HIGHER_IS_BETTER = frozenset({"accuracy", "token_accuracy", "entity_f1", SEEN_WORDS_F1, "f1_micro", "r2"})
"""Scores that decide, on a scale that ends at 1. An error in the unit of the labels has no such scale."""


class OutputDifference(Record):
    """How far an output is from the reference's, over the parity probe."""

    output: str
    max_abs: float
    relative: float = Field(description="to the largest of the reference's numbers; infinite where these are all 0")


class OtherAgreement(Record):
    """How far an output that is not the scored one answers as the reference's."""

    output: str
    share: float
    count: int


class Quality(Record):
    """How a cell's answers compare with the reference's, on the examples that both answered."""

    differences: tuple[OutputDifference, ...] = Field(default=(), description="one an output that can be compared")
    not_finite: bool = Field(
        default=False, description="an output of the probe is finite in other places than the reference's"
    )
    answered: Answer | None = Field(default=None, description="what the scored output was taken as")
    agreement: float | None = Field(default=None, description="share of predictions that are the reference's")
    agreement_count: int = 0
    rank_correlation: float | None = Field(default=None, description="Spearman's, of a regression's answers")
    other_outputs: tuple[OtherAgreement, ...] = Field(default=(), description="outputs that nothing is scored by")
    scores: tuple[Score, ...] = Field(default=(), description="the first is the one that decides")
    reference_scores: tuple[Score, ...] = Field(default=(), description="of the reference on the same examples")
    paired_drop: ScoreDrop | None = Field(
        default=None, description="of a tagger's entity F1, with its bound; of an accuracy agreement and drop tell it"
    )

    @property
    def worst_difference(self) -> OutputDifference | None:
        """The output that is relatively farthest from the reference's."""
        return max(self.differences, key=lambda d: d.relative, default=None)

    @property
    def max_abs_difference(self) -> float | None:
        """The largest difference of any output, absolute."""
        return max((d.max_abs for d in self.differences), default=None)

    @property
    def drop(self) -> float | None:
        """How much less the cell scores than the reference; negative where it scores more."""
        if not self.scores or not self.reference_scores or self.scores[0].name not in HIGHER_IS_BETTER:
            return None
        return self.reference_scores[0].value - self.scores[0].value


def reference_cell(cells: Iterable[CellResult]) -> CellResult | None:
    """The cell that others are held against: float32 and not `predict`, the first by backend and method.

    Of several batch sizes the largest: in cells of before it answered the most examples.
    """
    backends = (*BACKENDS, "fake")

    def order(cell: CellResult) -> tuple[int, int, bool, int, str]:
        spec = cell.spec
        methods = INFERENCE_METHODS[spec.backend]
        method = methods.index(spec.method) if spec.method in methods else len(methods)
        return (backends.index(spec.backend), method, spec.device != "cpu", -spec.batch, spec.cell_id)

    plain = [c for c in cells if c.spec.precision == "float32" and c.spec.method != "predict"]
    return min(plain, key=order, default=None)


class _Judged(NamedTuple):
    """What predictions are worth beside the reference's."""

    agreement: float | None
    agreement_count: int
    rank_correlation: float | None
    scores: tuple[Score, ...]
    reference_scores: tuple[Score, ...]
    paired_drop: ScoreDrop | None = None


class _Truth(NamedTuple):
    """What is known to be right: the arrays of a cell."""

    labels: np.ndarray | None
    unseen_labels: np.ndarray | None


class QualityCheck:
    """Compares cells of one model with its reference, one at a time."""

    def __init__(self, entry: ModelEntry, reference: Arrays | None) -> None:
        self._entry = entry
        self._reference = reference
        # Most cells answer exactly alike, the others most sentences, and scoring entities takes longer than all else.
        self._digests = _Digests()
        self._judged: dict[tuple[tuple[bytes, ...], Answer], _Judged] = {}
        self._scored: dict[tuple[tuple[bytes, ...], int, Answer], tuple[Score, ...]] = {}
        kind: Kind = "tags" if entry.task == "token-classification" else "multiclass"
        self._usual = plain_answers(kind, logits=True, because="the task of the model")
        self._sentences: dict[tuple[bytes, bytes, bytes], tuple[int, int, int]] = {}

    def of(self, arrays: Arrays | None, preparation: Preparation | None = None) -> Quality:
        """The quality of a cell with these arrays; empty where there is nothing to compare.

        Args:
            preparation: what its worker said of its answers; without it they are classes, as in cells of before.
        """
        if arrays is None:
            return Quality()
        answers = (None if preparation is None else preparation.answers) or self._usual
        predictions, truth = arrays.get("predictions"), _Truth(arrays.get("labels"), arrays.get(UNSEEN_LABELS))
        key = (tuple(map(self._digests.of, (predictions, *truth))), answers.main)
        if key not in self._judged:
            self._judged[key] = self._judge(answers.main, predictions, truth)
        judged = self._judged[key]
        differences, finite = self._differences(answers, arrays)
        return Quality(
            differences=differences if finite else (),
            not_finite=not finite,
            answered=answers.main,
            agreement=judged.agreement,
            agreement_count=judged.agreement_count,
            rank_correlation=judged.rank_correlation,
            other_outputs=self._others(answers, arrays),
            scores=judged.scores,
            reference_scores=judged.reference_scores,
            paired_drop=judged.paired_drop,
        )

    def _differences(self, answers: Answers, arrays: Arrays) -> tuple[tuple[OutputDifference, ...], bool]:
        """The difference of each output that the reference has too, and whether both are finite in the same places."""
        differences, alike = [], True
        for answer in answers.outputs:
            mark = "" if answer == answers.main else f"/{answer.output}"
            mine, theirs = arrays.get(f"outputs{mark}"), (self._reference or {}).get(f"outputs{mark}")
            if mine is None or theirs is None or mine.shape != theirs.shape or not mine.size:
                continue
            finite = np.isfinite(theirs)  # a random row may have no answer, such as the logarithm of a negative number
            alike = alike and bool((np.isfinite(mine) == finite).all())
            if alike and finite.any():
                largest = float(np.abs(mine[finite].astype(np.float64) - theirs[finite].astype(np.float64)).max())
                scale = float(np.abs(theirs[finite]).max())
                relative = largest / scale if scale else math.inf if largest else 0.0
                differences.append(OutputDifference(output=answer.output, max_abs=largest, relative=relative))
        return tuple(differences), alike

    def _others(self, answers: Answers, arrays: Arrays) -> tuple[OtherAgreement, ...]:
        agreements = []
        for answer in answers.outputs:
            key = f"predictions/{answer.output}"
            if answer != answers.main and key in arrays and key in (self._reference or {}):
                agreed = agreement(answer, arrays[key], (self._reference or {})[key], None)
                if agreed is not None:
                    agreements.append(OtherAgreement(output=answer.output, share=agreed.share, count=agreed.examples))
        return tuple(agreements)

    def _judge(self, answer: Answer, predictions: np.ndarray | None, truth: _Truth) -> _Judged:
        theirs = (self._reference or {}).get("predictions")
        if predictions is None or theirs is None:
            return _Judged(None, 0, None, self._scores(answer, predictions, truth), ())
        same = agreement(answer, predictions, theirs, truth.labels)
        # In cells of before a smaller batch answered fewer examples: both are scored on those that both answered.
        shared = min(len(predictions), len(theirs))
        return _Judged(
            None if same is None else same.share,
            0 if same is None else same.examples,
            None if same is None else same.rank_correlation,
            self._scores(answer, predictions, truth, shared),
            self._scores(answer, theirs, truth, shared),
            self._paired_drop(predictions[:shared], theirs[:shared], truth),
        )

    def _paired_drop(self, mine: np.ndarray, theirs: np.ndarray, truth: _Truth) -> ScoreDrop | None:
        """The drop of an entity F1 below the reference's; None where entities cannot be read, or there are none."""
        if self._entry.task != "token-classification" or truth.labels is None or truth.unseen_labels is None:
            return None
        labels, unseen = truth.labels[: len(mine)], truth.unseen_labels[: len(mine)]
        if not (mine.shape == theirs.shape == labels.shape) or not len(mine):
            return None
        known = labels >= 0
        highest = [array.max(initial=-1) for array in (labels, mine[known], theirs[known], unseen)]
        if max(highest) >= len(self._entry.label_names):
            return None
        before, after = (self._entity_counts(answers, labels, unseen) for answers in (theirs, mine))
        if not before[:, (0, 2)].any():
            return None
        drop = f1_drop(before, after)
        # Where no sentence changed all resamples agree, which says nothing of those that were not drawn: half a one is
        # taken to be lost and half a one gained, as `accuracy_drop` has it.
        least = NORMAL_95 / (len(before) + 2)
        return drop.model_copy(update={"bound": max(drop.bound, drop.value + least)})

    def _scores(
        self, answer: Answer, predictions: np.ndarray | None, truth: _Truth, rows: int | None = None
    ) -> tuple[Score, ...]:
        """The scores on the first `rows` examples, or on all of them."""
        labels, unseen_labels = truth
        if predictions is None or labels is None:
            return ()
        rows = max(len(predictions), len(labels)) if rows is None else rows
        key = (tuple(map(self._digests.of, (predictions, *truth))), rows, answer)
        if key not in self._scored:
            predictions, labels = predictions[:rows], labels[:rows]
            unseen_labels = None if unseen_labels is None else unseen_labels[:rows]
            known = len(predictions) == len(labels) and answer.kind != "embedding"
            known = known and predictions.reshape(len(labels), -1).shape == labels.reshape(len(labels), -1).shape
            self._scored[key] = self._score(answer, predictions, labels, unseen_labels) if known else ()
        return self._scored[key]

    def _score(
        self, answer: Answer, predictions: np.ndarray, labels: np.ndarray, unseen_labels: np.ndarray | None
    ) -> tuple[Score, ...]:
        if self._entry.task != "token-classification":
            return score_answers(answer, predictions, labels, SPLIT)
        known = labels >= 0
        if not known.any():
            return ()
        tokens = accuracy(labels[known], predictions[known], SPLIT, unit="tokens")
        tokens = tokens.model_copy(update={"name": "token_accuracy"})
        unseen = np.zeros((len(labels), 0), np.int32) if unseen_labels is None else unseen_labels
        if max(labels.max(), predictions[known].max(), unseen.max(initial=-1)) >= len(self._entry.label_names):
            return (tokens,)  # classes without a name: there are no tags to find entities in
        entities = entity_f1_of(self._entity_counts(predictions, labels, unseen), SPLIT)
        if unseen_labels is None:
            entities = entities.model_copy(update={"name": SEEN_WORDS_F1})
        return (entities, tokens) if entities.count else (tokens,)

    def _entity_counts(self, predictions: np.ndarray, labels: np.ndarray, unseen_labels: np.ndarray) -> np.ndarray:
        """`core.entities.entity_counts`, with each sentence and its answers counted once."""
        rows = zip(labels, predictions, unseen_labels, strict=True)
        keys = [(label.tobytes(), answer.tobytes(), unseen.tobytes()) for label, answer, unseen in rows]
        new = [i for i, key in enumerate(keys) if key not in self._sentences]
        counts = entity_counts(labels[new], predictions[new], unseen_labels[new], self._entry.label_names)
        self._sentences |= {keys[i]: tuple(one) for i, one in zip(new, counts.tolist(), strict=True)}
        return np.array([self._sentences[key] for key in keys], np.int64)


class _Digests:
    """Hashes of arrays by their content. One that cannot change is hashed once, for as long as it lives."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[np.ndarray], bytes]] = {}

    def of(self, array: np.ndarray | None) -> bytes:
        """The SHA-256 of the array's dtype, shape and values; nothing for None."""
        if array is None:
            return b""
        known, digest = self._known.get(id(array), (None, b""))
        if known is not None and known() is array:
            return digest
        sha256 = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
        sha256.update(np.ascontiguousarray(array).data)
        if not array.flags.writeable:
            self._known[id(array)] = (weakref.ref(array), sha256.digest())
        return sha256.digest()

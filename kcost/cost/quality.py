"""Whether a cell's model still answers as the reference does: differences of outputs, scores, agreement."""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from pydantic import Field

from kcost.core.artifact import Score
from kcost.core.plan import BACKENDS, INFERENCE_METHODS
from kcost.core.result import CellResult, ModelEntry
from kcost.core.schema import Record

Arrays = Mapping[str, np.ndarray]
ReadOutputs = Callable[[CellResult], Arrays | None]
"""Gives the arrays `outputs`, `predictions` and `labels` of a cell, as far as it has them."""

SPLIT = "measured samples"


class Quality(Record):
    """How a cell's answers compare with the reference's, on the examples that both answered."""

    max_abs_difference: float | None = Field(default=None, description="of the parity probe's outputs")
    not_finite: bool = Field(default=False, description="an output was NaN or infinite, so there is no difference")
    agreement: float | None = Field(default=None, description="share of predictions that are the reference's")
    agreement_count: int = 0
    scores: tuple[Score, ...] = Field(default=(), description="the first is the one that decides")
    reference_scores: tuple[Score, ...] = Field(default=(), description="of the reference on the same examples")

    @property
    def drop(self) -> float | None:
        """How much less the cell scores than the reference; negative where it scores more."""
        if not self.scores or not self.reference_scores:
            return None
        return self.reference_scores[0].value - self.scores[0].value


def reference_cell(cells: Iterable[CellResult]) -> CellResult | None:
    """The cell that others are held against: float32 and not `predict`, the first by backend and method.

    Of several batch sizes the largest: it answered the most examples.
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
    scores: tuple[Score, ...]
    reference_scores: tuple[Score, ...]


class QualityCheck:
    """Compares cells of one model with its reference, one at a time."""

    def __init__(self, entry: ModelEntry, reference: Arrays | None) -> None:
        self._entry = entry
        self._reference = reference
        # Most cells answer exactly alike, the others most sentences, and scoring entities takes longer than all else.
        self._digests = _Digests()
        self._judged: dict[tuple[bytes, bytes], _Judged] = {}
        self._scored: dict[tuple[bytes, bytes, int], tuple[Score, ...]] = {}
        self._sentences: dict[bytes, tuple[int, int, int]] = {}

    def of(self, arrays: Arrays | None) -> Quality:
        """The quality of a cell with these arrays; empty where there is nothing to compare."""
        if arrays is None:
            return Quality()
        predictions, labels = arrays.get("predictions"), arrays.get("labels")
        key = (self._digests.of(predictions), self._digests.of(labels))
        if key not in self._judged:
            self._judged[key] = self._judge(predictions, labels)
        judged = self._judged[key]
        reference = None if self._reference is None else self._reference.get("outputs")
        difference = _max_abs_difference(arrays.get("outputs"), reference)
        finite = difference is None or math.isfinite(difference)
        return Quality(
            max_abs_difference=difference if finite else None,
            not_finite=not finite,
            agreement=judged.agreement,
            agreement_count=judged.agreement_count,
            scores=judged.scores,
            reference_scores=judged.reference_scores,
        )

    def _judge(self, predictions: np.ndarray | None, labels: np.ndarray | None) -> _Judged:
        if self._reference is None:
            return _Judged(None, 0, self._scores(predictions, labels), ())
        theirs = self._reference.get("predictions")
        agreement, count = _agreement(predictions, theirs, labels)
        # A smaller batch answers fewer examples: both are scored on those that both answered.
        shared = None if predictions is None or theirs is None else min(len(predictions), len(theirs))
        return _Judged(
            agreement, count, self._scores(predictions, labels, shared), self._scores(theirs, labels, shared)
        )

    def _scores(
        self, predictions: np.ndarray | None, labels: np.ndarray | None, rows: int | None = None
    ) -> tuple[Score, ...]:
        """The scores on the first `rows` examples, or on all of them."""
        if predictions is None or labels is None:
            return ()
        rows = max(len(predictions), len(labels)) if rows is None else rows
        key = (self._digests.of(predictions), self._digests.of(labels), rows)
        if key not in self._scored:
            predictions, labels = predictions[:rows], labels[:rows]
            known = predictions.shape == labels.shape and bool((labels >= 0).any())
            self._scored[key] = self._score(predictions, labels) if known else ()
        return self._scored[key]

    def _score(self, predictions: np.ndarray, labels: np.ndarray) -> tuple[Score, ...]:
        from kcost.core.scores import accuracy, entity_f1_of

        known = labels >= 0
        if self._entry.task != "token-classification":
            return (accuracy(labels[known], predictions[known], SPLIT),)
        tokens = accuracy(labels[known], predictions[known], SPLIT, unit="tokens")
        tokens = tokens.model_copy(update={"name": "token_accuracy"})
        if max(labels.max(), predictions[known].max()) >= len(self._entry.label_names):
            return (tokens,)  # classes without a name: there are no tags to find entities in
        entities = entity_f1_of(self._entity_counts(predictions, labels), SPLIT)
        return (entities, tokens) if entities.count else (tokens,)

    def _entity_counts(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Entities found, wrongly found and missed in each sentence, shape (sentences, 3)."""
        from kcost.core.scores import sentence_counts

        names, both = self._entry.label_names, np.stack([labels, predictions], axis=1)
        keys = both.reshape(len(both), -1).view(f"V{both[0].nbytes}").ravel().tolist()
        for i in [i for i, key in enumerate(keys) if key not in self._sentences]:
            true, found = both[i]
            tags = [[[names[n] for n in numbers[true >= 0]]] for numbers in (true, found)]
            (counts,) = sentence_counts(*tags).tolist()
            self._sentences[keys[i]] = tuple(counts)
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
        found = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
        if not array.flags.writeable:
            self._known[id(array)] = (weakref.ref(array), found.digest())
        return found.digest()


def _max_abs_difference(mine: np.ndarray | None, theirs: np.ndarray | None) -> float | None:
    """The largest difference; NaN or infinite where an output is. None where the two cannot be compared."""
    if mine is None or theirs is None or mine.shape != theirs.shape or mine.size == 0:
        return None
    return float(np.abs(mine.astype(np.float64) - theirs.astype(np.float64)).max())


def _agreement(
    mine: np.ndarray | None, theirs: np.ndarray | None, labels: np.ndarray | None
) -> tuple[float | None, int]:
    if mine is None or theirs is None or mine.shape[1:] != theirs.shape[1:]:
        return None, 0
    shared = min(len(mine), len(theirs))
    equal = mine[:shared] == theirs[:shared]
    if labels is not None and labels.shape == mine.shape:
        equal = equal[labels[:shared] >= 0]  # what stands on padding is no answer
    return (float(equal.mean()), int(equal.size)) if equal.size else (None, 0)

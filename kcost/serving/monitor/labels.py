"""Labels that come after the answers: live accuracy or F1 with its interval, and calibration."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import numpy as np
from pydantic import Field

from kcost.core.schema import Record
from kcost.core.scores import f1_of
from kcost.core.stats import mean_interval
from kcost.risk.drift_features import entity_counts
from kcost.risk.drift_reference import Reference
from kcost.risk.figures import Figure, bootstrapped, share
from kcost.serving.monitor.rows import Rows

MOST_NUMBERS = 5_000_000
"""Answers that are kept until their labels come: class numbers of all of them; the oldest go."""

ENTRY = 64
"""What a request takes beside its class numbers, in such numbers: 5,000,000 are 77,000 requests of one row."""

MOST_LABELLED = 20_000
"""Rows that figures are taken over: the last ones."""


class LiveScore(Record):
    """What labels say of live answers."""

    rows: int
    score: Figure = Field(description="accuracy, or the F1 of entities")
    overconfidence: Figure | None = Field(description="mean confidence less accuracy; None of taggers")


class Labels:
    """Answers that wait for labels, and what labels said.

    Args:
        reference: of the model, for its classes.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._places = {name: i for i, name in enumerate(reference.label_names)}
        self._waiting: OrderedDict[str, Rows] = OrderedDict()
        self._numbers = 0
        self._right: deque[tuple[float, bool]] = deque(maxlen=MOST_LABELLED)
        self._entities: deque[np.ndarray] = deque(maxlen=MOST_LABELLED)
        self.labelled = 0

    def answered(self, request_id: str, rows: Rows) -> None:
        """Keeps answers until their labels come."""
        if request_id in self._waiting:
            self._forget(request_id)
        self._waiting[request_id] = Rows({"confidence": rows.confidence}, rows.predicted.astype(np.int32), None)
        self._numbers += rows.predicted.size + ENTRY
        while self._numbers > MOST_NUMBERS and len(self._waiting) > 1:
            self._forget(next(iter(self._waiting)))

    def _forget(self, request_id: str) -> None:
        self._numbers -= self._waiting.pop(request_id).predicted.size + ENTRY

    def knows(self, request_id: str) -> bool:
        """Whether answers of that request wait for labels."""
        return request_id in self._waiting

    def label(self, request_id: str, labels: list[Any]) -> None:
        """Takes the labels of a request's rows: names or numbers of classes, of a tagger a list for each row.

        In such a list there is a tag, or null, for each position of the answer.

        Raises:
            ValueError: they do not fit the answers.
        """
        rows = self._waiting[request_id]
        if len(labels) != len(rows.predicted):
            raise ValueError(f"{len(labels)} labels of {len(rows.predicted)} rows")
        if rows.predicted.ndim == 2:
            length = rows.predicted.shape[1]
            if not all(isinstance(row, list) and len(row) == length for row in labels):
                raise ValueError(f"a row of labels is a list with a tag or null for each of {length} positions")
            numbers = np.array([[-1 if tag is None else self._number(tag) for tag in row] for row in labels])
            self._entities += list(entity_counts(numbers, rows.predicted, self._reference.label_names))
        else:
            classes = np.array([self._number(label) for label in labels])
            self._right += zip(rows.confidence.tolist(), (classes == rows.predicted).tolist(), strict=True)
        self.labelled += len(labels)
        self._forget(request_id)

    def _number(self, label: object) -> int:
        place = self._places.get(label) if isinstance(label, str) else label
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(self._places):
            raise ValueError(f"{str(label)[:50]!r} is no class: they are {', '.join(list(self._places)[:10])}")
        return place

    def score(self) -> LiveScore | None:
        """Figures of the last rows with labels; None where there are none."""
        if self._entities:
            sums = np.array(self._entities, np.float64)
            figure = bootstrapped("entity_f1", sums, f1_of, self._reference.unit, lowest=0.0, highest=1.0)
            return LiveScore(rows=len(sums), score=figure, overconfidence=None)
        if not self._right:
            return None
        confidence, right = (np.array(c, np.float64) for c in zip(*self._right, strict=True))
        gap = None
        if len(right) > 1:
            interval = mean_interval(confidence - right)
            gap = Figure(
                name="overconfidence",
                value=interval.value,
                low=interval.low,
                high=interval.high,
                count=len(right),
                unit="rows",
            )
        return LiveScore(
            rows=len(right), score=share("accuracy", int(right.sum()), len(right), "rows"), overconfidence=gap
        )

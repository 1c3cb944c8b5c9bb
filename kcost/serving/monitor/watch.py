"""Rows, answers and labels of all models that have a reference: what the watching process does with each message."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import Field

from kcost.core.errors import in_a_line
from kcost.core.schema import Record
from kcost.core.unforeseen import logged
from kcost.cost.assumptions import HOURS_PER_MONTH
from kcost.risk.drift_reference import Reference
from kcost.risk.drift_watch import DriftWatch, ModelDrift
from kcost.risk.rollout import RolloutCounts
from kcost.serving.monitor.events import Events
from kcost.serving.monitor.labels import Labels, LiveScore
from kcost.serving.monitor.rows import Rows, UnreadableError, document, read_predicted, read_rows
from kcost.serving.monitor.settings import MonitorSettings
from kcost.serving.monitor.store import SampleStore

_RATE_WINDOWS = 20
_MOST_LOGS = 10


class WatchedModel(Record):
    """One model's rows since the watching began."""

    name: str = Field(description="as it is served")
    drift: ModelDrift
    live: LiveScore | None = Field(description="what labels say; None where none came")
    agreement: RolloutCounts = Field(
        default=RolloutCounts(), description="of two versions that were asked the same: rows, and those that differ"
    )
    rows_per_s: float = Field(description="over the last windows, those that were not looked at reckoned in")
    labelled: int


class Watched(Record):
    """What the watching process knows."""

    models: tuple[WatchedModel, ...] = ()
    requests: int = 0
    unreadable: int = Field(default=0, description="requests that features could not be taken of")
    unreadable_because: str | None = None
    samples_stored: int = Field(default=0, description="requests and labels that are safe on disk")
    samples_failed: str | None = Field(default=None, description="why samples are not stored any more")
    events: int = 0
    webhook_failures: int = 0


class Watch:
    """State of the watching process.

    Args:
        settings: what the user said.
        references: served name -> reference.
        clock: seconds that never go back.
        agreed: served name -> what was counted of the answers of two versions before; it is counted on.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        references: dict[str, Reference],
        clock: Callable[[], float] = time.monotonic,
        agreed: Mapping[str, RolloutCounts] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = np.random.default_rng(settings.seed)
        self._models = {name: _Model(settings, reference) for name, reference in references.items()}
        for name, counts in (agreed or {}).items():
            if name in self._models:
                self._models[name].agreement = counts
        self._store = None if settings.samples is None else SampleStore(settings.samples)
        self._events = Events(settings.events)
        self._requests = 0
        self._dropped = 0
        self._unreadable = 0
        self._unforeseen = 0
        self._because: str | None = None
        self._failed: str | None = None

    def request(self, header: dict[str, Any], request: bytes, answer: bytes) -> None:
        """Looks at one request that was answered with 200.

        Args:
            header: id, model, version, caller, at_s, dropped, request_encoding, answer_encoding.
        """
        self._requests += 1
        self._dropped = header["dropped"]
        model, rows = self._models.get(header["model"]), None
        request_body: dict[str, Any] | None = None
        try:
            if model is not None:
                request_body = document(request, header["request_encoding"])
                answer_body = document(answer, header["answer_encoding"])
                rows = read_rows(model.reference, request_body, answer_body, self._rng)
                self._take(header, model, rows)
        except UnreadableError as error:
            self._unreadable += 1
            self._because = str(error)
        samples = self._settings.samples
        if samples is not None and self._rng.random() < samples.share:
            if samples.inputs and request_body is None:
                try:
                    request_body = document(request, header["request_encoding"])
                except UnreadableError as error:
                    self._because = str(error)
            self._sample(header, model, rows, request_body if samples.inputs else None)

    def compared(self, header: dict[str, Any], old_answer: bytes, new_answer: bytes) -> None:
        """Holds the answers of two versions to one request against each other.

        Args:
            header: model, old_encoding, new_encoding.
        """
        model = self._models.get(header["model"])
        if model is None:
            return
        try:
            old = read_predicted(model.reference, document(old_answer, header["old_encoding"]))
            new = read_predicted(model.reference, document(new_answer, header["new_encoding"]))
        except UnreadableError as error:
            self._unreadable += 1
            self._because = str(error)
            return
        agreed = np.zeros(len(old), bool)
        if old.shape == new.shape:
            agreed = (old == new).reshape(len(old), -1).all(1)
        pair = RolloutCounts(rows=len(agreed), row_squares=len(agreed) ** 2, otherwise=int((~agreed).sum()))
        model.agreement = model.agreement.plus(pair)

    def tell(self, event: dict[str, Any]) -> None:
        """Tells of an event that the proxy saw."""
        self._events.tell(event)

    def unforeseen(self, error: Exception) -> None:
        """An error that nobody foresaw while a request was looked at: it counts as one that cannot be read."""
        self._unreadable += 1
        self._unforeseen += 1
        log = logged(error) if self._unforeseen <= _MOST_LOGS else "The tracebacks are in the logs of the first."
        self._because = f"kcost did not foresee this: {in_a_line(error)}. {log}"

    def _take(self, header: dict[str, Any], model: _Model, rows: Rows) -> None:
        if not model.times:
            model.times.append((self._clock(), 0, self._requests - 1, self._dropped))
        model.labels.answered(header["id"], rows)
        before = {f.name for f in model.last.drifted} if model.last is not None else set()
        if not model.drift.add(rows.columns):
            return
        model.times.append((self._clock(), model.drift.rows, self._requests, self._dropped))
        model.last = model.report(self._settings.usd_per_error)
        now = {f.name: f for f in model.last.drifted}
        for name in sorted(now.keys() - before):
            feature = now[name]
            usd = None if model.last.cost is None else model.last.cost.usd_per_month.model_dump()
            self._events.tell(
                {
                    **{"event": "drift", "at_s": header["at_s"], "model": header["model"], "feature": name},
                    **{"psi": feature.psi, "false_alarm_probability": feature.false_alarm_probability},
                    **{"reference": feature.reference, "now": feature.now, "window": model.drift.windows},
                    "usd_per_month": usd if self._settings.usd_per_error else None,
                }
            )
        for name in sorted(before - now.keys()):
            self._events.tell(
                {"event": "drift over", "at_s": header["at_s"], "model": header["model"], "feature": name}
            )

    def _sample(
        self, header: dict[str, Any], model: _Model | None, rows: Rows | None, request_body: dict[str, Any] | None
    ) -> None:
        if self._store is None or self._failed is not None:
            return
        sample: dict[str, Any] = {"kind": "request"}
        sample |= {name: header[name] for name in ("at_s", "id", "model", "version")}
        sample["caller"] = self._store.clean(header["caller"], "caller") if header["caller"] else ""
        if rows is not None:
            sample["features"] = {name: values.tolist() for name, values in rows.columns.items()}
        if request_body is not None:
            tokens = model is not None and model.reference.reading.form == "tokens"
            hidden = {model.reference.reading.input or ""} if model is not None and tokens else set()
            sample["request"] = self._store.clean(request_body, text_ids=frozenset(hidden))
        self._append(sample)

    def label(self, body: bytes, at_s: float) -> dict[str, Any]:
        """Takes labels; gives what the client is told, with `error` where some cannot be used.

        The labels of one request are taken whole or not at all. Those of requests before a wrong one are taken, and
        their number is in the answer.
        """
        try:
            entries = _label_entries(document(body, ""))
        except (UnreadableError, ValueError) as error:
            return {"error": str(error)}
        accepted, unknown = 0, 0
        for request_id, labels in entries:
            model = next((m for m in self._models.values() if m.labels.knows(request_id)), None)
            if model is None:
                unknown += 1
                continue
            try:
                model.labels.label(request_id, labels)
            except ValueError as error:
                return {"error": f"labels of {request_id[:100]}: {error}", "accepted": accepted}
            accepted += 1
            self._append({"kind": "label", "at_s": at_s, "id": request_id, "labels": labels})
        return {"accepted": accepted, "unknown_ids": unknown, "stored": self._store is not None and not self._failed}

    def _append(self, sample: dict[str, Any]) -> None:
        if self._store is None or self._failed is not None:
            return
        try:
            self._store.append(sample)
        except Exception as error:  # a full disk stops the storing, not the watching; the report says so
            self._failed = str(error).splitlines()[0]

    def sync(self) -> None:
        """Returns when what was stored is on disk, or the reason why it is not is known."""
        if self._store is None or self._failed is not None:
            return
        try:
            self._store.sync()
        except Exception as error:
            self._failed = str(error).splitlines()[0]

    @property
    def failed(self) -> str | None:
        """Why samples are not stored any more."""
        return self._failed

    def watched(self) -> Watched:
        """What is known now."""
        return Watched(
            models=tuple(
                model.watched(name, self._settings.usd_per_error) for name, model in sorted(self._models.items())
            ),
            requests=self._requests,
            unreadable=self._unreadable,
            unreadable_because=self._because,
            samples_stored=0 if self._store is None else self._store.stored,
            samples_failed=self._failed,
            events=self._events.count,
            webhook_failures=self._events.webhook_failures,
        )

    def close(self) -> None:
        """Syncs, and ends."""
        self.sync()
        self._events.close()


class _Model:
    def __init__(self, settings: MonitorSettings, reference: Reference) -> None:
        self.reference = reference
        self.drift = DriftWatch(reference, settings.window_rows, settings.false_alarms, settings.seed)
        self.labels = Labels(reference)
        self.last: ModelDrift | None = None
        self.agreement = RolloutCounts()
        self.times: deque[tuple[float, int, int, int]] = deque(maxlen=_RATE_WINDOWS)
        """(seconds, rows, requests, requests that were not looked at): at the first request, and after each window."""

    @property
    def rows_per_s(self) -> float:
        """Over the last windows; 0 before there is one."""
        if len(self.times) < 2 or self.times[-1][0] <= self.times[0][0]:
            return 0.0
        (first_s, first_rows, first, first_dropped), (last_s, rows, requests, dropped) = self.times[0], self.times[-1]
        seen, missed = requests - first, dropped - first_dropped
        return (rows - first_rows) / (last_s - first_s) * (seen + missed) / max(1, seen)

    def report(self, usd_per_error: float) -> ModelDrift:
        return self.drift.report(self.rows_per_s * 3600 * HOURS_PER_MONTH, usd_per_error)

    def watched(self, name: str, usd_per_error: float) -> WatchedModel:
        last = self.last if self.last is not None else self.report(usd_per_error)
        return WatchedModel(
            name=name,
            drift=last.model_copy(update={"rows": self.drift.rows}),
            live=self.labels.score(),
            agreement=self.agreement,
            rows_per_s=self.rows_per_s,
            labelled=self.labels.labelled,
        )


def _label_entries(whole: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    entries = whole.get("labels")
    form = '{"labels": [{"id": "...", "label": "7"}]}, or "labels": ["7", "2"] for a request of several rows'
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"labels are such as {form}")
    labels: list[tuple[str, list[Any]]] = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise ValueError(f"each label has an id: {form}")
        if ("label" in entry) == ("labels" in entry) or not isinstance(entry.get("labels", []), list):
            raise ValueError(f"each entry has `label`, or `labels` with one for each row: {form}")
        labels.append((entry["id"], entry["labels"] if "labels" in entry else [entry["label"]]))
    return labels

"""Metrics of the proxy for Prometheus.

Names that TensorFlow Serving has are its own, latencies in microseconds; kcost's are in base units, and counters end in
`_total`. Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from kcost.cost.invoice import Invoice
from kcost.serving.metrics import Labels
from kcost.serving.monitor.metric_names import (
    DRIFT_USD,
    DRIFTED,
    EVENTS,
    EXTRA_ERRORS,
    FALSE_ALARM,
    FORECAST_TIMES,
    FORECAST_USD,
    IDLE_USD,
    LABELS,
    LIVE_SCORE,
    MACHINE_USD,
    NOT_WATCHED,
    OVERHEAD_USD,
    PSI,
    REQUESTS,
    REQUESTS_USD,
    ROLLOUT_DEARER,
    ROLLOUT_DECISION,
    ROLLOUT_FAILED,
    ROLLOUT_HOLDS,
    ROLLOUT_OTHERWISE,
    ROLLOUT_PROBABILITY,
    ROLLOUT_REQUESTS,
    ROLLOUT_ROWS,
    ROLLOUT_SLOWER,
    ROLLOUT_STOPPED,
    ROWS,
    SAMPLES,
    UNDER_WAY,
    UNREADABLE,
    UP,
    WATCHER_RESTARTS,
    WEBHOOK_FAILURES,
    WINDOWS,
)
from kcost.serving.monitor.report import MonitorReport
from kcost.serving.monitor.rollouts import RolloutState

_DECISIONS = {"roll back": -1.0, "can't tell": 0.0, "promote": 1.0}

Sample = tuple[str, str, Labels, float]
"""Name, type, labels, value."""


def samples_of(report: MonitorReport) -> list[Sample]:
    """Everything that the proxy exports beside what `kcost.serving.metrics` counts."""
    samples = _invoice_samples(report.invoice)
    samples.append((UNDER_WAY, "gauge", (), float(report.traffic.under_way)))
    if report.watcher is not None:
        samples += [
            (UP, "gauge", (), float(report.watcher.is_up)),
            (NOT_WATCHED, "counter", (), float(report.watcher.dropped)),
            (WATCHER_RESTARTS, "counter", (), float(report.watcher.restarts)),
            (UNREADABLE, "counter", (), float(report.watched.unreadable)),
            (SAMPLES, "counter", (), float(report.watched.samples_stored)),
            (EVENTS, "counter", (), float(report.watched.events)),
            (WEBHOOK_FAILURES, "counter", (), float(report.watched.webhook_failures)),
        ]
    for model in report.watched.models:
        of_model: Labels = (("model_name", model.name),)
        samples += [
            (ROWS, "counter", of_model, float(model.drift.rows)),
            (WINDOWS, "counter", of_model, float(model.drift.windows)),
            (DRIFTED, "gauge", of_model, float(bool(model.drift.drifted))),
            (LABELS, "counter", of_model, float(model.labelled)),
        ]
        for feature in model.drift.features:
            of_feature: Labels = (*of_model, ("feature", feature.name))
            samples.append((PSI, "gauge", of_feature, feature.psi))
            samples.append((FALSE_ALARM, "gauge", of_feature, feature.false_alarm_probability))
        if model.drift.cost is not None:
            samples.append((EXTRA_ERRORS, "gauge", of_model, model.drift.cost.extra_errors_per_million.value / 1e6))
            samples.append((DRIFT_USD, "gauge", of_model, model.drift.cost.usd_per_month.value))
        if model.live is not None:
            samples.append((LIVE_SCORE, "gauge", (*of_model, ("score", model.live.score.name)), model.live.score.value))
    for state in report.rollouts:
        samples += _rollout_samples(state)
    return samples


def _rollout_samples(state: RolloutState) -> list[Sample]:
    labels: Labels = (("model_name", state.model), ("version", str(state.version)), ("kind", state.kind))
    rollout, counts = state.rollout, state.rollout.counts
    samples: list[Sample] = [
        (ROLLOUT_REQUESTS, "counter", labels, float(counts.requests)),
        (ROLLOUT_FAILED, "counter", labels, float(counts.failed)),
        (ROLLOUT_ROWS, "counter", labels, float(counts.rows)),
        (ROLLOUT_OTHERWISE, "counter", labels, float(counts.otherwise)),
        (ROLLOUT_PROBABILITY, "gauge", labels, rollout.probability),
        (ROLLOUT_DECISION, "gauge", labels, _DECISIONS[rollout.decision]),
        (ROLLOUT_STOPPED, "gauge", labels, float(state.stopped)),
    ]
    samples += [(ROLLOUT_HOLDS, "gauge", (*labels, ("gate", gate)), p) for gate, p in rollout.holds.items()]
    if rollout.slower is not None:
        samples.append((ROLLOUT_SLOWER, "gauge", labels, rollout.slower))
    if rollout.dearer is not None:
        samples.append((ROLLOUT_DEARER, "gauge", labels, rollout.dearer))
    return samples


def _invoice_samples(bill: Invoice) -> list[Sample]:
    samples: list[Sample] = [
        (MACHINE_USD, "counter", (), bill.total_usd),
        (IDLE_USD, "counter", (), bill.idle_usd),
        (OVERHEAD_USD, "counter", (), bill.overhead_usd),
    ]
    for line in bill.lines:
        labels = (("model_name", line.model), ("version", line.version), ("caller", line.caller))
        samples.append((REQUESTS, "counter", labels, float(line.requests)))
        samples.append((REQUESTS_USD, "counter", labels, line.usd))
        if line.forecast is not None:
            samples.append((FORECAST_USD, "gauge", labels, line.forecast.usd_per_million))
            samples.append((FORECAST_TIMES, "gauge", labels, line.forecast.times))
    return samples

"""Metrics of the proxy for Prometheus, the alert rules over them and a Grafana dashboard of them.

Names that TensorFlow Serving has are its own, latencies in microseconds; kcost's are in base units, and counters end in
`_total`. Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from typing import Any

from kcost.cost.invoice import Invoice
from kcost.serving.metrics import REQUEST_COUNT, REQUEST_LATENCY, Labels
from kcost.serving.monitor.report import MonitorReport

UP = "kcost_watcher_up"
UNDER_WAY = "kcost_requests_under_way"
NOT_WATCHED = "kcost_requests_not_watched_total"
UNREADABLE = "kcost_requests_unreadable_total"
WATCHER_RESTARTS = "kcost_watcher_restarts_total"
SAMPLES = "kcost_samples_stored_total"
EVENTS = "kcost_events_total"
WEBHOOK_FAILURES = "kcost_webhook_failures_total"
MACHINE_USD = "kcost_machine_usd_total"
IDLE_USD = "kcost_idle_usd_total"
OVERHEAD_USD = "kcost_overhead_usd_total"
REQUESTS_USD = "kcost_requests_usd_total"
REQUESTS = "kcost_requests_total"
ROWS = "kcost_rows_watched_total"
WINDOWS = "kcost_drift_windows_total"
PSI = "kcost_drift_psi"
FALSE_ALARM = "kcost_drift_false_alarm_probability"
DRIFTED = "kcost_drifted"
EXTRA_ERRORS = "kcost_drift_extra_errors_ratio"
DRIFT_USD = "kcost_drift_usd_per_month"
LABELS = "kcost_labels_total"
LIVE_SCORE = "kcost_live_score_ratio"

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
    return samples


def alert_rules(p99_ms: float | None) -> str:
    """Rules that Prometheus loads: YAML, checked by `promtool check rules`.

    Args:
        p99_ms: the limit of latency; None leaves that rule out.
    """
    failed = f'sum(rate({REQUEST_COUNT}{{status!="OK"}}[5m]))'
    rules = [
        ("KcostRequestsFail", f"{failed} / sum(rate({REQUEST_COUNT}[5m])) > 0.01", "5m", "critical",
         "More than 1% of requests fail", "{{ $value | humanizePercentage }} of requests failed over 5 minutes."),
        ("KcostDrift", f"max by (model_name) ({DRIFTED}) > 0", "0m", "warning",
         "Traffic of {{ $labels.model_name }} has drifted", "Look at /kcost/ of the proxy, or ask kcost monitor."),
        ("KcostDriftCostsMoney", f"max by (model_name) ({DRIFT_USD}) > 100 and max by (model_name) ({DRIFTED}) > 0",
         "15m", "critical", "Drift of {{ $labels.model_name }} costs money",
         "Expected extra errors cost {{ $value | humanize }} USD a month."),
        ("KcostWatcherDown", f"{UP} == 0", "2m", "warning", "Drift is not watched",
         "The process that watches is not there; requests are still answered."),
        ("KcostTrafficIsSampled", f"rate({NOT_WATCHED}[5m]) > 0", "15m", "info", "Drift is watched on a sample",
         "{{ $value | humanize }} requests a second are not looked at."),
        ("KcostWebhooksFail", f"increase({WEBHOOK_FAILURES}[15m]) > 0", "0m", "warning", "A webhook takes no events",
         "{{ $value | humanize }} events did not arrive in 15 minutes."),
        ("KcostMachineIsIdle", f"rate({IDLE_USD}[6h]) / rate({MACHINE_USD}[6h]) > 0.9", "6h", "info",
         "More than 90% of the machine's price is idle time", "A smaller machine, or more models on it, costs less."),
    ]  # fmt: skip
    if p99_ms is not None:
        late = f"histogram_quantile(0.99, sum by (le, model_name) (rate({REQUEST_LATENCY}_bucket[5m]))) / 1000"
        rules.insert(1, ("KcostRequestsAreLate", f"{late} > {p99_ms:g}", "5m", "critical",
                         f"The p99 of {{{{ $labels.model_name }}}} is above {p99_ms:g} ms",
                         "It is {{ $value | humanize }} ms."))  # fmt: skip
    lines = ["groups:", "  - name: kcost", "    rules:"]
    for name, expression, hold, severity, summary, description in rules:
        lines += [f"      - alert: {name}", f"        expr: {_quoted(expression)}", f"        for: {hold}"]
        lines += ["        labels:", f"          severity: {severity}", "        annotations:"]
        lines += [f"          summary: {_quoted(summary)}", f"          description: {_quoted(description)}"]
    return "\n".join(lines) + "\n"


def dashboard() -> dict[str, Any]:
    """A dashboard that Grafana imports, as JSON: it asks for the Prometheus to use."""
    rate = f"rate({REQUEST_LATENCY}_bucket[$__rate_interval])"
    panels = [
        ("Drifted", "stat", [(f"max by (model_name) ({DRIFTED})", "{{model_name}}")], "bool_yes_no"),
        ("USD a month of drift", "stat", [(f"max by (model_name) ({DRIFT_USD})", "{{model_name}}")], "currencyUSD"),
        ("USD an hour, by model", "timeseries",
         [(f"sum by (model_name) (rate({REQUESTS_USD}[$__rate_interval])) * 3600", "{{model_name}}"),
          (f"rate({IDLE_USD}[$__rate_interval]) * 3600", "idle"),
          (f"rate({OVERHEAD_USD}[$__rate_interval]) * 3600", "overhead")], "currencyUSD"),
        ("Requests a second", "timeseries",
         [(f"sum by (model_name, status) (rate({REQUEST_COUNT}[$__rate_interval]))", "{{model_name}} {{status}}")],
         "reqps"),
        ("Latency", "timeseries",
         [(f"histogram_quantile({q}, sum by (le) ({rate}))", f"p{q * 100:g}") for q in (0.5, 0.99)], "µs"),
        ("Under way", "timeseries", [(UNDER_WAY, "requests")], "short"),
        ("Size of drift (PSI)", "timeseries", [(PSI, "{{model_name}} {{feature}}")], "short"),
        ("Chance of a false alarm, at most", "timeseries", [(FALSE_ALARM, "{{model_name}} {{feature}}")],
         "percentunit"),
        ("Live score, of labels", "timeseries", [(LIVE_SCORE, "{{model_name}} {{score}}")], "percentunit"),
        ("Not looked at, unreadable", "timeseries",
         [(f"rate({NOT_WATCHED}[$__rate_interval])", "not looked at"),
          (f"rate({UNREADABLE}[$__rate_interval])", "unreadable")], "reqps"),
    ]  # fmt: skip
    source = {"type": "prometheus", "uid": "${datasource}"}
    made = []
    for place, (title, kind, queries, unit) in enumerate(panels):
        targets = [
            {"refId": "ABCDEF"[i], "expr": query, "legendFormat": legend, "datasource": source}
            for i, (query, legend) in enumerate(queries)
        ]
        made.append(
            {
                "id": place + 1,
                "title": title,
                "type": kind,
                "datasource": source,
                "gridPos": {"h": 8, "w": 12, "x": 12 * (place % 2), "y": 8 * (place // 2)},
                "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
                "targets": targets,
            }
        )
    variable = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": "kcost-proxy",
        "title": "kcost: models, drift and dollars",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": made,
    }


def _quoted(text: str) -> str:
    """A YAML string in single quotes."""
    return "'" + text.replace("'", "''") + "'"

"""Alert rules for Prometheus over the metrics of a proxy, and a Grafana dashboard of them. No extra is needed."""

from __future__ import annotations

from typing import Any

from kcost.serving.metrics import REQUEST_COUNT, REQUEST_LATENCY
from kcost.serving.monitor.metric_names import (
    DRIFT_USD,
    DRIFTED,
    FALSE_ALARM,
    FORECAST_TIMES,
    FORECAST_USD,
    IDLE_USD,
    LIVE_SCORE,
    MACHINE_USD,
    NOT_WATCHED,
    OVERHEAD_USD,
    PSI,
    REQUESTS,
    REQUESTS_USD,
    ROLLOUT_DEARER,
    ROLLOUT_DECISION,
    ROLLOUT_HOLDS,
    ROLLOUT_SLOWER,
    UNDER_WAY,
    UNREADABLE,
    UP,
    WEBHOOK_FAILURES,
)


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
        ("KcostRollBack", f"{ROLLOUT_DECISION} < 0", "0m", "critical",
         "Version {{ $labels.version }} of {{ $labels.model_name }} breaks a gate",
         "Look at kcost monitor rollout of the proxy. A canary is asked no more."),
        ("KcostPromote", f"{ROLLOUT_DECISION} > 0", "0m", "info",
         "Version {{ $labels.version }} of {{ $labels.model_name }} holds all gates", "It may take over."),
        ("KcostDearerThanForecast", f"max by (model_name) ({FORECAST_TIMES}) > 2", "6h", "info",
         "{{ $labels.model_name }} costs more than twice its forecast",
         "{{ $value | humanize }} times. /kcost/invoice of the proxy says through what."),
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
        ("USD per million requests, idle time left out", "timeseries",
         [(f"sum by (model_name) (rate({REQUESTS_USD}[$__rate_interval])) / "
           f"sum by (model_name) (rate({REQUESTS}[$__rate_interval])) * 1e6", "{{model_name}}"),
          (f"max by (model_name) ({FORECAST_USD})", "{{model_name}}, forecast")], "currencyUSD"),
        ("Cost over the forecast", "stat", [(f"max by (model_name, version) ({FORECAST_TIMES})",
                                             "{{model_name}} {{version}}")], "short"),
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
        ("New version: decision (-1 roll back, 1 promote)", "stat",
         [(ROLLOUT_DECISION, "{{model_name}} {{version}} {{kind}}")], "short"),
        ("New version: a gate holds with", "timeseries",
         [(ROLLOUT_HOLDS, "{{model_name}} {{version}} {{gate}}")], "percentunit"),
        ("New version: latency and cost over the old one's", "timeseries",
         [(ROLLOUT_SLOWER, "{{model_name}} {{version}} latency"), (ROLLOUT_DEARER, "{{model_name}} {{version}} cost")],
         "short"),
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

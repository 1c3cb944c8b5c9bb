"""What serving shows in the terminal: a server that started, a load test, the rate that holds a bound, an invoice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from kcost.core.units import format_cents, format_percent, format_s, format_usd, significant, usd_a_million
from kcost.report.tables import show_more, show_notices, titled_table

if TYPE_CHECKING:
    from kcost.cost.invoice import Invoice
    from kcost.serving.load_report import LoadReport, Quantiles
    from kcost.serving.rate_search import RateReport
    from kcost.serving.server import Serving

SERVED_ROWS = 8
"""Of what a server serves, or bills, on one screen; all of it is in --json."""

LAST_TRIALS = 6

FORECAST_ROWS = 3
"""Lines that are told why they differ from their forecast."""


def show_serving(console: Console, serving: Serving) -> None:
    """A server that has started: where, what, and what it does not do."""
    for v in serving.versions[:SERVED_ROWS]:
        where = f"{serving.url}/v1/models/{v.model}"
        console.print(f"{v.model} version {v.version} {v.state}: POST {where}:predict", highlight=False, markup=False)
    if len(serving.versions) > SERVED_ROWS:
        console.print(f"and {len(serving.versions) - SERVED_ROWS} more versions", highlight=False)
    if serving.grpc_address is not None:
        console.print(f"gRPC: {serving.grpc_address}", highlight=False, markup=False)
    if serving.metrics_url is not None:
        console.print(f"metrics: {serving.metrics_url}", highlight=False, markup=False)
    console.print("no password is asked for; Ctrl-C answers what was accepted, and ends", highlight=False)


def show_load(console: Console, report: LoadReport, *, everything: bool = False) -> None:
    """A load test: the p99 first, then what limits it."""
    width = "" if report.latency.p99_low_ms is None else _interval_text(report.latency)
    failed = "none failed" if not report.failed else f"{report.failed:,} failed"
    console.print(
        f"p99 {significant(report.latency.p99_ms)} ms{width} at {significant(report.offered_per_s)} requests/s: "
        f"{report.requests:,} requests, {failed}",
        highlight=False,
    )
    table = titled_table("Latency, ms", "", "p50", "p90", "p99", "largest")
    rows = (
        ("since it was due", report.latency),
        ("since it was sent", report.after_sending),
        ("the client's own delay", report.own_delay),
    )
    for name, q in rows:
        table.add_row(name, *(significant(value) for value in (q.p50_ms, q.p90_ms, q.p99_ms, q.max_ms)))
    console.print(table)
    show_notices(console, [f"limit: {limit}" for limit in report.limits], everything=everything)
    statuses = ", ".join(f"{n:,} {text}" for text, n in sorted(report.statuses.items()))
    console.print(
        f"{statuses}; {significant(report.answered_per_s)} answered a second of {significant(report.duration_s)} s; "
        f"{report.connections:,} connections; arrivals: {report.source}; body: {report.body}",
        highlight=False,
        markup=False,
    )


def show_invoice(console: Console, bill: Invoice) -> None:
    """What a machine cost, and what for; the dearest lines."""

    def share(usd: float) -> str:
        return format_percent(usd / bill.total_usd if bill.total_usd else 0.0)

    console.print(
        f"{format_cents(bill.total_usd)} for {format_s(bill.seconds)} at {format_usd(bill.usd_per_hour)} an hour: "
        f"requests {share(bill.requests_usd)} + overhead {share(bill.overhead_usd)} + idle {share(bill.idle_usd)}",
        highlight=False,
    )
    dearest = sorted(bill.lines, key=lambda line: -line.usd)[:SERVED_ROWS]
    has_forecast = any(line.forecast is not None for line in dearest)
    table = titled_table(
        f"The {len(dearest)} dearest of {len(bill.lines)} lines",
        *("model", "version", "caller", "requests"),
        *(("share", "a request costs", "forecast") if has_forecast else ("failed", "share", "a request costs")),
    )
    for line in dearest:
        names = (escape(line.model), escape(line.version), escape(line.caller))
        costs = [share(line.usd), usd_a_million(line.usd_per_million)]
        if has_forecast:
            costs.append("-" if line.forecast is None else usd_a_million(line.forecast.usd_per_million))
        else:
            costs.insert(0, f"{line.failed:,}")
        table.add_row(*names, f"{line.requests:,}", *costs)
    console.print(table)
    for line in [x for x in dearest if x.forecast is not None][:FORECAST_ROWS]:
        assert line.forecast is not None
        whose = " ".join(filter(None, (line.model, line.version, line.caller)))
        console.print(f"{whose}: {line.forecast.why}", highlight=False, markup=False)
    console.print("limit: shares are of time, not of work: requests under way together pay alike", highlight=False)


def _interval_text(q: Quantiles) -> str:
    return f" (95%: {significant(q.p99_low_ms or 0)} to {significant(q.p99_high_ms or 0)})"


def show_rate(console: Console, report: RateReport, *, everything: bool = False) -> None:
    """The highest rate that holds a bound; then what limits it, and the last trials."""
    bound = f"a p99 of {significant(report.bound_ms)} ms"
    if report.rate_per_s is None:
        console.print(f"no rate that was tried holds {bound}", highlight=False)
    else:
        console.print(f"{significant(report.rate_per_s)} requests/s hold {bound}", highlight=False)
    show_notices(console, [f"limit: {limit}" for limit in report.limits], everything=everything)
    shown = report.trials if everything else report.trials[-LAST_TRIALS:]
    table = titled_table(
        f"The last {len(shown)} of {len(report.trials)} trials", "requests/s", "requests", "p99, ms", "failed", "holds"
    )
    for trial in shown:
        table.add_row(
            significant(trial.rate_per_s),
            f"{trial.requests:,}",
            significant(trial.p99_ms),
            f"{trial.failed:,}",
            "yes" if trial.holds else "no",
        )
    console.print(table)
    show_more(console, len(report.trials) - len(shown), "trials")

"""What `kcost monitor` prints: the conclusion first, on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.units import format_cents, format_s, format_usd, significant
from kcost.report.tables import show_notices, titled_table
from kcost.serving.monitor.report import chance_text

if TYPE_CHECKING:
    from kcost.risk.drift_reference import Reference
    from kcost.risk.drift_watch import FeatureDrift
    from kcost.risk.rollout import Rollout
    from kcost.serving.monitor.report import MonitorReport

STYLES = {"healthy": "bold green", "drifted": "bold red", "failing": "bold red", "can't tell": "bold yellow"}
MOST_FEATURES = 6


def show_monitor(console: Console, report: MonitorReport, url: str, *, everything: bool = False) -> None:
    """What a proxy says; every feature and limit, if asked."""
    console.print(f"[{STYLES[report.outcome]}]{escape(report.conclusion)}[/]", highlight=False)
    for line in _traffic(report):
        console.print(escape(line), highlight=False)
    features = [(m.name, f) for m in report.watched.models if m.drift.windows for f in m.drift.features]
    features.sort(key=lambda pair: (not pair[1].drifted, pair[1].since_window is None, -pair[1].psi))
    if features:
        console.print(_features(features if everything else features[:MOST_FEATURES], len(features)))
    show_notices(console, [f"limit: {limit}" for limit in report.limits], everything=everything)
    console.print(f"all of it: --json, or {url.rstrip('/')}/kcost/ in a browser", highlight=False, markup=False)


def _traffic(report: MonitorReport) -> list[str]:
    traffic, bill = report.traffic, report.invoice
    lines = []
    if traffic.requests:
        latency = ""
        if traffic.p50_ms is not None and traffic.p99_ms is not None:
            latency = f", p50 {significant(traffic.p50_ms)} ms, p99 {significant(traffic.p99_ms)} ms"
        lines.append(
            f"{significant(traffic.requests_per_s)} requests/s in the last minute{latency}, {traffic.failed_share:.1%} "
            f"failed, {traffic.under_way} under way; {traffic.requests:,} in {format_s(traffic.seconds)}"
        )
    share = bill.idle_usd / bill.total_usd if bill.total_usd else 0.0
    lines.append(f"{format_cents(bill.total_usd)} so far at {format_usd(bill.usd_per_hour)} an hour, idle {share:.0%}")
    for model in report.watched.models:
        if model.live is not None:
            score = model.live.score
            lines.append(
                f"{model.name}: {score.name} {score.value:.4f} (95%: {score.low:.4f} to {score.high:.4f}) of "
                f"{model.live.rows:,} rows with labels"
            )
        if model.shadow is not None:
            lines.append(shadow_text(model.name, model.shadow))
    return lines


def shadow_text(name: str, shadow: Rollout) -> str:
    """What is to be done with the other version, and why."""
    off, counts = shadow.disagreement, shadow.counts
    slower = "-" if shadow.slower is None else f"{shadow.slower:.2f}"
    return (
        f"shadow of {name}: {shadow.decision} (all gates hold: {shadow.probability:.0%} at least): {counts.requests:,} "
        f"requests, {off.value:.1%} of rows otherwise (95%: {off.low:.1%} to {off.high:.1%}), "
        f"{counts.failed:,} failed, {slower} times the latency"
    )


def _features(features: list[tuple[str, FeatureDrift]], count: int) -> Table:
    table = titled_table(f"{len(features)} of {count} features, the drifted first")
    for heading in ("model", "feature", "reference", "now", "PSI", "by chance", "false alarm"):
        table.add_column(heading, overflow="fold", justify="left" if heading in ("model", "feature") else "right")
    for name, f in features:
        style = "red" if f.drifted else ""
        chance = f"<= {chance_text(f.false_alarm_probability)}"
        cells = (f.reference, f.now, significant(f.psi, 2), significant(f.psi_by_chance, 2), chance)
        table.add_row(escape(name), escape(f.name), *map(escape, cells), style=style)
    return table


def show_reference(console: Console, reference: Reference, *, everything: bool = False) -> None:
    """A reference that was made."""
    wrong = sum(band.wrong for band in reference.bands)
    console.print(
        f"reference of {reference.model}: {reference.rows:,} {reference.unit} of {reference.dataset} "
        f"({reference.split}), {wrong / reference.rows:.1%} of them with an error",
        highlight=False,
        markup=False,
    )
    names = ", ".join(f.name for f in reference.features)
    console.print(f"watched: {names}", highlight=False, markup=False)
    show_notices(console, [f"limit: {note}" for note in reference.notes], everything=everything)
    command = "kcost serve --upstream URL --usd-per-hour P --reference NAME=FILE"
    console.print(f"next: {command}", highlight=False, markup=False)

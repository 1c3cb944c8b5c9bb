"""What `kcost monitor` prints: the conclusion first, on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.units import format_cents, format_s, format_usd, significant
from kcost.report.tables import show_notices, titled_table
from kcost.serving.monitor.report import chance_text, rollout_sentence

if TYPE_CHECKING:
    from kcost.risk.drift_reference import Reference
    from kcost.risk.drift_watch import FeatureDrift
    from kcost.serving.monitor.report import MonitorReport
    from kcost.serving.monitor.rollouts import RolloutState

STYLES = {"healthy": "bold green", "drifted": "bold red", "failing": "bold red", "can't tell": "bold yellow"}
ROLLOUT_STYLES = {"promote": "bold green", "roll back": "bold red", "can't tell": "bold yellow"}
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
    page = f"{url.rstrip('/').removesuffix('/kcost')}/kcost/"
    console.print(f"all of it: --json, or {page} in a browser", highlight=False, markup=False)


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
    lines += [rollout_sentence(state) for state in report.rollouts]
    return lines


def show_rollouts(console: Console, report: MonitorReport) -> None:
    """What is to be done with new versions first, then what each gate rests on."""
    for state in report.rollouts:
        console.print(
            f"[{ROLLOUT_STYLES[state.rollout.decision]}]{escape(rollout_sentence(state))}[/]", highlight=False
        )
    for state in report.rollouts:
        console.print(_gates(state))
        if state.unclear:
            console.print(f"{state.unclear:,} more requests were answered by neither version", highlight=False)


def _gates(state: RolloutState) -> Table:
    rollout, counts = state.rollout, state.rollout.counts
    table = titled_table(
        f"version {state.version} of {state.model}", "gate", "seen", "of", "holds with a probability of"
    )
    off, failed = rollout.disagreement, rollout.failed
    slower, dearer = ("-" if x is None else f"{x:.2f} times" for x in (rollout.slower, rollout.dearer))
    if state.new_usd_per_million is not None and state.old_usd_per_million is not None:
        dearer += f": {format_usd(state.new_usd_per_million)}, was {format_usd(state.old_usd_per_million)} a million"
    seen = {
        "disagreement": (f"{off.value:.2%} (95%: {off.low:.2%} to {off.high:.2%})", f"{counts.rows:,} rows"),
        "failed": (f"{counts.failed:,} (95%: {failed.low:.2%} to {failed.high:.2%})", f"{counts.requests:,} requests"),
        "latency": (slower, f"{counts.pairs:,} pairs"),
        "cost": (dearer, f"{counts.pairs:,} pairs"),
    }
    for name, (value, count) in seen.items():
        table.add_row(name, value, count, f"{rollout.holds[name]:.1%}")
    return table


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

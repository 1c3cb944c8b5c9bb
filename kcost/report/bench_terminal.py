"""Comparisons of runs and self-tests of the harness as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.units import format_percent, format_usd, significant
from kcost.report.tables import titled_table

if TYPE_CHECKING:
    from kcost.bench.compare import Change, Comparison, Figure
    from kcost.bench.self_test import SelfTest


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Prints what changed from run A to run B, the failures last."""
    table = _table("Run B against run A", ("model", "cell"))
    dollars = any(c.usd_per_million is not None for c in comparison.changes)
    columns = ["A", "B", "step B/A", "95% interval", "B faster"]
    if dollars:
        columns += ["USD A", "USD B", "USD B/A", "B cheaper"]
    for heading in (*columns, "rounds"):
        table.add_column(heading, justify="right")
    for change in comparison.changes:
        table.add_row(*(escape(t) for t in _row(change)), style="dim" if change.invalid else "")
    console.print(table)
    for name, differing in (("A", comparison.only_in_a), ("B", comparison.only_in_b)):
        if differing:
            console.print(escape(f"only in {name}: {', '.join(differing)}"), highlight=False)
    if comparison.differences:
        _warn(console, f"environments differ: {', '.join(comparison.differences)}")
    if any(c.how == "independent" for c in comparison.changes):
        _warn(console, "Rounds are not paired: what changed on the machine between the runs is not in the intervals.")
    for change in comparison.changes:
        if change.invalid is not None:
            _alarm(console, f"INVALID: {change.model}, {change.cell}: {change.invalid}")
    if comparison.not_judged:
        _alarm(
            console,
            f"{len(comparison.not_judged)} of {len(comparison.changes)} cells were not held against the limits.",
        )
    for failure in comparison.failures:
        _alarm(console, f"FAILED: {failure.model}, {failure.cell}: {failure.reason}")
    if comparison.fail_if and not comparison.failures:
        console.print(f"No cell is over {', '.join(comparison.fail_if)}.", highlight=False)


def _row(change: Change) -> list[str]:
    texts = [change.model, change.cell, *_figures(change.median_ms), format_percent(change.probability_b_faster)]
    if change.usd_per_million is not None and change.probability_b_cheaper is not None:
        usd = change.usd_per_million
        dollars = [format_usd(usd.a), format_usd(usd.b), significant(usd.ratio)]
        texts += [*dollars, format_percent(change.probability_b_cheaper)]
    return [*texts, f"{change.rounds_a}/{change.rounds_b} {change.how}"]


def _figures(figure: Figure) -> list[str]:
    high = "unbounded" if figure.high is None else significant(figure.high)
    times = [f"{significant(ms)} ms" for ms in (figure.a, figure.b)]
    return [*times, significant(figure.ratio), f"{significant(figure.low)} to {high}"]


def show_self_test(console: Console, self_test: SelfTest) -> None:
    """Prints what a self-test found, and last whether the harness can be believed on this machine."""
    conclusion = f"{self_test.false_winners} of {len(self_test.pairs)} cells measured against themselves had a winner"
    console.print(conclusion + (" [simulated]" if self_test.simulated else ""), highlight=False, markup=False)
    if self_test.moves:
        table = _table("Ratio to the baseline, quiet and beside busy neighbours", ("model", "cell"))
        for heading in ("quiet", "loaded", "moved", "marked"):
            table.add_column(heading, justify="right")
        for move in self_test.moves:
            marked = "INVALID" if move.invalid else "-"
            moved = ("-" if move.moved < 0 else "+") + format_percent(abs(move.moved))
            table.add_row(
                escape(move.model), escape(move.cell), significant(move.quiet), significant(move.loaded), moved, marked
            )
        console.print(table)
    if self_test.quiet_invalid is not None:
        _alarm(console, f"INVALID: even the quiet run was disturbed: {self_test.quiet_invalid}")
    for failure in self_test.failures:
        _alarm(console, f"FAILED: {failure}")
    console.print("[bold]The self-test " + ("passed." if self_test.passed else "failed.") + "[/bold]")


def _table(title: str, left: tuple[str, ...]) -> Table:
    table = titled_table(title)
    for heading in left:
        table.add_column(heading)
    return table


def _warn(console: Console, text: str) -> None:
    console.print(f"[yellow]{escape(text)}[/yellow]", highlight=False)


def _alarm(console: Console, text: str) -> None:
    console.print(f"[bold red]{escape(text)}[/bold red]", highlight=False)

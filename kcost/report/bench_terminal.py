"""Comparisons of runs and self-tests of the harness as tables in the terminal, the conclusion first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from kcost.core.units import UsdScale, format_percent, significant, usd_scale
from kcost.report.tables import MEASURE_AGAIN, ROWS, show_lines, show_more, show_notices, titled_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kcost.bench.compare import Change, Comparison, Figure
    from kcost.bench.self_test import SelfTest

ROUNDS_FIT, STEPS_FIT = 90, 130
"""Columns of a terminal from which there is room for rounds, and for what `--all` adds; --json has both."""

STEPS = ("A: step", "B: step", "B faster", "B cheaper")
"""Headings of what `--all` shows beside the dollars."""


def show_comparison(console: Console, comparison: Comparison, *, everything: bool = False) -> None:
    """Prints what changed from run A to run B: what fails, the largest changes, what limits that."""
    failures = [f"FAILED: {f.model}, {f.cell}: {f.reason}" for f in comparison.failures]
    show_notices(console, failures, everything=everything, style="bold red")
    if comparison.fail_if and not failures:
        show_lines(console, [f"No cell is over {', '.join(comparison.fail_if)}."], style="bold")
    show_lines(console, [sentence_of(comparison)], style="bold")
    changes = largest_first(comparison.changes)
    shown = changes if everything else changes[:ROWS]
    scale = scale_of(comparison)
    of = "step, ms" if scale is None else f"USD per {scale.unit}"
    several = len({change.model for change in changes}) > 1
    wide = ("rounds",) if console.width >= ROUNDS_FIT else ()
    steps = STEPS if everything and console.width >= STEPS_FIT else ()
    names = ("model", "cell") if several else ("cell",)
    table = titled_table(f"Run B against run A, {of}; the largest changes first", *names)
    for heading in ("A", "B", "B over A", "95% interval", *wide, *steps):
        table.add_column(heading, justify="right", overflow="fold")
    for change in shown:
        model, label, *figures = row_of(change, scale)
        figures = [*(figures if wide else figures[:-1]), *(_steps(change) if steps else ())]
        texts = (*([model] if several else []), label.removeprefix("inference "), *figures)
        table.add_row(*map(escape, texts), style="" if change.invalid is None else "dim")
    console.print(table)
    show_more(console, len(changes) - len(shown))
    show_notices(console, _limits(comparison), everything=everything, style="yellow")


def sentence_of(comparison: Comparison) -> str:
    """What a comparison says as a whole."""
    judged = [compared(change) for change in comparison.changes if change.invalid is None]
    dearer = sum(f.low > 1 for f in judged)
    cheaper = sum(f.high is not None and f.high < 1 for f in judged)
    worse, better = ("slower", "faster") if scale_of(comparison) is None else ("dearer", "cheaper")
    return (
        f"Of {len(comparison.changes)} cells that both runs hold, run B is {worse} in {dearer} and {better} in "
        f"{cheaper} (95% intervals); {len(judged) - dearer - cheaper} can't be told apart."
    )


def headings_of(comparison: Comparison) -> tuple[str, ...]:
    """Of the columns that `row_of` fills."""
    scale = scale_of(comparison)
    of = "step, ms" if scale is None else f"USD per {scale.unit}"
    return ("model", "cell", f"A: {of}", f"B: {of}", "B over A", "95% interval", "rounds")


def row_of(change: Change, scale: UsdScale | None) -> tuple[str, ...]:
    """The texts of a cell in both runs; no dollars and no ratio of what is INVALID."""
    figure, rounds = compared(change), f"{change.rounds_a}/{change.rounds_b} {change.how}"
    if change.invalid is not None:
        times = ("-", "-") if scale is not None else (significant(figure.a), significant(figure.b))
        return (change.model, change.cell, *times, MEASURE_AGAIN, "-", rounds)
    text = significant if scale is None or change.usd_per_million is None else scale.text
    names = (change.model, change.cell, text(figure.a), text(figure.b))
    high = "unbounded" if figure.high is None else significant(figure.high)
    return (*names, significant(figure.ratio), f"{significant(figure.low)} to {high}", rounds)


def _steps(change: Change) -> tuple[str, ...]:
    times = [f"{significant(ms)} ms" for ms in (change.median_ms.a, change.median_ms.b)]
    valid = change.invalid is None
    chances = (change.probability_b_faster, change.probability_b_cheaper) if valid else (None, None)
    return (*times, *("-" if p is None else format_percent(p) for p in chances))


def scale_of(comparison: Comparison) -> UsdScale | None:
    """The unit in which the dollars of a comparison read at a glance; None where a cell that counts has no price."""
    dollars = [c.usd_per_million for c in comparison.changes if c.invalid is None]
    known = [value for usd in dollars if usd is not None for value in (usd.a, usd.b)]
    return usd_scale(known, "million examples") if known and None not in dollars else None


def largest_first(changes: Sequence[Change]) -> list[Change]:
    """Cells in both runs, those that changed most first; INVALID ones, of which nobody knows that, last."""
    return sorted(changes, key=lambda c: (c.invalid is not None, -abs(math.log(compared(c).ratio))))


def compared(change: Change) -> Figure:
    """The figure by which a cell is compared: dollars, where it has a price."""
    return change.median_ms if change.usd_per_million is None else change.usd_per_million


def _limits(comparison: Comparison) -> list[str]:
    """What is to be known before the ratios are used, the most serious first."""
    invalid = [f"INVALID: {c.model}, {c.cell}: {c.invalid}" for c in comparison.changes if c.invalid is not None]
    lines = invalid[:1] if len(invalid) == 1 else []
    if len(invalid) > 1:
        lines.append(f"{len(invalid)} cells are INVALID. {invalid[0]}")
    if comparison.not_judged:
        lines.append(
            f"{len(comparison.not_judged)} of {len(comparison.changes)} cells were not held against the limits."
        )
    if comparison.differences:
        lines.append(f"environments differ: {', '.join(comparison.differences)}")
    for name, differing in (("A", comparison.only_in_a), ("B", comparison.only_in_b)):
        if differing:
            lines.append(f"only in {name}: {', '.join(differing)}")
    if any(c.how == "independent" for c in comparison.changes):
        lines.append("Rounds are not paired: what changed on the machine between the runs is not in the intervals.")
    return lines + (invalid[1:] if len(invalid) > 1 else [])


def show_self_test(console: Console, self_test: SelfTest, *, everything: bool = False) -> None:
    """Prints whether the harness can be believed on this machine, then why."""
    console.print("[bold]The self-test " + ("passed." if self_test.passed else "failed.") + "[/bold]")
    conclusion = f"{self_test.false_winners} of {len(self_test.pairs)} cells measured against themselves had a winner"
    show_lines(console, [conclusion + (" [simulated]" if self_test.simulated else "")])
    show_notices(console, [f"FAILED: {f}" for f in self_test.failures], everything=everything, style="bold red")
    if self_test.moves:
        table = titled_table("Ratio to the baseline, quiet and beside busy neighbours", "model", "cell")
        for heading in ("quiet", "loaded", "moved", "marked"):
            table.add_column(heading, justify="right")
        moves = sorted(self_test.moves, key=lambda move: -abs(move.moved))
        for move in moves if everything else moves[:ROWS]:
            marked = "INVALID" if move.invalid else "-"
            moved = ("-" if move.moved < 0 else "+") + format_percent(abs(move.moved))
            table.add_row(
                escape(move.model), escape(move.cell), significant(move.quiet), significant(move.loaded), moved, marked
            )
        console.print(table)
        show_more(console, 0 if everything else len(moves) - ROWS)
    if self_test.quiet_invalid is not None:
        show_lines(console, [f"INVALID: even the quiet run was disturbed: {self_test.quiet_invalid}"], style="bold red")

"""A recommendation in the terminal: the answer first, on one screen, then what limits it, then where the rest is."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.units import significant, usd_a_million
from kcost.recommend.answer import Ranked, Recommendation
from kcost.recommend.watching import Watched
from kcost.report.tables import NOTICES, show_lines, show_notices

WIDTH = 100
ROWS = 8
STYLES = {"pass": "green", "fail": "bold red", "can't tell": "yellow"}


def show_recommendation(
    console: Console, answer: Recommendation, folder: Path | None, everything: bool = False
) -> None:
    """Prints a recommendation.

    Args:
        folder: where the rest is; None where nothing was written.
        everything: every way, gate and notice, not one screen.
    """
    console.width = min(console.width, WIDTH)
    _show_sentences(console, answer)
    if answer.ranked:
        console.print(_table(answer, everything))
    if answer.gates:
        _show_gates(console, answer)
    for one in answer.projected[: None if everything else 2]:
        console.print(
            f"{one.basis}: {one.runs_as} on {one.price.key} {significant(one.step_ms)} ms a step of {one.batch} "
            f"({significant(one.low_ms)} to {significant(one.high_ms or one.low_ms)}), "
            f"{usd_a_million(one.usd_per_million)} at full load.",
            highlight=False,
            markup=False,
        )
    if everything:
        console.print(_tried(answer))
    show_notices(console, answer.notices, everything=everything)
    console.print(_rest(answer, folder, everything), highlight=False, markup=False)


def show_words(console: Console, answer: Recommendation, folder: Path) -> None:
    """Prints what a recommendation says, without its table."""
    console.width = min(console.width, WIDTH)
    _show_sentences(console, answer)
    show_lines(console, answer.notices[:NOTICES])
    console.print(_rest(answer, folder, everything=True), highlight=False, markup=False)


def _show_sentences(console: Console, answer: Recommendation) -> None:
    first, *others = answer.words
    console.print(f"[bold]{escape(first)}[/bold]", highlight=False)
    for words in others:
        console.print(words, highlight=False, markup=False)


def _table(answer: Recommendation, everything: bool) -> Table:
    limit = f"p99 within {answer.request.p99_ms:g} ms (simulated)"
    rate = significant(answer.request.traffic.mean_queries_per_s)
    title = f"{rate} requests a second, {limit}; USD a month with a 90% interval"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("way", overflow="fold")
    for heading in ("cheapest with", "a month", "instances", "batch, p99", "score drop", "rounds"):
        table.add_column(heading, justify="right", overflow="fold")
    shown = answer.ranked if everything else answer.ranked[:ROWS]
    plain = [r for r in answer.ranked if r.is_plain and r not in shown]
    for row in (*shown, *plain):
        table.add_row(*row_of(row))
    return table


def row_of(row: Ranked) -> tuple[str, ...]:
    """The texts of one way; one whose seconds are not of the instance that is billed bears its basis."""
    month, drop = row.usd_per_month, row.drop
    today = " (today)" if row.is_plain else ""
    mark = "" if row.basis in ("measured", "simulated") else f" [{row.basis}]"  # what is simulated the answer says
    return (
        escape(f"{row.name}{today}{mark}"),
        f"{row.probability:.0%}",
        f"{significant(month.value)} ({significant(month.low)}-{significant(month.high)})",
        str(row.instances),
        "-" if row.batch_limit is None else f"{row.batch_limit}, {significant(row.p99_ms or 0)} ms",
        "none" if drop is None else f"at most {drop.bound:.1%}",
        str(row.rounds),
    )


def _show_gates(console: Console, answer: Recommendation) -> None:
    table = Table(title="Gates", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in ("gate", "limit", "measured", "answer"):
        table.add_column(heading, overflow="fold")
    for verdict in answer.gates:
        limit = verdict.limit if isinstance(verdict.limit, str) else f"{verdict.limit:g}"
        measured = "-" if verdict.figure is None else significant(verdict.figure.value)
        style = STYLES[verdict.answer]
        table.add_row(escape(verdict.gate), escape(limit), measured, f"[{style}]{escape(verdict.sentence)}[/]")
    console.print(table)


def _tried(answer: Recommendation) -> Table:
    table = Table(title="Every candidate", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in ("way", "", "why"):
        table.add_column(heading, overflow="fold")
    for one in answer.tried:
        table.add_row(escape(one.name), one.state, escape(one.reason))
    for left in answer.left_out:
        table.add_row(escape(left.name), "left out", escape(left.reason))
    return table


def _rest(answer: Recommendation, folder: Path | None, everything: bool) -> str:
    states = [t.state for t in answer.tried]
    counts = {s: states.count(s) for s in ("priced", "dearer", "refused", "disturbed", "failed", "not tried")}
    by_state = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    text = f"{len(answer.tried)} ways: {by_state}; {len(answer.left_out)} left out"
    text += "." if everything else " (--all says why)."
    if folder is not None:
        text += f" All of it: {folder}/verdict.html and verdict.json."
    return text


def show_watched(console: Console, watched: Watched) -> None:
    """Prints whether a recommendation still holds."""
    first, *others = watched.words
    console.print(f"[bold]{escape(first)}[/bold]", highlight=False)
    for words in others:
        console.print(words, highlight=False, markup=False)
    if watched.command is not None:
        console.print(f"Then: {watched.command}", highlight=False, markup=False, soft_wrap=True)

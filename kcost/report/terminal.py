"""A verdict as tables in the terminal: the rankings, what to be careful with, and the conclusions last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.units import format_bytes, format_percent, format_usd, significant
from kcost.cost.notices import Notice, by_code
from kcost.cost.ranking import RankedCell, Ranking
from kcost.cost.verdict import Verdict
from kcost.report.scenarios import show_scenarios

FIRST = "not-finite"
"""The notices that stand before the tables: such a model answers nothing, however fast."""

ROWS = 15
NOTICES_OF_A_KIND = 3
WIDE = 134
"""Columns of a terminal from which every column of a ranking fits, but for memory."""
MEMORY = 12
"""Columns more from which memory does too."""
LEFT = frozenset({"run as", "dtype"})


def show_verdict(console: Console, verdict: Verdict, *, rows: int = ROWS) -> None:
    """Prints a verdict.

    Args:
        rows: most cells shown of each ranking; plain Keras is always among them.
    """
    _show_notices(console, [n for n in verdict.notices if n.code == FIRST])
    for ranking in verdict.rankings:
        _show_ranking(console, ranking, verdict.p99_ms, rows)
    show_scenarios(console, verdict.scenarios)
    _show_prices(console, verdict)
    _show_notices(console, [n for n in verdict.notices if n.code != FIRST])
    if not verdict.rankings:
        console.print("No cell was measured: there is nothing to rank.")
    for conclusion in verdict.conclusions:
        console.print(f"[bold]{escape(conclusion.sentence)}[/bold]", highlight=False)


def _show_ranking(console: Console, ranking: Ranking, p99_ms: float | None, rows: int) -> None:
    apart = f", apart: {'; '.join(ranking.apart)}" if ranking.apart else ""
    limit = f", within {p99_ms:g} ms" if p99_ms is not None and ranking.phase == "inference" else ""
    columns = _columns(ranking, console.width)
    table = Table(
        title=escape(f"{ranking.model}, {ranking.phase}{limit}{apart}: USD per {ranking.cells[0].cost.unit}"),
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for heading in columns:
        table.add_column(heading, justify="left" if heading in LEFT else "right", no_wrap=heading != "run as")
    shown = ranking.first(rows)
    for cell in shown:
        texts = (text(cell) for text in columns.values())
        table.add_row(*(escape(t) for t in texts), style="" if cell.rank is not None else "dim")
    console.print(table)
    left = len(ranking.cells) - len(shown)
    if left:
        console.print(f"and {left} more: --json has them all", highlight=False)
    console.print(escape(_settings(ranking)), highlight=False)
    console.print()


def _columns(ranking: Ranking, width: int) -> dict[str, Callable[[RankedCell], str]]:
    """Heading -> text of a cell; the less telling ones only where a terminal of this width has room."""
    wide = width >= WIDE

    def name(cell: RankedCell) -> str:
        plain = " *" if cell.cell_id == ranking.baseline else ""
        return f"{cell.backend}/{cell.method}{plain}{'' if cell.rank else f' [{cell.standing}]'}"

    columns: dict[str, Callable[[RankedCell], str]] = {
        "#": lambda c: "-" if c.rank is None else str(c.rank),
        "run as": name,
        "dtype": lambda c: c.dtype,
        "batch": lambda c: str(c.batch),
        "USD": lambda c: format_usd(c.cost.usd),
    }
    if wide:
        columns["95% interval"] = _interval
    columns["cheaper"] = lambda c: "-" if c.times_cheaper is None else f"{significant(c.times_cheaper.value)}x"
    columns["step"] = lambda c: f"{significant(c.step_ms)} ms"
    if wide:
        columns["p95"] = lambda c: f"{significant(c.step_p95_ms)} ms"
        if any(c.step_joules is not None for c in ranking.cells):
            columns["J/1,000"] = lambda c: "-" if c.joules_per_thousand is None else significant(c.joules_per_thousand)
        if width >= WIDE + MEMORY and any(c.peak_bytes is not None for c in ranking.cells):
            columns["memory"] = lambda c: "-" if c.peak_bytes is None else format_bytes(c.peak_bytes)
    if ranking.phase == "inference":
        columns["score"] = lambda c: f"{c.quality.scores[0].value:.4f}" if c.quality.scores else "-"
        if wide:
            columns["same answer"] = _agreement
            columns["max diff"] = _difference
    return columns


def _interval(cell: RankedCell) -> str:
    high = "unbounded" if cell.cost.high is None else significant(cell.cost.high)
    return f"{significant(cell.cost.low)} to {high}"


def _agreement(cell: RankedCell) -> str:
    if cell.quality.agreement is None or cell.standing == "not finite":
        return "-"
    return format_percent(cell.quality.agreement)


def _difference(cell: RankedCell) -> str:
    if cell.quality.not_finite:
        return "not finite"
    worst = cell.quality.worst_difference
    if worst is None:
        return "-"
    return f"{worst.max_abs:.1e}" + (f" {worst.output}" if len(cell.quality.differences) > 1 else "")


def _settings(ranking: Ranking) -> str:
    """What the cells of a ranking have in common, and what scores and differences are of."""
    fair = ranking.cells[0].fairness
    tf32 = "" if fair.tf32 is None else f", TF32 {'on' if fair.tf32 else 'off'}"
    told = (
        f"All on {fair.device} ({fair.device_name}), {fair.threads} thread(s){tf32}, inputs on the {fair.inputs_on}, "
        f"environment {fair.environment_id}."
    )
    scores = [c.quality.scores[0] for c in ranking.cells if c.quality.scores]
    if scores:
        told += f" Score: {scores[0].name}, on at most {max(s.count for s in scores)} {scores[0].unit}."
    answered = next((c.quality.answered for c in ranking.cells if c.quality.answered is not None), None)
    if answered is not None:
        told += f" Its {answered}."
    energies = sorted({c.energy_basis for c in ranking.cells if c.step_joules is not None})
    if energies:
        told += f" Energy of 1,000 examples: {'; '.join(energies)}."
    if ranking.baseline is not None:
        told += " * is plain Keras."
    if ranking.reference is not None and ranking.phase == "inference":
        told += f" Answers are held against {ranking.reference}."
    return told


def _show_prices(console: Console, verdict: Verdict) -> None:
    for environment_id, match in verdict.prices.items():
        as_of = "day unknown" if match.price.as_of is None else f"as of {match.price.as_of}"
        text = f"price of {environment_id}: {match.why} Source: {match.price.source}, {as_of}."
        console.print(escape(text), highlight=False)


def _show_notices(console: Console, notices: Sequence[Notice]) -> None:
    for code, found in by_code(notices).items():
        for notice in found[:NOTICES_OF_A_KIND]:
            about = ", ".join(v for v in (notice.model, notice.cell) if v is not None)
            text = f"{code}: {f'{about}: ' if about else ''}{notice.text} {notice.remedy}"
            style = "bold red" if code in ("invalid", FIRST) else "yellow"
            console.print(f"[{style}]{escape(text)}[/{style}]", highlight=False)
        if len(found) > NOTICES_OF_A_KIND:
            console.print(f"[yellow]{code}: and {len(found) - NOTICES_OF_A_KIND} more[/yellow]", highlight=False)
    if notices:
        console.print()

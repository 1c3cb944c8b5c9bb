"""A verdict in the terminal: the conclusions first; on one screen, or with every table, price and notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from kcost.core.units import UsdScale, format_bytes, format_percent, significant
from kcost.cost.notices import Notice, by_code, most_serious_first
from kcost.cost.ranking import RankedCell, Ranking
from kcost.cost.verdict import Verdict
from kcost.report.scenarios import show_scenarios
from kcost.report.tables import MEASURE_AGAIN, titled_table

FIRST = "not-finite"
"""The notices that stand before the tables: such a model answers nothing, however fast."""

ROWS = 15
SUMMARY_ROWS = 12
SUMMARY_TABLES = 2
SUMMARY_NOTICES = 3
NOTICES_OF_A_KIND = 3
WIDE = 134
"""Columns of a terminal from which every column of a ranking fits, but for memory."""
MEMORY = 12
"""Columns more from which memory does too."""
LEFT = frozenset({"run as", "dtype"})


def show_verdict(console: Console, verdict: Verdict, *, rows: int = ROWS) -> None:
    """Prints everything that a verdict holds.

    Args:
        rows: most cells shown of each ranking; plain Keras is always among them.
    """
    _show_notices(console, [n for n in verdict.notices if n.code == FIRST])
    _show_conclusions(console, verdict)
    console.print()
    for ranking in verdict.rankings:
        _show_ranking(console, ranking, verdict.p99_ms, rows)
    show_scenarios(console, verdict.scenarios)
    _show_prices(console, verdict)
    _show_notices(console, [n for n in verdict.notices if n.code != FIRST])


def show_summary(console: Console, verdict: Verdict, rest: str) -> None:
    """Prints a verdict on one screen: what it concludes, the best ways, what limits that, and where the rest is.

    Args:
        rest: where the rest is.
    """
    _show_conclusions(console, verdict)
    shown = sorted(verdict.rankings, key=lambda r: (bool(r.apart), r.phase != "inference"))[:SUMMARY_TABLES]
    for ranking in shown:
        console.print()
        _show_best(console, ranking, max(3, SUMMARY_ROWS // len(verdict.rankings)))
    if len(verdict.rankings) > len(shown):
        console.print(f"{len(verdict.rankings) - len(shown)} more tables: --all", highlight=False)
    if verdict.scenarios:
        console.print()
        show_scenarios(console, verdict.scenarios[:SUMMARY_ROWS])
        if len(verdict.scenarios) > SUMMARY_ROWS:
            console.print(f"{len(verdict.scenarios) - SUMMARY_ROWS} more rows of scenarios: --all", highlight=False)
    console.print()
    kinds = most_serious_first(verdict.notices)
    for code, notices in kinds[:SUMMARY_NOTICES]:
        first = notices[0]
        about = ", ".join(v for v in (first.model, first.cell) if v is not None and len(notices) == 1)
        several = f" ({len(notices)} times)" if len(notices) > 1 else ""
        _show_notice(console, f"{code}{several}: {f'{about}: ' if about else ''}{first.text} {first.remedy}", code)
    if len(kinds) > SUMMARY_NOTICES:
        left = sum(len(notices) for _, notices in kinds[SUMMARY_NOTICES:])
        console.print(f"[yellow]and {left} more: --all[/yellow]", highlight=False)
    console.print(rest, highlight=False, markup=False)


def _show_conclusions(console: Console, verdict: Verdict) -> None:
    if not verdict.rankings:
        console.print("No cell was measured: there is nothing to rank.")
    for conclusion in verdict.conclusions:
        style = "bold" if conclusion.valid else "bold red"
        console.print(f"[{style}]{escape(conclusion.sentence)}[/{style}]", highlight=False)


def _show_best(console: Console, ranking: Ranking, rows: int) -> None:
    """The first cells of a ranking, in seven columns."""
    scale = ranking.usd_scale
    table = titled_table(f"{ranking.model}, {ranking.phase}: USD per {scale.unit}{ranking.mark}")
    headings = ["#", "run as", "batch", "USD", "cheaper", "step"]
    if ranking.phase == "inference":
        headings.append("score")
    for heading in headings:
        _add_column(table, heading)
    shown = ranking.first(rows)
    for cell in shown:
        plain = " *" if cell.cell_id == ranking.baseline else ""
        standing = "" if cell.rank else f" [{cell.standing}]"
        texts = [
            "-" if cell.rank is None else str(cell.rank),
            f"{cell.backend}/{cell.method} {cell.dtype}{plain}{standing}",
            str(cell.batch),
            usd_text(cell, scale),
            _times_cheaper(cell),
            f"{significant(cell.step_ms)} ms",
        ]
        if ranking.phase == "inference":
            texts.append(_score(cell))
        table.add_row(*(escape(text) for text in texts), style="" if cell.rank is not None else "dim")
    console.print(table)
    left = len(ranking.cells) - len(shown)
    notes = (["* is plain Keras"] if ranking.baseline is not None else []) + ([f"{left} more: --all"] if left else [])
    if notes:
        console.print("; ".join(notes), highlight=False)


def _show_ranking(console: Console, ranking: Ranking, p99_ms: float | None, rows: int) -> None:
    apart = f", apart: {'; '.join(ranking.apart)}" if ranking.apart else ""
    limit = f", within {p99_ms:g} ms" if p99_ms is not None and ranking.phase == "inference" else ""
    columns = _columns(ranking, console.width)
    table = titled_table(
        f"{ranking.model}, {ranking.phase}{limit}{apart}: USD per {ranking.usd_scale.unit}{ranking.mark}"
    )
    for heading in columns:
        _add_column(table, heading)
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


def _add_column(table: Table, heading: str) -> None:
    """Where a terminal is narrow, what a cell is run as is folded: nothing is cut."""
    justify: JustifyMethod = "left" if heading in LEFT else "right"
    table.add_column(heading, justify=justify, no_wrap=heading != "run as", overflow="fold")


def _columns(ranking: Ranking, width: int) -> dict[str, Callable[[RankedCell], str]]:
    """Heading -> text of a cell; the less telling ones only where a terminal of this width has room."""
    wide = width >= WIDE
    scale = ranking.usd_scale

    def name(cell: RankedCell) -> str:
        plain = " *" if cell.cell_id == ranking.baseline else ""
        return f"{cell.backend}/{cell.method}{plain}{'' if cell.rank else f' [{cell.standing}]'}"

    columns: dict[str, Callable[[RankedCell], str]] = {
        "#": lambda c: "-" if c.rank is None else str(c.rank),
        "run as": name,
        "dtype": lambda c: c.dtype,
        "batch": lambda c: str(c.batch),
        "USD": lambda c: usd_text(c, scale),
    }
    if wide:
        columns["95% interval"] = lambda c: _interval(c, scale)
    columns["cheaper"] = _times_cheaper
    columns["step"] = lambda c: f"{significant(c.step_ms)} ms"
    if wide:
        columns["p95"] = lambda c: f"{significant(c.step_p95_ms)} ms"
        if any(c.step_joules is not None for c in ranking.cells):
            columns["J/1,000"] = lambda c: "-" if c.joules_per_thousand is None else significant(c.joules_per_thousand)
        if width >= WIDE + MEMORY and any(c.peak_bytes is not None for c in ranking.cells):
            columns["memory"] = lambda c: "-" if c.peak_bytes is None else format_bytes(c.peak_bytes)
    if ranking.phase == "inference":
        columns["score"] = _score
        if wide:
            columns["same answer"] = _agreement
            columns["max diff"] = _difference
    return columns


def usd_text(cell: RankedCell, scale: UsdScale) -> str:
    """What a cell costs; of an INVALID one, that it is to be measured again."""
    return MEASURE_AGAIN if cell.cost is None else scale.text(cell.cost.usd)


def _times_cheaper(cell: RankedCell) -> str:
    return "-" if cell.times_cheaper is None else f"{significant(cell.times_cheaper.value)}x"


def _score(cell: RankedCell) -> str:
    return f"{cell.quality.scores[0].value:.4f}" if cell.quality.scores else "-"


def _interval(cell: RankedCell, scale: UsdScale) -> str:
    if cell.cost is None:
        return "-"
    high = "unbounded" if cell.cost.high is None else significant(cell.cost.high * scale.factor)
    return f"{significant(cell.cost.low * scale.factor)} to {high}"


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
    sentence = (
        f"All on {fair.device} ({fair.device_name}), {fair.threads} thread(s){tf32}, inputs on the {fair.inputs_on}, "
        f"environment {fair.environment_id}."
    )
    scores = [c.quality.scores[0] for c in ranking.cells if c.quality.scores]
    if scores:
        sentence += f" Score: {scores[0].name}, on at most {max(s.count for s in scores)} {scores[0].unit}."
    answered = next((c.quality.answered for c in ranking.cells if c.quality.answered is not None), None)
    if answered is not None:
        sentence += f" Its {answered}."
    energies = sorted({c.energy_basis for c in ranking.cells if c.step_joules is not None})
    if energies:
        sentence += f" Energy of 1,000 examples: {'; '.join(energies)}."
    if ranking.baseline is not None:
        sentence += " * is plain Keras."
    if ranking.reference is not None and ranking.phase == "inference":
        sentence += f" Answers are held against {ranking.reference}."
    return sentence


def _show_prices(console: Console, verdict: Verdict) -> None:
    for environment_id, match in verdict.prices.items():
        as_of = "day unknown" if match.price.as_of is None else f"as of {match.price.as_of}"
        text = f"price of {environment_id}: {match.why} Source: {match.price.source}, {as_of}."
        console.print(escape(text), highlight=False)


def _show_notices(console: Console, notices: Sequence[Notice]) -> None:
    for code, several in by_code(notices).items():
        for notice in several[:NOTICES_OF_A_KIND]:
            about = ", ".join(v for v in (notice.model, notice.cell) if v is not None)
            _show_notice(console, f"{code}: {f'{about}: ' if about else ''}{notice.text} {notice.remedy}", code)
        if len(several) > NOTICES_OF_A_KIND:
            console.print(f"[yellow]{code}: and {len(several) - NOTICES_OF_A_KIND} more[/yellow]", highlight=False)
    if notices:
        console.print()


def _show_notice(console: Console, text: str, code: str) -> None:
    style = "bold red" if code in ("invalid", FIRST) else "yellow"
    console.print(f"[{style}]{escape(text)}[/{style}]", highlight=False)

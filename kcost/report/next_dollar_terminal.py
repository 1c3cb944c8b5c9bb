"""What `kcost next-dollar` shows: the answer, a row for each way, what limits it."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from kcost.core.units import format_usd
from kcost.cost.next_dollar import NextDollar
from kcost.cost.score_routes import POINT, Route, Span
from kcost.report.tables import ROWS, show_more, show_notices, titled_table


def show_next_dollar(console: Console, answer: NextDollar, *, everything: bool = False) -> None:
    """Prints the answer first; every way and note, if asked."""
    console.print(f"[bold]{escape(answer.sentence)}[/bold]", highlight=False)
    title = f"From {answer.score_name} {answer.score:.4f} with {answer.labels:,} labels: each way, 90% intervals"
    table = titled_table(title, "way", "what")
    for heading in ("points", "USD", "USD a point"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("models", justify="right")
    for route in answer.routes if everything else answer.routes[:ROWS]:
        table.add_row(*(escape(text) for text in row_of(route)))
    console.print(table)
    show_more(console, 0 if everything else len(answer.routes) - ROWS)
    show_notices(console, [*limits_of(answer), *answer.notes], everything=everything)


def row_of(route: Route) -> tuple[str, ...]:
    """The cells of a way's row."""
    points = "-" if route.gain is None else span_text(route.gain, lambda gain: f"{gain / POINT:.2g}")
    usd = "-" if route.usd is None else span_text(route.usd, format_usd)
    price = route.standing if route.usd_per_point is None else span_text(route.usd_per_point, format_usd)
    return route.kind, route.what, points, usd, price, str(route.models)


def span_text(span: Span, text: Callable[[float], str]) -> str:
    """A figure with its interval in words."""
    value, low, high = ("without end" if v is None else text(v) for v in (span.value, span.low, span.high))
    return value if low == high else f"{value} ({low} to {high})"


def limits_of(answer: NextDollar) -> list[str]:
    """Why a way has no price and what would help, and what a price leaves out."""
    lines = []
    for route in answer.routes:
        if route.standing != "priced":
            lines.append(f"{route.kind}: {route.because}." + (f" {route.would_help}" if route.would_help else ""))
        elif route.leaves_out is not None:
            lines.append(f"{route.kind} leaves out {route.leaves_out}.")
    if answer.usd_per_label is not None:
        lines.append(f"A label costs {format_usd(answer.usd_per_label)}: {answer.usd_per_label_source}.")
    return lines

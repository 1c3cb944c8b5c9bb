"""Where the time of each cell goes, as tables in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.result import Run
from kcost.core.units import format_percent, significant
from kcost.report.profiles import ROOFLINE_SOURCE, calls_text, views_of
from kcost.report.tables import show_more

WIDEST_PLACE = 60


def show_profiles(console: Console, run: Run, *, everything: bool = False) -> None:
    """Prints where the time goes in the fastest cell that was looked into, or in each: a table, and its arithmetic."""
    views = views_of(run)
    shown = views if everything else views[:1]
    for view in shown:
        console.print(f"\n[bold]{escape(f'{view.model}, {view.cell}: where its time goes')}[/bold]", highlight=False)
        if view.rows:
            table = Table(box=None, pad_edge=False)
            table.add_column("operation")
            for heading in ("calls", "share", "self us"):
                table.add_column(heading, justify="right")
            table.add_column("longest in")
            for row in view.rows:
                place = row.largest or ""
                table.add_row(
                    escape(row.name),
                    calls_text(row),
                    format_percent(row.share),
                    significant(row.self_us_per_step),
                    escape(place if len(place) <= WIDEST_PLACE else f"...{place[3 - WIDEST_PLACE :]}"),
                )
            console.print(table)
        for note in view.notes:
            console.print(escape(note), highlight=False)
    if shown:
        show_more(console, len(views) - len(shown), "cells were looked into")
        console.print(f"\nCalls and self time are of one step. {ROOFLINE_SOURCE}", highlight=False)

"""How an answer looks in the terminal: its tables, what limits it, and that there is more. One setting for all."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROWS = 12
"""Most rows of a table on one screen; `--all` shows the others."""
MEASURE_AGAIN = "measure again"
"""What stands in the place of dollars, or of a ratio, of what is INVALID."""
NOTICES = 3
"""Most lines that limit an answer, the most serious first; `--all` shows the others."""


def titled_table(title: str, *columns: str) -> Table:
    """An empty table without lines, its title in bold on the left, shown as it is written.

    Args:
        columns: headings of columns on whose left the texts begin; long texts are folded.

    Examples:
        >>> [column.header for column in titled_table("Prices", "instance", "USD").columns]
        ['instance', 'USD']
    """
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show_lines(console: Console, lines: Sequence[str], *, style: str | None = None) -> None:
    """Prints lines as they are written."""
    for line in lines:
        console.print(line, style=style, highlight=False, markup=False)


def show_notices(console: Console, notices: Sequence[str], *, everything: bool, style: str | None = None) -> None:
    """Prints what limits an answer: the first three, and how many more there are; or all."""
    shown = notices if everything else notices[:NOTICES]
    show_lines(console, shown, style=style)
    show_more(console, len(notices) - len(shown), style=style)


def show_more(console: Console, count: int, what: str = "", *, style: str | None = None) -> None:
    """Prints that `--all` shows so many more, where it does."""
    if count > 0:
        show_lines(console, [f"and {count} more{f' {what}' if what else ''}: --all"], style=style)

"""How a table looks in the terminal: one setting for all."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table


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

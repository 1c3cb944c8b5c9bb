"""What a function of the terminal prints."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

NARROW = 60


def printed(show: Callable[..., None], *documents: Any, width: int = 100, **options: Any) -> list[str]:
    """The lines that are printed on a terminal of a width, none of them wider.

    Fails where a narrow terminal would cut something: what is cut ends in an ellipsis.
    """
    for columns in (NARROW, width):
        text = io.StringIO()
        show(Console(file=text, width=columns, force_terminal=False), *documents, **options)
        lines = text.getvalue().splitlines()
        assert "\u2026" not in text.getvalue(), f"something is cut at {columns} columns"
        assert max(map(len, lines), default=0) <= columns
    return lines

"""How long work tells of its progress."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int, str], None]
"""Told pieces of work done, pieces in all, and what comes next."""


def silent(done: int, total: int, text: str) -> None:
    """Progress that nobody watches."""

"""What a misspelt word may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`Did you mean ...? ` with a space behind it, for the front of a remedy; empty where nothing is near.

    Examples:
        >>> did_you_mean("tensorfow", ["tensorflow", "jax", "torch"])
        "Did you mean 'tensorflow'? "
        >>> did_you_mean("zebra", ["tensorflow", "jax", "torch"])
        ''
    """
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1)
    return f"Did you mean {names[near[0]]!r}? " if near else ""

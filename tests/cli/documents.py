"""The blocks of the documentation that say of themselves that they run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LANGUAGES = ("shell", "python")

_MARK = re.compile(r"^<!-- (runs.*) -->$", re.MULTILINE)
_MARKED = re.compile(
    r"^<!-- runs(?P<slowly> slowly)? -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A block that is run."""

    language: str
    text: str
    slow: bool
    """It needs a backend, or takes more than some seconds."""


def blocks_of(text: str) -> Iterator[Block]:
    """The marked blocks of a page, in its order.

    Raises:
        ValueError: a mark without a block of shell or Python below it.
    """
    matches = list(_MARKED.finditer(text))
    if len(matches) != len(_MARK.findall(text)):
        raise ValueError("a mark stands right above a fenced block, and is `<!-- runs -->` or `<!-- runs slowly -->`")
    for match in matches:
        if match["language"] not in LANGUAGES:
            raise ValueError(f"a block that runs is one of {', '.join(LANGUAGES)}, not {match['language']}")
        yield Block(match["language"], match["text"], match["slowly"] is not None)

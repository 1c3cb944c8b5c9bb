"""A card as one HTML page that opens anywhere, made of its Markdown: nothing stands in it that the Markdown has not."""

from __future__ import annotations

import re
from collections import Counter

from kcost.report.templates import page_of
from kcost.risk.card import without_comments

TEMPLATE = "card.html"

_TABLES_AND_HEADINGS = re.compile(r"<h[1-6]>(?P<heading>.*?)</h[1-6]>|<table>|</table>", re.DOTALL)


def render_card_page(markdown: str, title: str) -> bytes:
    """The page in UTF-8. HTML in the Markdown is shown as it is written, never run.

    Args:
        markdown: the text of a card.
        title: of the browser's tab.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    body = parser.render(without_comments(markdown))
    return page_of(TEMPLATE, {}, title=title, body=_with_scrolling_tables(body))


def _with_scrolling_tables(body: str) -> str:
    """Tables in parts of the page that scroll, each with a name of its own: that of the heading above it."""
    heading, names = "table", Counter[str]()

    def replaced(match: re.Match[str]) -> str:
        nonlocal heading
        if match["heading"] is not None:
            heading = re.sub(r"<[^>]*>", "", match["heading"])
            return match[0]
        if match[0] == "</table>":
            return "</table></div>"
        names[heading] += 1
        name = heading if names[heading] == 1 else f"{heading}, {names[heading]}"
        name = name.replace('"', "&quot;")  # all else is escaped already
        return f'<div class="card scroll" tabindex="0" role="region" aria-label="{name}"><table>'

    return _TABLES_AND_HEADINGS.sub(replaced, body)

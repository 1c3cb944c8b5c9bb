"""A card as one HTML page that opens anywhere, made of its Markdown: nothing stands in it that the Markdown has not."""

from __future__ import annotations

from kcost.report.templates import page_of
from kcost.risk.card import without_comments

TEMPLATE = "card.html"


def render_card_page(markdown: str, title: str) -> bytes:
    """The page in UTF-8. HTML in the Markdown is shown as it is written, never run.

    Args:
        markdown: the text of a card.
        title: of the browser's tab.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    body = parser.render(without_comments(markdown))
    body = body.replace("<table>", '<div class="card scroll" tabindex="0" role="region" aria-label="table"><table>')
    body = body.replace("</table>", "</table></div>")
    return page_of(TEMPLATE, {}, title=title, body=body)

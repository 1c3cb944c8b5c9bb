"""Pages as tests read them."""

from html.parser import HTMLParser

from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import conclude, prices_for
from kcost.report.page import render


def page_of(run, outputs, **limits) -> str:
    verdict = conclude(run, prices_for(run, PriceBook.read()), lambda c: outputs.get(c.spec.cell_id), **limits)
    return render(run, verdict).decode()


class Tags(HTMLParser):
    """Collects what a page would load, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag, attrs) -> None:
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

"""Cards as pages: they load nothing, run nothing, and fit a phone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kcost.report.card_page import render_card_page
from tests.unit.report.browser import CHROMIUM, layout_at
from tests.unit.report.pages import Tags
from tests.unit.risk.cards import PAGES


@pytest.mark.parametrize("which", list(PAGES))
def test_a_page_is_whole_and_loads_and_runs_nothing(which: str) -> None:
    page = render_card_page(PAGES[which].text, which).decode()
    tags = Tags()
    tags.feed(page)
    assert (tags.open, tags.loads, tags.scripts) == ([], [], 0)
    assert page.count("<h1>") == 1


@pytest.mark.parametrize("which", list(PAGES))
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; on Debian: apt-get install chromium")
def test_a_page_fits_a_phone(which: str, tmp_path: Path) -> None:
    layout = layout_at(render_card_page(PAGES[which].text, which), 400, tmp_path)
    assert layout.inner_width == 400
    assert layout.scroll_width <= 400
    assert layout.smallest_text >= 10


def test_each_table_that_scrolls_has_a_name_of_its_own() -> None:
    table = "\n\n| a |\n|---|\n| 1 |\n"
    page = render_card_page(f"# Card{table}## Gates & more{table}text{table}", "card").decode()
    names = re.findall(r'role="region" aria-label="([^"]*)"', page)
    assert names == ["Card", "Gates &amp; more", "Gates &amp; more, 2"]

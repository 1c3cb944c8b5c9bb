"""What the printer gets of a page: whole tables, plots as wide as the paper, dark text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from kcost.report.card_page import render_card_page
from kcost.report.recommend_page import render_recommendation
from tests.unit.recommend.answers import answer
from tests.unit.recommend.ways import way
from tests.unit.report.browser import CHROMIUM, rendered
from tests.unit.risk.cards import PAGES
from tests.unit.risk.reports import report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; on Debian: apt-get install chromium")

PAPER_PX = 718
"""Width of A4 between margins of a centimetre."""

WIDE = b"width: 1300, hoverlabel: {"

_MEASURE = """
<script>
addEventListener("load", () => setTimeout(() => {
  dispatchEvent(new Event("beforeprint"));
  const texts = [...document.querySelectorAll(".plot text")].filter((t) => t.textContent.trim());
  const ends = (e, side) => e.getBoundingClientRect()[side];
  const beyond = [...document.querySelectorAll("td, th, .plot text")].filter((e) =>
    ends(e, "right") > ends(e.closest(".card"), "right") + 1
    || ends(e, "bottom") > ends(e.closest(".plot") || e.closest(".card"), "bottom") + 1);
  const buttons = [...document.querySelectorAll(".modebar")].filter((e) => e.getClientRects().length);
  document.body.dataset.paper = JSON.stringify({
    texts: texts.length, buttons: buttons.length,
    beyond: beyond.map((e) => [e.tagName, e.textContent]), cells: document.querySelectorAll("td").length,
    colours: [...new Set(texts.map((t) => getComputedStyle(t).fill))],
  });
}, 5000));
</script></body>
"""


def on_paper(page: bytes, tmp_path: Path) -> dict[str, Any]:
    """How a page lies on paper: its print style on a screen of the width of paper."""
    printed = page.replace(b"@media screen and (prefers-color-scheme: dark)", b"@media not all")
    return on_screen(printed.replace(b"@media print", b"@media all"), tmp_path)


def on_screen(page: bytes, tmp_path: Path) -> dict[str, Any]:
    """How a page lies in a window that is as wide as paper."""
    # A browser without a screen has no window of any width: the body is as wide as the paper.
    narrow = page.replace(b"<body>", f'<body style="width: {PAPER_PX}px">'.encode())
    (measured,) = re.findall(r'data-paper="([^"]*)"', rendered(narrow.replace(b"</body>", _MEASURE.encode()), tmp_path))
    lies: dict[str, Any] = json.loads(unescape(measured))
    return lies


def after_a_resize(page: bytes, tmp_path: Path) -> dict[str, Any]:
    """How a page lies in a window that was as wide as paper when it was drawn, and is narrower now."""
    script = b"""<script>addEventListener("load", () => setTimeout(() => {
      document.body.style.width = "640px";
      dispatchEvent(new Event("resize"));
    }, 2500));</script></body>"""
    return on_screen(page.replace(b"</body>", script), tmp_path)


def of_a_wide_and_dark_window() -> bytes:
    """A recommendation whose plots are drawn wider than paper and in the ink of a dark screen."""
    page = render_recommendation(answer(), report("min_score = 0.5"))
    return page.replace(b"hoverlabel: {", WIDE).replace(b'{color: colour("--text")', b'{color: "#ffffff"')


def test_a_recommendation_drawn_in_a_wide_and_dark_window_is_whole_and_dark_on_paper(tmp_path: Path) -> None:
    paper = on_paper(of_a_wide_and_dark_window(), tmp_path)
    assert (paper["beyond"], paper["buttons"]) == ([], 0)
    assert paper["colours"] == ["rgb(28, 33, 39)"]
    assert paper["texts"] > 50
    assert paper["cells"] > 50


def test_what_is_cut_or_light_is_seen_by_the_test_above(tmp_path: Path) -> None:
    page = of_a_wide_and_dark_window().replace(b'addEventListener("beforeprint"', b"((...a) => 0)(0")
    page = page.replace(b"white-space: normal", b"white-space: nowrap").replace(b"fill: var(--text) !important", b"")
    paper = on_paper(page, tmp_path)
    assert paper["beyond"]
    assert paper["colours"] != ["rgb(28, 33, 39)"]


@pytest.mark.parametrize("look", [on_paper, on_screen, after_a_resize])
def test_a_plot_of_many_bars_stays_above_its_note(
    look: Callable[[bytes, Path], dict[str, Any]], tmp_path: Path
) -> None:
    ways = tuple(way(f"torch/openvino int8_dynamic, {threads} threads", 50 + threads, 0.1) for threads in range(12))
    page = render_recommendation(answer().model_copy(update={"ranked": ways}))
    beyond = look(page, tmp_path)["beyond"]
    assert [name for kind, name in beyond if kind == "text"] == []  # tables are wider on a screen, and scroll


@pytest.mark.parametrize("which", list(PAGES))
def test_a_card_is_whole_on_paper(which: str, tmp_path: Path) -> None:
    paper = on_paper(render_card_page(PAGES[which].text, which), tmp_path)
    assert paper["beyond"] == []
    assert paper["cells"] > 10

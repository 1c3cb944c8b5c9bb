"""The page of a recommendation can be read by keyboard and by a screen reader, in light and in dark.

The rules are those of WCAG 2.2 that a script can hold; what axe-core 4 said of such a page stands in docs/results.md.
"""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from kcost.report.recommend_page import render_recommendation
from tests.unit.recommend.answers import answer
from tests.unit.risk.reports import report

LEAST_CONTRAST = 4.5
"""Of text with what is behind it. Source: WCAG 2.2, success criterion 1.4.3, as is the formula."""


class Elements(HTMLParser):
    """Every element that is opened, with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.opened: list[tuple[str, dict[str, str | None]]] = []
        self.feed(re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def elements() -> list[tuple[str, dict[str, str | None]]]:
    return Elements(render_recommendation(answer(), report("min_score = 0.5")).decode()).opened


def test_it_has_a_language_a_title_and_one_main_part(elements: list[tuple[str, dict[str, str | None]]]) -> None:
    tags = [tag for tag, _ in elements]
    assert dict(elements)["html"]["lang"] == "en"
    assert [tags.count(tag) for tag in ("title", "main", "h1")] == [1, 1, 1]


def test_headings_skip_no_level(elements: list[tuple[str, dict[str, str | None]]]) -> None:
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert 3 in levels
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_what_scrolls_is_reached_by_keyboard_and_has_a_name(elements: list[tuple[str, dict[str, str | None]]]) -> None:
    scrolling = [a for tag, a in elements if tag == "div" and a.get("class") == "scroll"]
    assert len(scrolling) == sum(tag == "table" for tag, _ in elements) >= 3
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in scrolling)
    assert len({a["aria-label"] for a in scrolling}) == len(scrolling)
    assert not [a for _, a in elements if int(a.get("tabindex") or 0) > 0]


def test_plots_and_columns_have_names(elements: list[tuple[str, dict[str, str | None]]]) -> None:
    plots = [a for _, a in elements if a.get("class") == "plot"]
    names = {a["aria-label"] for a in plots}
    assert {"Latency against cost", "Reliability diagram", "Error against coverage"} <= names
    assert len(names) == len(plots)
    assert sorted(str(a["id"]) for a in plots) == sorted(f"plot-{i}" for i in range(len(plots)))
    assert all(a["aria-label"] for a in plots)
    headings = [a for tag, a in elements if tag == "th"]
    assert headings
    assert all(a["scope"] == "col" for a in headings)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def style() -> str:
    return (resources.files("kcost.report") / "templates" / "style.css").read_text()


@pytest.mark.parametrize("place", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "behind"),
    [
        ("text", "back"), ("text", "card"), ("soft", "back"), ("soft", "card"), ("accent", "card"), ("accent", "back"),
        ("good", "good-back"), ("warn", "warn-back"), ("good", "card"),
    ],
)  # fmt: skip
def test_text_stands_out_from_what_is_behind_it(place: int, text: str, behind: str) -> None:
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", style().split("@media")[place]))
    assert contrast(colours[text], colours[behind]) >= LEAST_CONTRAST


def test_the_formula_of_contrast_knows_black_on_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_what_has_the_focus_is_seen() -> None:
    assert re.search(r"\[tabindex\]:focus-visible \{ outline: 2px solid", style())
    assert "outline: none" not in style()

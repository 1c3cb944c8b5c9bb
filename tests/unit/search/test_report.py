"""A search in the terminal and as a page."""

from __future__ import annotations

import io
import json
import re
from html import unescape
from pathlib import Path

import plotly.graph_objects as go
import pytest
from rich.console import Console

from kcost.report.search_page import render_search
from kcost.report.search_plots import plots_of_search
from kcost.report.search_terminal import show_search, summary
from kcost.search.result import Importance, SearchResult
from testing.terminal import printed as printed_lines
from tests.unit.report.browser import CHROMIUM, rendered
from tests.unit.report.pages import Tags
from tests.unit.search import fake

EVIL = "</script><script>alert('<img src=x onerror=alert(1)>')</script>"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    out = tmp_path_factory.mktemp("search") / "out"
    search_result = fake.run(fake.request(out, trials=6), run_trial=fake.fail_every(5))
    shares = {"learning_rate": 0.7, "size": 0.3}
    return search_result.model_copy(update={"importances": (Importance(objective="score", shares=shares),)})


def nothing(result: SearchResult) -> SearchResult:
    return result.model_copy(
        update={"trials": (), "pareto": (), "best": None, "cheapest_as_good": None, "importances": ()}
    )


def printed(result: SearchResult) -> str:
    console = Console(file=io.StringIO(), width=200)
    show_search(console, result, everything=True)
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\s+", " ", console.file.getvalue())


def test_the_terminal_says_what_was_found_and_what_it_rests_on(result: SearchResult) -> None:
    text = printed(result)
    assert result.best is not None
    assert f"Best score: trial {result.best}, accuracy" in text
    assert "400 examples" in text
    assert "predicted, not billed; basis: simulated" in text
    assert "Scores are of the validation split" in text
    assert "trial 4 failed: Training keeps a finite loss." in text
    assert "m7i" in text or "nearest in the price book" in text
    assert "learning_rate from 0.0001 to 0.01, log scale" in text
    assert "learning_rate 0.70, size 0.30" in text


def test_the_terminal_says_what_to_take_first_on_one_screen(result: SearchResult) -> None:
    lines = printed_lines(show_search, result)
    assert lines[0].startswith(result.study)
    assert any(line.startswith("Best score: trial") for line in lines[:3])
    assert any(line.endswith("more: --all") for line in lines)
    assert len(lines) <= 40


def test_a_search_without_a_complete_trial(result: SearchResult) -> None:
    assert "nothing to choose from" in printed(nothing(result))
    assert "nothing to choose from" in render_search(nothing(result)).decode()
    assert plots_of_search(nothing(result)) == []


def test_plotly_knows_every_attribute(result: SearchResult) -> None:
    plots = plots_of_search(result)
    assert len(plots) == 3
    for plot in plots:
        go.Figure(plot.figure)  # raises ValueError for an attribute or a value that plotly does not have


def test_the_front_is_drawn_through_its_trials(result: SearchResult) -> None:
    line, *points = plots_of_search(result)[0].figure["data"]
    front = [result.trial(n) for n in result.pareto]
    assert line["x"] == [t.predicted.usd for t in front if t.predicted]
    assert line["y"] == [t.score.value for t in front if t.score]
    assert sum(len(p["x"]) for p in points) == len(result.in_state("complete"))


def test_the_page_is_whole_loads_nothing_and_says_what_the_terminal_says(result: SearchResult) -> None:
    page = render_search(result).decode()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.loads == []
    assert "default-src 'none'" in page
    for sentence in (*summary(result), *result.notices):
        assert sentence in unescape(page)
    (figures,) = re.findall(r"^const figures = (.*);$", page, re.MULTILINE)
    assert len(json.loads(figures)) == 3


def test_what_others_wrote_is_text_not_markup(result: SearchResult) -> None:
    bad = result.trials[4].model_copy(update={"reason": EVIL})
    page = render_search(result.model_copy(update={"study": EVIL, "trials": (*result.trials[:4], bad)})).decode()
    assert EVIL not in page
    tags = Tags()
    tags.feed(page)
    assert tags.scripts == 3


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; on Debian: apt-get install chromium")
def test_the_plots_are_drawn_offline(result: SearchResult, tmp_path: Path) -> None:
    document = rendered(render_search(result), tmp_path)
    body = re.search(r"<body[^>]*>", document)
    assert body is not None
    assert 'data-drawn="3"' in body.group()
    assert "data-error" not in body.group()

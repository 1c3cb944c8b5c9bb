"""What results show of themselves in a notebook."""

from __future__ import annotations

import re
import sys
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
from hypothesis import given, strategies as st

import kcost
from kcost.bench.compare import compare
from kcost.core.conversion import ConversionCheck
from kcost.core.errors import InputError, UnavailableError
from kcost.cost.payoff import Payoff, Size, decide
from kcost.report.derived_results import ShownExport, ShownPayoff, ShownRisk
from kcost.report.interval_chart import LABEL, TEXT, WIDTH, Axis, Mark, interval_svg
from kcost.report.measured_results import ShownComparison, ShownRun, ShownVerdict
from kcost.report.notebook import ROWS, Shown, shown
from kcost.ship.export_report import ExportReport
from testing.runs import disturbed, plan, replaced, simulated_run, write_run
from tests.unit.bench.runs_to_compare import PRICES, run_of, slowed
from tests.unit.cost.payoffs import BIG, drop, speed
from tests.unit.report.browser import CHROMIUM, layout_at
from tests.unit.report.pages import Tags
from tests.unit.risk.reports import report as risk_report

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", *simulated_run(plan())).path


@pytest.fixture(scope="module")
def verdict(run: Path) -> ShownVerdict:
    return kcost.make_report(run)


@pytest.fixture(scope="module")
def results(run: Path, verdict: ShownVerdict) -> dict[str, Shown]:
    """One of each kind."""
    speeds = (speed(1, 0.8), speed(32, 3.0))
    word, sentence = decide(drop(0, 0.001), 0.01, speeds, BIG, BIG)
    payoff = Payoff(
        word=word, sentence=sentence, model="m", out="out", backend="jax", drop=drop(0, 0.001), max_drop=0.01,
        speeds=speeds, before=BIG, after=Size(file_bytes=300, parameters=10, peak_host_bytes=None), steps=(),
        assumptions=("priced as aws m7i.large",),
    )  # fmt: skip
    export = ExportReport(
        name="m", version=1, model="m", model_sha256="0", inputs=(), outputs=(), weights_bytes=1,
        checks=(ConversionCheck(batch=3, free_axes=(), max_abs_difference=1e-7),), keras_version="3", files={},
        tensorflow_version="2", library_version="2.21.0", serving_image="i", created_at="2026-01-01",
    )  # fmt: skip
    return {
        "verdict": verdict,
        "run": shown(ShownRun, kcost.open_run(run)),
        "comparison": kcost.compare_runs(run, run, fail_if="usd_per_million>3%"),
        "budget": kcost.estimate_budget(run, qps=200, p99_ms=2000, draws=200),
        "risk": shown(ShownRisk, risk_report("min_score = 0.5")),
        "payoff": shown(ShownPayoff, payoff),
        "export": shown(ShownExport, export),
    }


KINDS = ("verdict", "run", "comparison", "budget", "risk", "payoff", "export")


@pytest.mark.parametrize("kind", KINDS)
def test_each_result_shows_a_sentence_a_short_table_and_a_picture(results: dict[str, Shown], kind: str) -> None:
    result = results[kind]
    html, view = result._repr_html_(), result.view()
    tags = Tags()
    tags.feed(html)
    assert tags.open == [], "every tag is closed"
    assert tags.loads == []
    assert tags.scripts == 0
    assert view.says[0].sentence in unescape(html)
    rows = re.findall(r"<tr>", html)
    assert 2 <= len(rows) <= 1 + ROWS
    assert all(len(row) == len(view.headings) for row in view.rows)
    assert ("<svg" in html) == (kind != "export")
    assert result.records(), "a frame has rows"
    assert len({frozenset(record) for record in result.records()}) == 1, "each row has the same columns"


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_the_document_that_it_was_before(results: dict[str, Shown], kind: str) -> None:
    """The same fields, the same JSON: what is written to a file or by --json does not change."""
    result: Any = results[kind]
    (document,) = (base for base in type(result).__mro__ if base.__module__.startswith("kcost.") and base is not Shown
                   and not issubclass(base, Shown) and "Record" not in base.__name__)  # fmt: skip
    plain = document.model_construct(_fields_set=set(result.model_fields_set), **dict(result))
    assert result.model_dump_json() == plain.model_dump_json()
    assert plain == result
    assert result == plain
    assert set(type(result).model_fields) == set(document.model_fields)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "export"])
def test_plots_are_plotly_figures(results: dict[str, Shown], kind: str) -> None:
    result = results[kind]
    for number, plot in enumerate(result.plots()):
        figure = result.plot(number)
        assert isinstance(figure, go.Figure)
        assert figure.layout.title.text == plot.title
        assert len(figure.data) >= 1
    with pytest.raises(InputError, match="0: "):
        result.plot(99)


def test_the_table_holds_the_best_and_plain_keras(verdict: ShownVerdict) -> None:
    ranking = verdict.main_ranking
    assert ranking is not None
    assert ranking.phase == "inference"
    rows = verdict.view().rows[:ROWS]
    assert rows[0][0] == "1"
    assert sum("*" in row[1] for row in rows) == 1
    assert len(verdict.records()) == sum(len(r.cells) for r in verdict.rankings)
    assert len(verdict.view().rows) == len(ranking.cells)
    best = ranking.cells[0]
    way = f'backend="{best.backend}", method="{best.method}", batch={best.batch}, precision="bfloat16"'
    assert best.precision == "bfloat16"
    assert f"kcost.load(MODEL, {way})" in unescape(verdict._repr_html_())


def test_what_was_measured_beside_other_work_has_no_figure_and_is_not_green(tmp_path: Path) -> None:
    run, outputs = simulated_run(plan(batches=(32,), phases=("inference",), methods=("predict", "jit")))
    verdict = kcost.make_report(write_run(tmp_path / "run", disturbed(run), outputs).path)
    html = verdict._repr_html_()
    assert 'class="say bad"' in html
    assert 'class="say won"' not in html
    assert "INVALID: other processes took 50.0%" in html
    assert "measure again while nothing else runs" in html
    assert all(row[4:6] == ("measure again", "-") for row in verdict.view().rows)
    assert {(r["usd"], r["usd_low"], r["usd_high"], r["times_cheaper"]) for r in verdict.records()} == {(None,) * 4}
    assert {r["usd_unit"] for r in verdict.records()} == {"million predictions"}
    assert verdict.view().then is None, "nothing is recommended"
    assert verdict.view().chart is None
    assert [plot.title for plot in verdict.plots()] == ["Step time against batch size"]


def test_a_chart_of_dollars_leaves_out_what_has_none_and_says_so(tmp_path: Path) -> None:
    run, outputs = simulated_run(plan(batches=(32,), phases=("inference",)))
    one = run.cells[-1].spec
    verdict = kcost.make_report(write_run(tmp_path / "run", disturbed(run, one.cell_id), outputs).path)
    chart = verdict.view().chart
    assert chart is not None
    assert len(chart.marks) == len(run.cells) - 1
    assert chart.title.endswith(", without 1 INVALID")
    (scores,) = (plot for plot in verdict.plots() if plot.title.endswith("against cost"))
    assert scores.note.endswith("INVALID cells (1) have no cost, and no point.")
    points = [trace for trace in scores.figure["data"] if trace["mode"] == "markers"]
    assert sum(len(trace["x"]) for trace in points) == len(run.cells) - 1


@pytest.mark.parametrize("usd", [False, True])
def test_a_chart_of_two_runs_leaves_out_what_is_invalid_and_says_so(usd: bool) -> None:
    run = run_of(0)
    busy = run.cells[0].spec
    b = slowed(disturbed(run, busy.cell_id), 9.0, busy.label)  # what would be the largest change
    prices = PRICES if usd else None
    view = shown(ShownComparison, compare(run, b, usd_per_hour=prices)).view()
    assert view.chart is not None
    assert len(view.chart.marks) == len(run.cells) - 1
    assert busy.label not in {mark.label for mark in view.chart.marks}
    assert ("USD" in view.chart.axis.title) == usd
    assert view.chart.title == "Run B against run A, without 1 INVALID"
    assert [row[1] for row in view.rows].index(busy.label) == len(run.cells) - 1, "the last row"
    none = shown(ShownComparison, compare(run, disturbed(run), usd_per_hour=prices))
    assert none.view().chart is None
    assert none.plots() == []


def test_names_of_others_are_text(tmp_path: Path) -> None:
    run, outputs = simulated_run(plan(batches=(1,), phases=("inference",), methods=("predict", "jit")))
    entry = run.index.models[0].model_copy(update={"name": EVIL})
    cells = tuple(c.model_copy(update={"spec": c.spec.model_copy(update={"model": EVIL})}) for c in run.cells)
    by_new_id = {n.spec.cell_id: outputs[o.spec.cell_id] for n, o in zip(cells, run.cells, strict=True)}
    index = run.index.model_copy(update={"models": (entry,)})
    evil = run.model_copy(update={"index": index, "cells": cells})
    html = kcost.make_report(write_run(tmp_path / "run", evil, by_new_id).path)._repr_html_()
    assert "&lt;script&gt;" in html
    assert EVIL not in html


def test_a_run_without_measurements_shows_itself_too(tmp_path: Path) -> None:
    run, _ = simulated_run(plan(batches=(1,), phases=("inference",), methods=("jit",)))
    for cell in run.cells:
        run = replaced(run, cell.spec.cell_id, status="oom", reason="no memory", rounds=())
    folder = write_run(tmp_path / "run", run).path
    assert "nothing to rank" in kcost.make_report(folder)._repr_html_()
    assert "0 cells were measured" in shown(ShownRun, kcost.open_run(folder))._repr_html_()


def test_without_pandas_a_frame_says_what_to_install(verdict: ShownVerdict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UnavailableError, match=r"pip install 'kcost\[notebook\]'"):
        verdict.to_frame()


def test_a_frame_has_a_row_for_each_record(verdict: ShownVerdict) -> None:
    pytest.importorskip("pandas", reason="needs kcost[notebook]")
    frame = verdict.to_frame()
    assert len(frame) == len(verdict.records())
    assert {"usd", "step_ms", "times_cheaper"} <= set(frame.columns)


positive = st.floats(1e-6, 1e6)


@given(st.lists(st.tuples(positive, st.floats(1, 10), st.floats(1, 10)), min_size=1, max_size=15), st.booleans())
def test_every_figure_of_a_picture_lies_within_it(figures: list[tuple[float, float, float]], log: bool) -> None:
    marks = [Mark(EVIL, v, v / down, v * up, "#000000", "x", faded=False) for v, down, up in figures]
    picture = ElementTree.fromstring(interval_svg(marks, Axis("axis", log), title="t"))
    circles = [float(c.attrib["cx"]) for c in picture.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(circles) == len(figures)
    assert all(LABEL - 0.1 <= x <= WIDTH - TEXT + 0.1 for x in circles)
    order = sorted(range(len(figures)), key=lambda i: figures[i][0])
    assert [circles[i] for i in order] == sorted(circles), "larger figures lie further to the right"


def test_a_logarithmic_axis_refuses_zero() -> None:
    with pytest.raises(ValueError, match="positive"):
        interval_svg([Mark("a", 0.0, 0.0, 1.0, "#000000", "x")], Axis("axis", logarithmic=True), title="t")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; on Debian: apt-get install chromium")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_notebook_fits_a_phone_and_a_wide_screen(results: dict[str, Shown], width: int, tmp_path: Path) -> None:
    cells = "".join(result._repr_html_() for result in results.values())
    page = f'<!doctype html><meta name="viewport" content="width=device-width"><body>{cells}</body>'
    layout = layout_at(page.encode(), width, tmp_path)
    assert layout.inner_width == width
    assert layout.scroll_width <= width
    assert layout.smallest_text >= 10

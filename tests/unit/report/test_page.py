import json
import re
from html import unescape

import pytest

from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import conclude, prices_for
from kcost.report.page import ROWS, render, rows_left
from testing.runs import disturbed, plan, replaced, simulated_run
from tests.unit.report.pages import Tags, page_of

EVIL = "</script><script>alert('<img src=x onerror=alert(1)>')</script>"


@pytest.fixture(scope="module")
def page() -> str:
    run, outputs = simulated_run(plan(models=("simulated-cnn", "simulated-bert")))
    run = replaced(run, run.cells[4].spec.cell_id, status="crash", reason=f"it fell over: {EVIL}")
    return page_of(run, outputs)


def test_the_page_is_whole_and_loads_nothing(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.loads == []
    assert "default-src 'none'" in page
    assert page.count("plotly.js v") == 1  # the library stands in the page once


def test_the_page_says_what_the_verdict_says(page: str) -> None:
    text = unescape(page)
    run, outputs = simulated_run(plan(models=("simulated-cnn", "simulated-bert")))
    run = replaced(run, run.cells[4].spec.cell_id, status="crash", reason="it fell over")
    verdict = conclude(run, prices_for(run, PriceBook.read()), lambda c: outputs.get(c.spec.cell_id))
    for conclusion in verdict.conclusions:
        assert conclusion.sentence in text
    for part in ("Simulated.", "Synthetic data.", "m7i.large", "2026-07-20", "aws/karpenter-provider-aws@"):
        assert part in text
    assert run.cells[4].spec.label in text.split("<h2>Not measured</h2>")[1]
    for environment_id in run.environments:
        assert environment_id in text.split("<h2>Environment</h2>")[1]


def test_what_others_wrote_is_text_not_markup(page: str) -> None:
    assert "it fell over: &lt;/script&gt;" in page
    assert EVIL not in page
    run, outputs = simulated_run(plan(batches=(1,)))
    entry = run.index.models[0].model_copy(update={"name": EVIL})
    cells = tuple(c.model_copy(update={"spec": c.spec.model_copy(update={"model": EVIL})}) for c in run.cells)
    by_new_id = {n.spec.cell_id: outputs.get(o.spec.cell_id) for n, o in zip(cells, run.cells, strict=True)}
    index = run.index.model_copy(update={"models": (entry,)})
    evil = page_of(run.model_copy(update={"index": index, "cells": cells}), by_new_id)
    tags = Tags()
    tags.feed(evil)
    assert tags.scripts == 3
    assert EVIL not in evil


def test_the_figures_are_json(page: str) -> None:
    (script,) = re.findall(r"^const figures = (.*);$", page, re.MULTILINE)
    figures = json.loads(script)
    assert len(figures) == 6  # two models: step times and scores of inference, step times of training
    assert page.count('class="plot"') == len(figures)


def test_a_large_run_shows_its_best_and_plain_keras() -> None:
    run, outputs = simulated_run(plan(batches=tuple(range(1, 40)), phases=("inference",)))
    verdict = conclude(run, prices_for(run, PriceBook.read()), lambda c: outputs.get(c.spec.cell_id))
    (ranking,) = verdict.rankings
    shown = ranking.first(ROWS)
    assert len(shown) == ROWS
    assert shown[-1].cell_id == ranking.baseline
    assert rows_left(ranking) == len(ranking.cells) - ROWS
    assert f"and {rows_left(ranking)} more:" in render(run, verdict).decode()


def test_a_run_without_measurements_is_a_page_too() -> None:
    run, outputs = simulated_run(plan(batches=(1,), phases=("inference",)))
    for cell in run.cells:
        run = replaced(run, cell.spec.cell_id, status="oom", reason=None)
    text = page_of(run, outputs)
    assert "nothing to rank" in text
    assert "no reason was given" in text


def test_one_round_has_an_unbounded_interval() -> None:
    base = plan(batches=(1,), phases=("inference",))
    run, outputs = simulated_run(base.model_copy(update={"settings": base.settings.model_copy(update={"rounds": 1})}))
    assert "to unbounded" in page_of(run, outputs, p99_ms=5.0)


def test_what_was_measured_beside_other_work_has_no_dollars_and_says_why() -> None:
    run, outputs = simulated_run(plan(batches=(32,), phases=("inference",), methods=("predict", "jit")))
    best = run.cells[-1].spec
    page = page_of(disturbed(run, best.cell_id), outputs)
    rows = re.findall(r"<tr.*?</tr>", page.split("<tbody>")[1].split("</tbody>")[0], re.DOTALL)
    (row,) = (row for row in rows if "measure again" in row)
    assert f"{best.backend}/{best.method}" in row
    reason = "other processes took 50.0% of the machine&#39;s CPU time: measure again while nothing else runs"
    assert f'title="{reason}">measure again</span>' in row
    assert "$" not in row
    assert sum("$" in row for row in rows) == len(run.cells) - 1
    whole = page_of(disturbed(run), outputs)
    tags = Tags()
    tags.feed(whole)
    assert tags.open == []
    assert "$" not in whole.split("<h2>Verdict</h2>")[1].split("<h2>Prices</h2>")[0].split("<script")[0]
    assert "Simulated." in whole

"""The page of a budget: what its plots hold, that its text is escaped, and that a browser draws it."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

import kcost
from kcost.cost.assumptions import Assumptions
from kcost.cost.budget import Budget, make_budget
from kcost.cost.instance_map import InstancePoint, map_of
from kcost.cost.next_dollar import next_dollar
from kcost.cost.option import OneOff
from kcost.cost.score_routes import Trained
from kcost.cost.traffic import constant
from kcost.report.budget_page import render_budget
from kcost.report.budget_plots import bill_plot, break_even_plot, map_plot, plots_of_budget, tornado_plot
from testing.budgets import option
from tests.unit.report.browser import CHROMIUM, rendered
from tests.unit.report.pages import Tags

GUIDE = Path(__file__).parents[3] / "docs" / "scenario.toml"


@pytest.fixture(scope="module")
def budget() -> Budget:
    return kcost.estimate_budget(scenario=GUIDE, draws=500)


def test_the_bars_of_an_option_come_to_its_total(budget: Budget) -> None:
    bars = bill_plot(budget).figure["data"]
    assert [bar["name"] for bar in bars] == ["serving", "work", "labelling", "training"]
    for priced in budget.options:
        name = priced.bill.option.name
        assert sum(bar["x"][bar["y"].index(name)] for bar in bars) == pytest.approx(priced.bill.usd_total)


def test_what_is_not_measured_is_hatched() -> None:
    options = [option(), option("b", basis="projected"), option("c", simulated=True)]
    bars = bill_plot(make_budget(options, {}, constant(10), Assumptions(), draws=50)).figure["data"]
    hatched = dict(zip(bars[0]["y"], bars[0]["marker"]["pattern"]["shape"], strict=True))
    assert hatched == {"plain": "", "b": "/", "c": "/"}


def test_the_lines_cross_where_it_pays_back(budget: Budget) -> None:
    winner, runner, mark = break_even_plot(budget).figure["data"]
    assert budget.break_even is not None
    day = budget.break_even.days
    assert mark["x"] == [day]
    for line in (winner, runner):
        slope = (line["y"][-1] - line["y"][0]) / budget.horizon_days
        assert line["y"][0] + slope * day == pytest.approx(mark["y"][0], abs=0.01)
    assert winner["y"][0] == pytest.approx(1351.5)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"queries_per_s_per_replica": 50.0, "one_off": OneOff(work_hours=8)}, "beyond|never saved|no more at first"),
        ({"queries_per_s_per_replica": 90.0}, "nothing to pay back"),
    ],
)
def test_lines_that_do_not_cross_say_why(changes: dict, note: str) -> None:
    made = make_budget([option(), option("b", **changes)], {}, constant(500), Assumptions(), draws=50)
    plot = break_even_plot(made)
    assert len(plot.figure["data"]) == 2
    assert re.search(note, plot.note)


def test_the_widest_swing_is_on_top(budget: Budget) -> None:
    (bar,) = tornado_plot(budget).figure["data"]
    assert bar["x"] == sorted(bar["x"])
    assert bar["y"][-1] == budget.tornado[0].cause


def test_one_option_has_a_bill_alone() -> None:
    made = make_budget([option()], {}, constant(10), Assumptions(), draws=50)
    assert [plot.title for plot in plots_of_budget(made)] == ["The bill of 365 days by kind"]


def test_the_map_hatches_what_no_measurement_is_behind() -> None:
    """Two points by hand: 0.1 USD an hour at 80 a second is 12.5 ms and 0.347 USD a million."""
    projected = InstancePoint(
        instance="aws g6.xlarge us-east-1", way="jax/jit fp32, batch 32", usd_per_hour=0.8, ms_per_prediction=1.0,
        low_ms=0.5, high_ms=2.0, basis="projected",
    )  # fmt: skip
    points = map_of([option()], None, {})
    assert [(p.instance, p.ms_per_prediction) for p in points] == [("aws m7i.large us-east-1", 12.5)]
    assert points[0].usd_per_million == pytest.approx(0.1 / 3600 / 80 * 1e6)
    made = make_budget([option()], {}, constant(10), Assumptions(), draws=50)
    measured, hatched, line = map_plot(made.model_copy(update={"instances": (*points, projected)})).figure["data"]
    assert (measured["marker"]["symbol"], hatched["marker"]["symbol"]) == ("circle", "hash-open")
    assert (hatched["error_y"]["array"], hatched["error_y"]["arrayminus"]) == ([1.0], [0.5])
    assert "error_y" not in measured
    for x, y in zip(line["x"], line["y"], strict=True):
        assert x / 3600 * y * 1e3 == pytest.approx(points[0].usd_per_million)


def test_one_option_says_that_it_is_alone() -> None:
    made = make_budget([option()], {}, constant(10), Assumptions(), draws=50)
    assert b"nothing to compare it with" in render_budget(made)


def test_the_page_loads_nothing_and_escapes_names() -> None:
    bad = option("<script>alert(1)</script>", queries_per_s_per_replica=90.0)
    text = render_budget(make_budget([option(), bad], {}, constant(500), Assumptions(), draws=50)).decode()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.loads == []
    assert "<script>alert(1)" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; on Debian: apt-get install chromium")
def test_a_browser_draws_the_plots_offline(budget: Budget, tmp_path: Path) -> None:
    """All five: the bill, break-even, tornado, the map with a projected instance, and the learning curve."""
    projected = InstancePoint(
        instance="aws g6.xlarge us-east-1", way="jax/jit fp32, batch 32", usd_per_hour=0.8, ms_per_prediction=1.0,
        low_ms=0.5, high_ms=2.0, basis="projected",
    )  # fmt: skip
    at_hand = projected.model_copy(update={"instance": "aws m7i.large us-east-1", "basis": "measured"})
    mapped = budget.model_copy(update={"instances": (at_hand, projected)})
    scored = [(labels, seed, 0.95 - 2 / labels**0.6 + 0.001 * seed) for labels in (400, 700, 1000) for seed in (0, 1)]
    models = [
        Trained(f"{n}-{s}", n, 100, "seed", 9, 9, (), None, None, 0.01, score) for n, s, score in reversed(scored)
    ]
    curve = next_dollar(models, score_name="accuracy", label_price=None)
    document = rendered(render_budget(mapped, curve), tmp_path)
    body = re.search(r"<body[^>]*>", document)
    assert body is not None
    assert "data-error" not in body.group(), body.group()
    assert 'data-drawn="5"' in body.group()
    plots = [document.split(f'id="plot-{number}"')[1].split('class="note"')[0] for number in range(5)]
    for plot in plots:
        assert 'class="main-svg"' in plot
        assert 'class="xtick"' in plot
    assert "pattern" in plots[0], "published figures are hatched"
    assert "Map of instances" in document
    assert "hatched: not measured" in plots[3]
    assert plots[3].count('class="point"') == 2
    assert plots[4].count('class="trace scatter') == 4
    assert budget.sentence in unescape(document)
    assert curve.sentence in unescape(document)

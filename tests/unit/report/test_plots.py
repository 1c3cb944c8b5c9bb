from itertools import chain
from typing import get_args

import plotly.graph_objects as go
import pytest
from hypothesis import given, strategies as st

from kcost.core.conversion import RUNTIMES
from kcost.core.pareto import pareto_front
from kcost.core.plan import INFERENCE_METHODS, Precision
from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import conclude, prices_for
from kcost.report.plots import DASHES, SYMBOLS, plots_of, round_numbers, score_by_cost, step_time_by_batch
from testing.runs import plan, simulated_run


def ranking(phase: str = "inference", batches: tuple[int, ...] = (1, 8, 32)):
    run, outputs = simulated_run(plan(batches=batches))
    verdict = conclude(run, prices_for(run, PriceBook.read()), lambda c: outputs.get(c.spec.cell_id))
    return verdict.ranking("simulated-cnn", phase)


def test_plotly_knows_every_attribute() -> None:
    for phase in ("inference", "training"):
        for plot in plots_of(ranking(phase)):
            go.Figure(plot.figure)  # raises ValueError for an attribute or a value that plotly does not have


def test_every_method_and_precision_has_its_mark() -> None:
    assert set(SYMBOLS) == {*chain.from_iterable(INFERENCE_METHODS.values()), "train_on_batch", *RUNTIMES}
    assert set(DASHES) == set(get_args(Precision))


def test_each_way_of_running_is_a_line_through_its_batches() -> None:
    inference = ranking()
    figure = step_time_by_batch(inference).figure
    lines = {line["name"]: line for line in figure["data"]}
    assert len(lines) == 3 + 4 + 4  # predict is float32 only; graph, xla, jit and eager in both
    jit = lines["jax/jit float32"]
    times = {c.batch: c.step_ms for c in inference.cells if (c.method, c.precision) == ("jit", "float32")}
    assert dict(zip(jit["x"], jit["y"], strict=True)) == times
    assert list(jit["x"]) == [1, 8, 32]
    assert figure["layout"]["xaxis"]["tickvals"] == [1, 8, 32]
    many = step_time_by_batch(ranking(batches=tuple(range(1, 20))))
    assert many.figure["layout"]["xaxis"]["tickvals"] == [1, 2, 5, 10, 20]


def test_a_training_ranking_has_no_scores_to_plot() -> None:
    assert score_by_cost(ranking("training")) is None
    assert len(plots_of(ranking("training"))) == 1


def test_every_scored_cell_is_a_point_and_unranked_ones_are_faded() -> None:
    inference = ranking()
    hidden = inference.cells[3].model_copy(update={"rank": None, "standing": "score too low"})
    inference = inference.model_copy(update={"cells": (*inference.cells[:3], hidden, *inference.cells[4:])})
    points = [trace for trace in score_by_cost(inference).figure["data"] if trace["mode"] == "markers"]
    assert sum(len(p["x"]) for p in points) == len(inference.cells)
    assert sorted(o for p in points for o in p["marker"]["opacity"])[:2] == [0.35, 1.0]
    front = score_by_cost(inference).figure["data"][0]
    assert hidden.cost.usd not in front["x"]


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_front_is_what_no_other_beats(values) -> None:
    cell = next(c for c in RANKING.cells if c.quality.scores)
    cells = [with_values(cell, usd, score) for usd, score in values]
    on_front = pareto_front(cells, lambda c: c.cost.usd, lambda c: c.quality.scores[0].value)
    front = [(c.cost.usd, c.quality.scores[0].value) for c in on_front]
    beaten = {
        (usd, score)
        for usd, score in values
        if any(u <= usd and s >= score and (u, s) != (usd, score) for u, s in values)
    }
    assert front == sorted(set(values) - beaten)


def with_values(cell, usd: float, score: float):
    scored = cell.quality.scores[0].model_copy(update={"value": score})
    return cell.model_copy(
        update={
            "cost": cell.cost.model_copy(update={"usd": usd}),
            "quality": cell.quality.model_copy(update={"scores": (scored,)}),
        }
    )


@given(st.floats(1e-9, 1e9), st.floats(1, 1e6))
def test_round_numbers_reach_round_what_is_plotted(low: float, factor: float) -> None:
    high = low * factor
    numbers = round_numbers(low, high)
    assert numbers == sorted(numbers)
    assert numbers[0] <= low <= high <= numbers[-1]
    assert len(numbers) <= 20


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1, 1, [1]), (3, 40, [2, 5, 10, 20, 50]), (0.02, 0.05, [0.02, 0.05])]
)
def test_round_numbers_by_hand(low: float, high: float, expected: list[float]) -> None:
    assert round_numbers(low, high) == expected


RANKING = ranking()

"""The plots of a run as plotly figures in plain data: what `plotly.graph_objects.Figure` takes, not importing it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from kcost.core.artifact import Score
from kcost.core.pareto import pareto_front
from kcost.core.units import UsdScale, significant
from kcost.cost.ranking import RankedCell, Ranking

COLOURS = {"tensorflow": "#e8710a", "jax": "#2b7de9", "torch": "#c2377e", "fake": "#7a7f87"}
"""One a backend; each stands out on white and on black."""

SYMBOLS = {
    "predict": "x-thin-open", "graph": "circle", "xla": "diamond", "jit": "square", "eager": "triangle-up",
    "compile": "star", "train_on_batch": "circle",
    "saved_model": "hexagon", "litert": "pentagon", "onnx": "cross", "openvino": "bowtie",
}  # fmt: skip
DASHES = {"float32": "solid", "bfloat16": "dot", "saved": "longdash", "int8": "dash", "int8_dynamic": "dashdot"}
MOST_TICKS = 12
MOST_DECADES = 5


class Plot(NamedTuple):
    """A plot and what a reader needs to read it."""

    title: str
    note: str
    figure: dict[str, Any]


def plots_of(ranking: Ranking) -> list[Plot]:
    """The plots that a ranking has data for."""
    plots = [step_time_by_batch(ranking)]
    scored = score_by_cost(ranking)
    return plots if scored is None else [*plots, scored]


def step_time_by_batch(ranking: Ranking) -> Plot:
    """Median time of a step against the batch size, a line for each way of running; milliseconds, both axes log."""
    steps_ms = [c.step_ms for c in ranking.cells]
    return Plot(
        title="Step time against batch size",
        note="Median of all steps, one after another, input and output transfer included. Lower is faster; a line "
        "that rises more slowly than the batch makes each example cheaper.",
        figure={
            "data": [_line(key, cells) for key, cells in _by_way(ranking).items()],
            "layout": {
                "xaxis": _log_axis("batch size", _batch_ticks(ranking)),
                "yaxis": _log_axis("milliseconds a step", round_numbers(min(steps_ms), max(steps_ms))),
            },
        },
    )


def throughput_by_batch(ranking: Ranking) -> Plot:
    """Examples a second against the batch size, a line for each way of running; both axes log."""
    rates = [c.examples_per_s for c in ranking.cells]
    more = {"hovertemplate": "batch %{x}: %{y:.4g} examples a second"}
    lines = _by_way(ranking).items()
    return Plot(
        title="Throughput against batch size",
        note="Examples a second of one replica, one step after another. Higher is faster.",
        figure={
            "data": [{**_line(key, cells), "y": [c.examples_per_s for c in cells], **more} for key, cells in lines],
            "layout": {
                "xaxis": _log_axis("batch size", _batch_ticks(ranking)),
                "yaxis": _log_axis("examples a second", round_numbers(min(rates), max(rates))),
            },
        },
    )


def _by_way(ranking: Ranking) -> dict[tuple[str, str, str], list[RankedCell]]:
    lines: dict[tuple[str, str, str], list[RankedCell]] = {}
    for cell in sorted(ranking.cells, key=lambda c: (c.backend, c.method, c.precision, c.batch)):
        lines.setdefault((cell.backend, cell.method, cell.precision), []).append(cell)
    return lines


def _batch_ticks(ranking: Ranking) -> Sequence[float]:
    batches = sorted({c.batch for c in ranking.cells})
    return batches if len(batches) <= MOST_TICKS else round_numbers(batches[0], batches[-1])


def _line(key: tuple[str, str, str], cells: list[RankedCell]) -> dict[str, Any]:
    backend, method, precision = key
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{backend}/{method} {cells[0].dtype}",
        "x": [c.batch for c in cells],
        "y": [c.step_ms for c in cells],
        "customdata": [[significant(c.step_p95_ms), significant(c.examples_per_s)] for c in cells],
        "hovertemplate": "batch %{x}: %{y:.3g} ms, p95 %{customdata[0]} ms<br>%{customdata[1]} examples a second",
        "line": {"color": COLOURS[backend], "dash": DASHES[precision], "width": 2},
        "marker": {"symbol": SYMBOLS[method], "size": 8, "line": {"width": 2, "color": COLOURS[backend]}},
    }


def score_by_cost(ranking: Ranking) -> Plot | None:
    """Score against cost, a point a cell, with the front of those that none beats in both; None without scores."""
    scored = [c for c in ranking.cells if c.quality.scores]
    if not scored:
        return None
    name, scale = scored[0].quality.scores[0].name.replace("_", " "), ranking.usd_scale
    groups: dict[tuple[str, str], list[RankedCell]] = {}
    for cell in sorted(scored, key=lambda c: (c.backend, c.precision)):
        groups.setdefault((cell.backend, cell.precision), []).append(cell)
    costs = [c.cost.usd * scale.factor for c in scored]
    front = pareto_front(
        (c for c in scored if c.rank is not None), lambda c: c.cost.usd, lambda c: c.quality.scores[0].value
    )
    return Plot(
        title=f"{name} against cost",
        note="Up and to the left is better. The line joins the cells that no ranked cell beats in both; the bars are "
        "95% intervals of the score. Faded points may not be ranked.",
        figure={
            "data": [_front(front, scale), *(_points(key, cells, scale) for key, cells in groups.items())],
            "layout": {
                "xaxis": _log_axis(f"USD per {escape(scale.unit)}", round_numbers(min(costs), max(costs))),
                "yaxis": {"title": {"text": escape(name)}},
            },
        },
    )


def error_bars(scores: Sequence[Score], colour: str) -> dict[str, Any]:
    """The 95% intervals of scores as thin lines through their points, in a colour `#rrggbb` that is seen through."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [s.high - s.value for s in scores],
        "arrayminus": [s.value - s.low for s in scores],
        "thickness": 1,
        "width": 0,
        "color": f"{colour}40",
    }


def _points(key: tuple[str, str], cells: list[RankedCell], scale: UsdScale) -> dict[str, Any]:
    backend, precision = key
    scores = [c.quality.scores[0] for c in cells]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{backend} {cells[0].dtype}",
        "x": [c.cost.usd * scale.factor for c in cells],
        "y": [s.value for s in scores],
        "error_y": error_bars(scores, COLOURS[backend]),
        "text": [
            f"{c.name}<br>{scale.text(c.cost.usd)}, {s.value:.4f} on {s.count} {escape(s.unit)}<br>{c.standing}"
            for c, s in zip(cells, scores, strict=True)
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": COLOURS[backend],
            "symbol": "circle" if precision == "float32" else "circle-open",
            "size": 10,
            "line": {"width": 2, "color": COLOURS[backend]},
            "opacity": [1.0 if c.rank is not None else 0.35 for c in cells],
        },
    }


def _front(cells: list[RankedCell], scale: UsdScale) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": [c.cost.usd * scale.factor for c in cells],
        "y": [c.quality.scores[0].value for c in cells],
        "line": {"shape": "hv", "dash": "dash", "width": 2, "color": "#8a8f98"},
        "hoverinfo": "skip",
    }


def _log_axis(title: str, ticks: Sequence[float]) -> dict[str, Any]:
    return {"title": {"text": title}, "type": "log", "tickvals": list(ticks), "ticktext": [f"{t:g}" for t in ticks]}


def round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from `low` to `high` and one beyond each; powers alone where these are many."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if len(powers) <= MOST_DECADES else (1,)
    numbers = [float(f"{digit}e{power}") for power in powers for digit in digits]
    first = max((i for i, n in enumerate(numbers) if n <= low), default=0)
    last = min((i for i, n in enumerate(numbers) if n >= high), default=len(numbers) - 1)
    return numbers[first : last + 1]

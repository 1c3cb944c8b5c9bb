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


class _Point(NamedTuple):
    """A cell that has a cost and a score."""

    cell: RankedCell
    usd: float
    score: Score


def score_by_cost(ranking: Ranking) -> Plot | None:
    """Score against cost, a point a cell, with the front of those that none beats in both.

    An INVALID cell has no cost, and no point. None without points.
    """
    scored = [_Point(c, cost.usd, c.quality.scores[0]) for c, cost in ranking.priced if c.quality.scores]
    if not scored:
        return None
    name, scale = scored[0].score.name.replace("_", " "), ranking.usd_scale
    groups: dict[tuple[str, str], list[_Point]] = {}
    for point in sorted(scored, key=lambda p: (p.cell.backend, p.cell.precision)):
        groups.setdefault((point.cell.backend, point.cell.precision), []).append(point)
    costs = [p.usd * scale.factor for p in scored]
    front = pareto_front((p for p in scored if p.cell.rank is not None), lambda p: p.usd, lambda p: p.score.value)
    left_out = sum(bool(c.quality.scores) for c in ranking.cells) - len(scored)
    without = f" INVALID cells ({left_out}) have no cost, and no point." if left_out else ""
    return Plot(
        title=f"{name} against cost",
        note="Up and to the left is better. The line joins the cells that no ranked cell beats in both; the bars are "
        f"95% intervals of the score. Faded points may not be ranked.{without}",
        figure={
            "data": [_front(front, scale), *(_points(key, points, scale) for key, points in groups.items())],
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


def _points(key: tuple[str, str], points: list[_Point], scale: UsdScale) -> dict[str, Any]:
    backend, precision = key
    scores = [p.score for p in points]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{backend} {points[0].cell.dtype}",
        "x": [p.usd * scale.factor for p in points],
        "y": [s.value for s in scores],
        "error_y": error_bars(scores, COLOURS[backend]),
        "text": [
            f"{c.name}<br>{scale.text(usd)}, {s.value:.4f} on {s.count} {escape(s.unit)}<br>{c.standing}"
            for c, usd, s in points
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": COLOURS[backend],
            "symbol": "circle" if precision == "float32" else "circle-open",
            "size": 10,
            "line": {"width": 2, "color": COLOURS[backend]},
            "opacity": [1.0 if p.cell.rank is not None else 0.35 for p in points],
        },
    }


def _front(points: list[_Point], scale: UsdScale) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": [p.usd * scale.factor for p in points],
        "y": [p.score.value for p in points],
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

"""The plots of a recommendation as plotly figures in plain data."""

from __future__ import annotations

from html import escape
from typing import Any

from kcost.core.units import format_usd
from kcost.recommend.answer import Ranked, Recommendation
from kcost.report.budget_plots import FITTING, FRAME_PX, LINE_COLOURS, ROW_PX
from kcost.report.plots import Plot


def plots_of_recommendation(answer: Recommendation) -> list[Plot]:
    """Dollars a month by way with their interval, and latency against dollars; empty where nothing was priced."""
    if not answer.ranked:
        return []
    return [_months(answer), _latency(answer)]


def _months(answer: Recommendation) -> Plot:
    rows = list(answer.ranked)[::-1]
    values = [r.usd_per_month for r in rows]
    layout: dict[str, Any] = {"xaxis": {"title": {"text": "USD a month"}, "rangemode": "tozero"}}
    layout["yaxis"] = {"title": {"text": ""}, "automargin": True}
    if len(rows) > FITTING:
        layout["height"] = FRAME_PX + ROW_PX * len(rows)
    return Plot(
        title="What each way costs a month",
        note="With its 90% interval. Hatched bars are today's way. What is paid once is not among these.",
        figure={
            "data": [
                {
                    "type": "bar",
                    "orientation": "h",
                    "showlegend": False,
                    "y": [escape(r.name) for r in rows],
                    "x": [v.value for v in values],
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": [v.high - v.value for v in values],
                        "arrayminus": [v.value - v.low for v in values],
                        "color": LINE_COLOURS[2],
                    },
                    "marker": {
                        "color": LINE_COLOURS[0],
                        "pattern": {"shape": ["/" if r.is_plain else "" for r in rows], "size": 6},
                    },
                    "customdata": [f"{format_usd(v.low)} to {format_usd(v.high)}" for v in values],
                    "hovertemplate": "%{y}<br>%{customdata} a month<extra></extra>",
                }
            ],
            "layout": layout,
        },
    )


def _latency(answer: Recommendation) -> Plot:
    rows = [r for r in answer.ranked if r.p99_ms is not None]
    front = _front(rows)
    points = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "today's way" if plain else "ways",
            "x": [r.usd_per_month.value for r in some],
            "y": [r.p99_ms for r in some],
            "text": [escape(r.name) for r in some],
            "hovertemplate": "%{text}<br>%{x:.4g} USD a month, p99 %{y:.3g} ms<extra></extra>",
            "marker": {"size": 10, "color": LINE_COLOURS[plain], "symbol": "x" if plain else "circle"},
        }
        for plain in (False, True)
        if (some := [r for r in rows if r.is_plain == plain])
    ]
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "none is both cheaper and faster",
        "x": [r.usd_per_month.value for r in front],
        "y": [r.p99_ms for r in front],
        "hoverinfo": "skip",
        "line": {"color": LINE_COLOURS[2], "dash": "dot", "width": 2},
    }
    return Plot(
        title="Latency against cost",
        note="The p99 is simulated at the highest rate that one replica holds within the limit.",
        figure={
            "data": [*points, *([line] if len(front) > 1 else [])],
            "layout": {"xaxis": {"title": {"text": "USD a month"}}, "yaxis": {"title": {"text": "p99, milliseconds"}}},
        },
    )


def _front(rows: list[Ranked]) -> list[Ranked]:
    from kcost.core.pareto import pareto_front

    front = pareto_front(rows, lambda r: r.usd_per_month.value, lambda r: -(r.p99_ms or 0.0))
    return sorted(front, key=lambda r: r.usd_per_month.value)

"""The plots of a search as plotly figures in plain data."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from kcost.core.units import UsdScale, significant
from kcost.report.plots import Plot, error_bars, round_numbers
from kcost.report.search_terminal import scale_of
from kcost.search.result import SearchResult, TrialRecord
from kcost.search.space import describe

COLOURS = ("#2b7de9", "#e8710a", "#c2377e", "#1f9d6b", "#7a7f87")
FRONT_COLOUR = "#8a8f98"
MOST_TICKS = 6


def plots_of_search(result: SearchResult) -> list[Plot]:
    """The plots that a study has data for."""
    if result.best is None:
        return []
    plots = [front_plot(result), progress_plot(result)]
    return [*plots, importance_plot(result)] if result.importances else plots


def front_plot(result: SearchResult) -> Plot:
    """Score against predicted cost, a point a complete trial, with the Pareto front."""
    complete = result.in_state("complete")
    costs = [t.cost.usd for t in complete]
    front = [result.trial(number) for number in result.pareto]
    name, scale = complete[0].reached.name.replace("_", " "), scale_of(result)
    # Costs are those of a few architectures: each is worth a tick of its own.
    ticks = sorted(set(costs)) if len(set(costs)) <= MOST_TICKS else round_numbers(min(costs), max(costs))
    return Plot(
        title=f"{name} against predicted cost",
        note="Up and to the left is better. The line joins the trials that none beats in both; bars are 95% intervals "
        "of the score. Trials whose models have the same architecture share one measured step time.",
        figure={
            "data": [
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": "Pareto front",
                    "x": [t.cost.usd for t in front],
                    "y": [t.reached.value for t in front],
                    "line": {"shape": "hv", "dash": "dash", "width": 2, "color": FRONT_COLOUR},
                    "hoverinfo": "skip",
                },
                *(_points(label, group, i, scale) for i, (label, group) in enumerate(_by_size(complete).items())),
            ],
            "layout": {
                "xaxis": {
                    "title": {"text": escape(f"predicted USD per {scale.unit}")},
                    "type": "log",
                    "tickvals": ticks,
                    "ticktext": [significant(t * scale.factor) for t in ticks],
                },
                "yaxis": {"title": {"text": escape(f"{name}, validation split")}},
            },
        },
    )


def progress_plot(result: SearchResult) -> Plot:
    """Score by trial, with the best one so far: whether more trials are likely to help."""
    complete = result.in_state("complete")
    scale = scale_of(result)
    best: list[float] = []
    for trial in complete:
        best.append(max(trial.reached.value, *best[-1:]) if best else trial.reached.value)
    numbers = [t.number for t in complete]
    return Plot(
        title="Score by trial",
        note="A line that has long been flat says that more trials of this kind will hardly help.",
        figure={
            "data": [
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": "best so far",
                    "x": numbers,
                    "y": best,
                    "line": {"shape": "hv", "width": 2, "color": FRONT_COLOUR},
                    "hoverinfo": "skip",
                },
                *(
                    _points(label, group, i, scale, x="number")
                    for i, (label, group) in enumerate(_by_size(complete).items())
                ),
            ],
            "layout": {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": "validation score"}}},
        },
    )


def importance_plot(result: SearchResult) -> Plot:
    """Shares of the parameters in what sets the best quarter of trials apart, for score and cost."""
    names = list(dict.fromkeys(name for i in result.importances for name in i.shares))
    return Plot(
        title="What matters",
        note="PED-ANOVA: the share of each parameter in what sets the best quarter of trials apart from the rest. With "
        "few trials it is a hint, no more.",
        figure={
            "data": [
                {
                    "type": "bar",
                    "name": f"for {importance.objective}",
                    "x": names,
                    "y": [importance.shares.get(name, 0.0) for name in names],
                    "marker": {"color": COLOURS[i]},
                    "hovertemplate": "%{x}: %{y:.2f}",
                }
                for i, importance in enumerate(result.importances)
            ],
            "layout": {"barmode": "group", "yaxis": {"title": {"text": "share"}, "range": [0, 1]}},
        },
    )


def _by_size(trials: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(str(trial.params.get("size", "trials")), []).append(trial)
    return dict(sorted(groups.items()))


def _points(label: str, trials: list[TrialRecord], index: int, scale: UsdScale, x: str = "cost") -> dict[str, Any]:
    colour = COLOURS[index % len(COLOURS)]
    scores = [t.reached for t in trials]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(label),
        "x": [t.number if x == "number" else t.cost.usd for t in trials],
        "y": [s.value for s in scores],
        "error_y": error_bars(scores, colour),
        "text": [
            f"trial {t.number}: {s.value:.4f} on {s.count} {escape(s.unit)}, "
            f"{scale.text(t.cost.usd)} per {scale.unit}<br>{escape(describe(t.params))}"
            for t, s in zip(trials, scores, strict=True)
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": colour, "size": 9},
    }

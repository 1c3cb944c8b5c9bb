"""The plots of a risk report as plotly figures in plain data."""

from __future__ import annotations

from html import escape
from typing import Any

from kcost.report.budget_plots import LINE_COLOURS
from kcost.report.plots import Plot
from kcost.risk.calibration import Calibration
from kcost.risk.report import RiskReport

SLICES = 12
"""The worst of them: more bars than that nobody compares."""


def plots_of_risk(report: RiskReport) -> list[Plot]:
    """Whether probabilities hold what they say, what abstaining saves, and the worst slices."""
    plots = [reliability_plot(report), coverage_plot(report)]
    return [*plots, slices_plot(report)] if report.slices.table else plots


def reliability_plot(report: RiskReport) -> Plot:
    """The share of right answers against the confidence, as the model is and at its temperature."""
    lowest = min(b.confidence for b in report.calibration.bins)
    least = max(0.0, round(lowest - 0.05, 1))
    lines = [_bins("as it is", report.calibration, LINE_COLOURS[0])]
    if not report.temperature.no_optimum:
        name = f"at temperature {report.temperature.value:.3g}"
        lines.append(_bins(name, report.calibration_at_temperature, LINE_COLOURS[1]))
    ideal = {
        "type": "scatter", "mode": "lines", "name": "what it says is so", "x": [least, 1], "y": [least, 1],
        "hoverinfo": "skip", "line": {"color": LINE_COLOURS[2], "dash": "dot", "width": 2},
    }  # fmt: skip
    return Plot(
        title="Reliability diagram",
        note="Answers to test in bins of equal counts. Below the dotted line the model is too sure of itself.",
        figure={
            "data": [ideal, *lines],
            "layout": {
                "xaxis": {"title": {"text": "mean confidence of a bin"}},
                "yaxis": {"title": {"text": "share that is right"}},
            },
        },
    )


def _bins(name: str, calibration: Calibration, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [b.confidence for b in calibration.bins],
        "y": [b.accuracy for b in calibration.bins],
        "customdata": [b.count for b in calibration.bins],
        "hovertemplate": "says %{x:.3f}, %{y:.3f} right of %{customdata:,} answers<extra></extra>",
        "marker": {"color": colour, "size": 8},
        "line": {"color": colour, "width": 2},
    }


def coverage_plot(report: RiskReport) -> Plot:
    """The error of the surest answers against how many of them there are."""
    points = report.coverage.points
    return Plot(
        title="Error against coverage",
        note="Of the surest answers alone: what is left wrong where a person answers the rest.",
        figure={
            "data": [
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "showlegend": False,
                    "x": [p.coverage for p in points],
                    "y": [p.error for p in points],
                    "customdata": [p.threshold for p in points],
                    "hovertemplate": "%{x:.0%} answered, from a confidence of %{customdata:.3f} on: %{y:.2%} wrong"
                    "<extra></extra>",
                    "marker": {"color": LINE_COLOURS[0], "size": 7},
                    "line": {"color": LINE_COLOURS[0], "width": 2},
                }
            ],
            "layout": {
                "xaxis": {"title": {"text": "share that is answered"}, "tickformat": ".0%"},
                "yaxis": {"title": {"text": "share of these that is wrong"}, "rangemode": "tozero"},
            },
        },
    )


def slices_plot(report: RiskReport) -> Plot:
    """The scores of the worst slices with their intervals."""
    rows = report.slices.table[:SLICES][::-1]
    name = rows[0].score.name.replace("_", " ")
    return Plot(
        title="The worst slices",
        note=f"Score of each, with its 95% interval; the dotted line is all of test. {len(report.slices.table)} slices "
        "were scored: the worst of many looks a little worse than it is.",
        figure={
            "data": [
                {
                    "type": "scatter",
                    "mode": "markers",
                    "showlegend": False,
                    "y": [escape(s.name) for s in rows],
                    "x": [s.score.value for s in rows],
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": [s.score.high - s.score.value for s in rows],
                        "arrayminus": [s.score.value - s.score.low for s in rows],
                        "color": LINE_COLOURS[0],
                    },
                    "customdata": [s.share for s in rows],
                    "hovertemplate": "%{y}: %{x:.3f}, %{customdata:.1%} of the examples<extra></extra>",
                    "marker": {"color": LINE_COLOURS[0], "size": 9},
                }
            ],
            "layout": {
                "xaxis": {"title": {"text": escape(name)}},
                "yaxis": {"title": {"text": ""}, "automargin": True},
                "shapes": [
                    {
                        "type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": report.test_score.value,
                        "x1": report.test_score.value, "line": {"color": LINE_COLOURS[2], "dash": "dot", "width": 2},
                    }
                ],
            },
        },
    )  # fmt: skip

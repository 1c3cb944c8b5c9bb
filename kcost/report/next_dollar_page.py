"""What a point of score costs by each way, as one HTML page with the learning curve."""

from __future__ import annotations

from html import escape

from kcost.cost.next_dollar import NextDollar
from kcost.report.next_dollar_terminal import limits_of, row_of
from kcost.report.plots import Plot
from kcost.report.templates import page_of

TEMPLATE = "next_dollar.html"
CURVE, SCORES, NOW = "#2b7de9", "#e8710a", "#1f9d6b"


def render_next_dollar(answer: NextDollar) -> bytes:
    """The page in UTF-8."""
    from plotly.offline import get_plotlyjs

    plots = [learning_curve_plot(answer)] if answer.forecast else []
    return page_of(
        TEMPLATE,
        {},
        answer=answer,
        rows=[row_of(route) for route in answer.routes],
        limits=limits_of(answer),
        plots=plots,
        figures=[plot.figure for plot in plots],
        plotly_js=get_plotlyjs(),
    )


def learning_curve_plot(answer: NextDollar) -> Plot:
    """The score against the number of labels: what was scored, and the curve with its 90% interval."""
    labels, middle, low, high = (list(column) for column in zip(*answer.forecast, strict=True))
    name = escape(answer.score_name)
    return Plot(
        title=f"{name} against labels",
        note="Each point is a trained model. The band holds the score of one more model with 90% probability, right of "
        "the last point too: how wide it is there says how much is known of more labels.",
        figure={
            "data": [
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": "90% interval",
                    "x": [*labels, *labels[::-1]],
                    "y": [*high, *low[::-1]],
                    "fill": "toself",
                    "fillcolor": f"{CURVE}33",
                    "line": {"width": 0, "color": CURVE},
                    "hoverinfo": "skip",
                },
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": "learning curve",
                    "x": labels,
                    "y": middle,
                    "line": {"color": CURVE, "width": 2},
                },
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": "trained",
                    "x": [n for n, _ in answer.scores],
                    "y": [score for _, score in answer.scores],
                    "marker": {"color": SCORES, "size": 8},
                },
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": "what there is",
                    "x": [answer.labels],
                    "y": [answer.score],
                    "marker": {"color": NOW, "size": 12, "symbol": "diamond"},
                },
            ],
            "layout": {
                "xaxis": {"title": {"text": "labels"}, "type": "log"},
                "yaxis": {"title": {"text": name}},
            },
        },
    )

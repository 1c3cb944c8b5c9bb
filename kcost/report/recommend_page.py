"""A recommendation as one HTML page that opens anywhere: no server, no network, nothing beside it."""

from __future__ import annotations

from kcost.core.units import format_percent, format_usd, significant, usd_a_million
from kcost.recommend.answer import Recommendation
from kcost.report.budget_plots import plots_of_budget
from kcost.report.recommend_plots import plots_of_recommendation
from kcost.report.templates import page_of

TEMPLATE = "recommend.html"


def render_recommendation(answer: Recommendation) -> bytes:
    """The page in UTF-8."""
    from plotly.offline import get_plotlyjs

    plots = plots_of_recommendation(answer)
    if answer.budget is not None:
        plots += plots_of_budget(answer.budget)
    return page_of(
        TEMPLATE,
        {"usd": format_usd, "sig": significant, "percent": format_percent, "usd_a_million": usd_a_million},
        answer=answer,
        plots=plots,
        figures=[plot.figure for plot in plots],
        plotly_js=get_plotlyjs(),
    )

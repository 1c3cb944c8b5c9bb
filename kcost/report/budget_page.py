"""A budget as one HTML page that opens anywhere: no server, no network, nothing beside it."""

from __future__ import annotations

from kcost.core.units import format_percent, format_usd, significant, usd_scale
from kcost.cost.budget import Budget
from kcost.report.budget_plots import plots_of_budget
from kcost.report.templates import page_of

TEMPLATE = "budget.html"


def render_budget(budget: Budget) -> bytes:
    """The page in UTF-8."""
    from plotly.offline import get_plotlyjs

    plots = plots_of_budget(budget)
    return page_of(
        TEMPLATE,
        {"usd": format_usd, "sig": significant, "percent": format_percent},
        budget=budget,
        scale=usd_scale((p.bill.usd_per_million_full for p in budget.options), "million"),
        plots=plots,
        figures=[plot.figure for plot in plots],
        plotly_js=get_plotlyjs(),
    )

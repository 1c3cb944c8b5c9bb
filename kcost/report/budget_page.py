"""A budget as one HTML page that opens anywhere: no server, no network, nothing beside it."""

from __future__ import annotations

from kcost.core.units import format_percent, format_usd, significant, usd_scale
from kcost.cost.budget import Budget
from kcost.cost.next_dollar import NextDollar
from kcost.report.budget_plots import plots_of_budget
from kcost.report.next_dollar_page import learning_curve_plot
from kcost.report.templates import page_of

TEMPLATE = "budget.html"


def render_budget(budget: Budget, next_dollar: NextDollar | None = None) -> bytes:
    """The page in UTF-8.

    Args:
        next_dollar: what a point of score costs, of the same model: its sentence and its learning curve join the page.
    """
    from plotly.offline import get_plotlyjs

    plots = plots_of_budget(budget)
    if next_dollar is not None and next_dollar.forecast:
        plots.append(learning_curve_plot(next_dollar))
    return page_of(
        TEMPLATE,
        {"usd": format_usd, "sig": significant, "percent": format_percent},
        budget=budget,
        scale=usd_scale((p.bill.usd_per_million_full for p in budget.options), "million"),
        next_dollar=next_dollar,
        plots=plots,
        figures=[plot.figure for plot in plots],
        plotly_js=get_plotlyjs(),
    )

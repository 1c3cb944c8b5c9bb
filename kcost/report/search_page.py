"""A search as one HTML page that opens anywhere: no server, no network, nothing beside it."""

from __future__ import annotations

from kcost.core.units import format_s, significant
from kcost.report.search_plots import plots_of_search
from kcost.report.search_terminal import by_rank, scale_of, space_text, summary
from kcost.report.templates import page_of
from kcost.search.result import SearchResult
from kcost.search.space import describe

TEMPLATE = "search.html"


def render_search(result: SearchResult) -> bytes:
    """The page in UTF-8."""
    from plotly.offline import get_plotlyjs

    plots = plots_of_search(result)
    return page_of(
        TEMPLATE,
        {"sig": significant, "seconds": format_s, "params": describe},
        result=result,
        scale=scale_of(result),
        sentences=summary(result),
        space=space_text(result),
        trials=by_rank(result),
        plots=plots,
        figures=[plot.figure for plot in plots],
        plotly_js=get_plotlyjs() if plots else "",
    )

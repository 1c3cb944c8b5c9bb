"""A search as one HTML page that opens anywhere: no server, no network, nothing beside it."""

from __future__ import annotations

from kcost.core.units import format_s, format_usd, significant
from kcost.report.search_plots import plots_of_search
from kcost.report.search_terminal import OBJECTIVES, by_rank, space_text, summary
from kcost.search.result import SearchResult
from kcost.search.space import describe
from kcost.version import __version__

TEMPLATE = "search.html"


def render_search(result: SearchResult) -> bytes:
    """The page in UTF-8."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    templates = Environment(
        loader=PackageLoader("kcost.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(usd=format_usd, sig=significant, seconds=format_s, params=describe)
    plots = plots_of_search(result)
    page = templates.get_template(TEMPLATE).render(
        result=result,
        unit=OBJECTIVES[result.objective],
        sentences=summary(result),
        space=space_text(result),
        trials=by_rank(result),
        plots=plots,
        figures=[plot.figure for plot in plots],
        plotly_js=get_plotlyjs() if plots else "",
        version=__version__,
    )
    return page.encode()

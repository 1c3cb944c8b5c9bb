"""A run as one HTML page that opens anywhere: no server, no network, nothing beside it.

The plots need plotly's script, which is written into the page once; that is nearly all of its five
megabytes. A content security policy in the page forbids it to load anything from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from kcost.core.result import Run, failed
from kcost.core.units import format_bytes, format_percent, significant
from kcost.cost.notices import by_code
from kcost.cost.ranking import RankedCell, Ranking
from kcost.cost.verdict import Verdict
from kcost.report.plots import plots_of
from kcost.report.profiles import ROOFLINE_SOURCE, calls_text, views_of
from kcost.report.scenarios import HEADINGS, NOTE, scenario_tables
from kcost.report.templates import page_of
from kcost.report.terminal import usd_text

TEMPLATE = "page.html"
ROWS = 40
"""Most cells in the table of one ranking."""

NOTICES_OF_A_KIND = 20
FAILURES = 100


def render(run: Run, verdict: Verdict) -> bytes:
    """The page in UTF-8.

    Args:
        run: the run that the verdict was made from.
    """
    from plotly.offline import get_plotlyjs

    filters: dict[str, Callable[..., object]] = {
        "sig": significant,
        "bytes": format_bytes,
        "percent": format_percent,
        "left": rows_left,
        "part": part_of_whole,
        "whole": whole_of,
        "usd": usd_text,
        "calls": calls_text,
    }
    plots = [plots_of(ranking) for ranking in verdict.rankings]
    return page_of(
        TEMPLATE,
        filters,
        verdict=verdict,
        sections=list(zip(verdict.rankings, plots, strict=True)),
        figures=[plot.figure for several in plots for plot in several],
        models=run.index.models,
        simulated=_simulated(verdict),
        synthetic=[m for m in run.index.models if m.synthetic_data],
        environments=run.environments,
        failures=failed(run.present),
        scenarios=scenario_tables(verdict.scenarios),
        scenario_headings=HEADINGS,
        scenario_note=NOTE,
        rows=ROWS,
        most_failures=FAILURES,
        notices=by_code(verdict.notices),
        most_notices=NOTICES_OF_A_KIND,
        profiles=views_of(run),
        roofline_source=ROOFLINE_SOURCE,
        cell_count=len(run.present),
        plotly_js=get_plotlyjs(),
    )


def rows_left(ranking: Ranking) -> int:
    """How many cells the table of a ranking leaves out."""
    return max(0, len(ranking.cells) - ROWS)


def part_of_whole(cell: RankedCell, ranking: Ranking) -> float:
    """The cell's cost as a part of `whole_of`; at most 1, and 0 for a cell without a cost."""
    return 0.0 if cell.cost is None else min(1.0, cell.cost.usd / whole_of(ranking)[1])


def whole_of(ranking: Ranking) -> tuple[str, float]:
    """What bars are part of, in words and in dollars: plain Keras, else the dearest cell that has a cost."""
    plain = next((cost.usd for c, cost in ranking.priced if c.cell_id == ranking.baseline), None)
    return ("the dearest", max(cost.usd for _, cost in ranking.priced)) if plain is None else ("plain Keras", plain)


def _simulated(verdict: Verdict) -> bool:
    return any(c.simulated for r in verdict.rankings for c in r.cells)

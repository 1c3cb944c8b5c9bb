"""A recommendation as one HTML page that opens anywhere: no server, no network, nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kcost.core.result import Environment
from kcost.core.units import format_bytes, format_percent, format_usd, significant, usd_a_million
from kcost.cost.ranking import Ranking
from kcost.cost.verdict import Verdict
from kcost.recommend.answer import Recommendation
from kcost.report.budget_plots import plots_of_budget
from kcost.report.plots import Plot, step_time_by_batch, throughput_by_batch
from kcost.report.recommend_plots import plots_of_recommendation
from kcost.report.risk_plots import plots_of_risk
from kcost.report.risk_terminal import figures_of, limits, number
from kcost.report.templates import page_of
from kcost.risk.report import RiskReport

TEMPLATE = "recommend.html"


def render_recommendation(
    answer: Recommendation,
    risk: RiskReport | None = None,
    verdict: Verdict | None = None,
    environments: Mapping[str, Environment] = MappingProxyType({}),
) -> bytes:
    """The page in UTF-8.

    Args:
        risk: of the model as it is; None where the data have no labels.
        verdict: what was measured, which curves and the record of fairness are of; None leaves these out.
        environments: of the cells.
    """
    from plotly.offline import get_plotlyjs

    rankings = () if verdict is None else tuple(r for r in verdict.rankings if r.phase == "inference" and r.cells)
    groups: dict[str, list[Plot]] = {"money": plots_of_recommendation(answer)}
    if answer.budget is not None:
        groups["money"] += plots_of_budget(answer.budget)
    curves = _of_winner(rankings, answer)
    groups["speed"] = [] if curves is None else [step_time_by_batch(curves), throughput_by_batch(curves)]
    groups["risk"] = [] if risk is None else plots_of_risk(risk)
    places = {name: sum(len(p) for p in list(groups.values())[:i]) for i, name in enumerate(groups)}
    return page_of(
        TEMPLATE,
        {
            "usd": format_usd,
            "sig": significant,
            "percent": format_percent,
            "bytes": format_bytes,
            "number": number,
            "usd_a_million": usd_a_million,
        },
        answer=answer,
        groups=groups,
        places=places,
        figures=[plot.figure for plots in groups.values() for plot in plots],
        risk=risk,
        risk_figures={} if risk is None else figures_of(risk),
        risk_limits=[] if risk is None else limits(risk),
        rankings=rankings,
        environments=environments,
        plotly_js=get_plotlyjs(),
    )


def _of_winner(rankings: tuple[Ranking, ...], answer: Recommendation) -> Ranking | None:
    """The ranking that holds the winner's cells, or else the one with most."""
    chosen = next((c for c in answer.candidates if c.name == answer.winner), None)
    for ranking in rankings:
        cells = [(c.backend, c.method, c.precision) for c in ranking.cells]
        mine = chosen is not None and chosen.model in (None, ranking.model)
        if mine and chosen is not None and (chosen.backend, chosen.method, chosen.precision) in cells:
            return ranking
    return max(rankings, key=lambda r: len(r.cells), default=None)

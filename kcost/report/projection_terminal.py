"""What `kcost project` shows: the answer first, then the options, then what limits them."""

from __future__ import annotations

from rich.console import Console

from kcost.core.units import UsdScale, significant, usd_scale
from kcost.cost.placements import ProjectionReport
from kcost.report.tables import titled_table

SHOWN = 12
"""Rows of a table that fits a screen."""

SHOWN_EVIDENCE = 3

SHOWN_REFUSALS = 2


def show_projection(console: Console, report: ProjectionReport) -> None:
    """Measured, scaled and projected options by cost, each with its basis; evidence; how far projections were off."""

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    for sentence in report.sentences:
        line(sentence)
    usable = [o for o in report.options if o.refused is None]
    scale = usd_scale([o.usd_per_million for o in usable], "million predictions")
    title = f"USD per {scale.unit} (interval: 95% where measured, 90% where projected)"
    table = titled_table(title, "basis", "instance", "run as", "dtype", "batch", "step", "USD")
    for option in usable[:SHOWN]:
        instance = f"{option.price.provider} {option.price.instance}"
        usd = _range(option.usd_per_million, option.low_usd, option.high_usd, scale)
        step = f"{significant(option.step_ms)} ms"
        table.add_row(option.basis, instance, option.runs_as, option.precision, str(option.batch), step, usd)
    console.print(table)
    if len(usable) > SHOWN:
        line(f"and {len(usable) - SHOWN} more: --json has them all")
    for published_row in list(dict.fromkeys(row for o in usable for row in o.published[:1]))[:SHOWN_EVIDENCE]:
        line(f"published: {published_row}")
    reasons = (f"{o.price.instance} {o.precision} batch {o.batch}: {o.refused}" for o in report.options if o.refused)
    refused = list(dict.fromkeys(reasons))
    for reason in [*refused[:SHOWN_REFUSALS], *report.not_projected[:SHOWN_REFUSALS]]:
        line(f"not projected: {reason}")
    more = len(refused[SHOWN_REFUSALS:]) + len(report.not_projected[SHOWN_REFUSALS:])
    if more:
        line(f"and {more} more that were not projected: --json names them")
    g = report.grading
    line(
        f"How accurate a projection is: {g.median_error:.0%} off in the median of {g.rows} published rows, each "
        f"projected without its chip. Its 90% interval held {g.held:.0%}. Nothing was measured on these devices "
        "(docs/projection.md)."
    )
    if report.between_fitted_to is not None:
        line(
            "By probes each part of a measured step is stretched by what two probes say. How closely real steps follow "
            f"them: {report.between_fitted_to}."
        )
    days = {o.price.key: o.price.as_of or "no date" for o in report.options}
    line("Prices of " + ", ".join(f"{key} ({day})" for key, day in days.items()) + ": --json has their sources.")


def _range(usd: float, low: float, high: float | None, scale: UsdScale) -> str:
    upper = "unbounded" if high is None else significant(high * scale.factor)
    return f"{scale.text(usd)} ({significant(low * scale.factor)} to {upper})"

"""What `kcost project` shows: the answer first, then the options, then what limits them."""

from __future__ import annotations

from rich.console import Console

from kcost.core.units import UsdScale, significant, usd_scale
from kcost.cost.placements import ProjectionReport
from kcost.report.tables import ROWS, show_more, show_notices, titled_table


def show_projection(console: Console, report: ProjectionReport, *, everything: bool = False) -> None:
    """Measured, scaled and projected options by cost, each with its basis; how far projections were off; evidence."""

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    for sentence in report.sentences:
        line(sentence)
    usable = [o for o in report.options if o.refused is None]
    scale = usd_scale([o.usd_per_million for o in usable], "million predictions")
    title = f"USD per {scale.unit} (interval: 95% where measured, 90% where projected)"
    table = titled_table(title, "basis", "instance", "run as", "dtype", "batch", "step", "USD")
    shown = usable if everything else usable[:ROWS]
    for option in shown:
        instance = f"{option.price.provider} {option.price.instance}"
        usd = _range(option.usd_per_million, option.low_usd, option.high_usd, scale)
        step = f"{significant(option.step_ms)} ms"
        table.add_row(option.basis, instance, option.runs_as, option.precision, str(option.batch), step, usd)
    console.print(table)
    show_more(console, len(usable) - len(shown))
    show_notices(console, _limits(report), everything=everything)
    line("--json has the sources of prices and of what was published.")


def _limits(report: ProjectionReport) -> list[str]:
    """What is to be known before the figures are used, the most serious first."""
    g = report.grading
    lines = [
        f"How accurate a projection is: {g.median_error:.0%} off in the median of {g.rows} published rows, each "
        f"projected without its chip. Its 90% interval held {g.held:.0%}. Nothing was measured on these devices "
        "(docs/projection.md)."
    ]
    if report.between_fitted_to is not None:
        lines.append(
            "By probes each part of a measured step is stretched by what two probes say. How closely real steps follow "
            f"them: {report.between_fitted_to}."
        )
    reasons = (f"{o.price.instance} {o.precision} batch {o.batch}: {o.refused}" for o in report.options if o.refused)
    lines += [f"not projected: {reason}" for reason in dict.fromkeys([*reasons, *report.not_projected])]
    rows = dict.fromkeys(row for o in report.options if o.refused is None for row in o.published[:1])
    lines += [f"published: {row}" for row in rows]
    days = {o.price.key: o.price.as_of or "no date" for o in report.options}
    return [*lines, "Prices of " + ", ".join(f"{key} ({day})" for key, day in days.items()) + "."]


def _range(usd: float, low: float, high: float | None, scale: UsdScale) -> str:
    upper = "unbounded" if high is None else significant(high * scale.factor)
    return f"{scale.text(usd)} ({significant(low * scale.factor)} to {upper})"

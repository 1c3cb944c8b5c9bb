"""A budget in the terminal: the conclusion, the options, what limits it, and where the rest is, on one screen."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.units import UsdScale, format_usd, significant, usd_scale
from kcost.cost.budget import Budget, PricedOption
from kcost.cost.carbon import Carbon
from kcost.report.tables import show_lines, show_more, show_notices, titled_table

ROWS = 8
"""Options that are shown; with the header, the notes below keep the whole on one screen."""
REFUSED = 2
WIDTH = 100


def show_budget(console: Console, budget: Budget, *, everything: bool = False) -> None:
    """Prints a budget, the conclusion first; every option and all that it rests on, if asked."""
    console.width = min(console.width, WIDTH)
    console.print(f"[bold]{escape(budget.sentence)}[/bold]", highlight=False)
    if not budget.options:
        _show_refused(console, budget, everything)
        return
    if budget.invalid is not None:
        console.print(f"INVALID: {budget.invalid}.", highlight=False, markup=False)
    against = budget.against_plain
    if against is not None and against.against != (budget.break_even.against if budget.break_even else None):
        days = "never repays" if against.days is None else f"repaid after {significant(against.days)} days"
        console.print(
            f"Against {against.against}, which runs today: saves {format_usd(against.usd_saved_per_month)} a month, "
            f"{days}.",
            highlight=False,
            markup=False,
        )
    console.print(_table(budget, everything))
    show_more(console, 0 if everything else len(budget.options) - ROWS)
    if any(p.bill.option.is_plain for p in budget.options[:ROWS]):
        show_lines(console, ["* runs today. The last figures: at this traffic, and were no replica ever idle."])
    show_lines(console, [_bill_text(budget)])
    show_notices(console, _limits(budget, everything), everything=everything)
    rest = "--json has each assumption with its option; --xlsx and --html write all of it."
    show_lines(console, [rest])


def _table(budget: Budget, everything: bool) -> Table:
    simulated = any(p.bill.option.batch_limit is not None for p in budget.options)
    limit = f", p99 within {budget.p99_ms:g} ms (simulated)" if simulated else ""
    title = (
        f"{significant(budget.traffic.mean_queries_per_s)} requests a second, peak "
        f"{significant(budget.traffic.peak_queries_per_s)}{limit}; USD, total of {budget.horizon_days:g} days"
    )
    table = titled_table(title, "option")
    table.padding = (0, 1, 0, 0)
    bills = [p.bill for p in budget.options]
    scale = usd_scale((usd for b in bills for usd in (b.usd_per_million, b.usd_per_million_full)), "million")
    for heading in ("replicas", "batch, wait", "a month (90%)", "total", f"a {scale.unit}, full", "basis"):
        table.add_column(heading, justify="right", overflow="fold")
    for priced in budget.options if everything else budget.options[:ROWS]:
        table.add_row(*_row(priced, scale))
    return table


def _row(priced: PricedOption, scale: UsdScale) -> tuple[str, ...]:
    bill, option, month = priced.bill, priced.bill.option, priced.usd_per_month
    plain = " *" if option.is_plain else ""
    return (
        escape(f"{option.name}{plain}"),
        str(bill.replicas),
        "-" if option.batch_limit is None else f"{option.batch_limit}, {significant(option.wait_ms or 0, 2)} ms",
        f"{significant(month.value)} ({significant(month.low)}-{significant(month.high)})",
        f"{bill.usd_total:,.0f}" if bill.usd_total >= 1000 else f"{bill.usd_total:,.2f}",
        ", ".join(significant(usd * scale.factor) for usd in (bill.usd_per_million, bill.usd_per_million_full)),
        "simulated" if option.simulated else option.basis,
    )


def _bill_text(budget: Budget) -> str:
    winner = budget.options[0].bill
    kinds = ", ".join(f"{line.kind} {format_usd(line.usd)}" for line in winner.lines if line.usd)
    return (
        f"{winner.option.name}: {kinds}. {winner.instances} x {winner.option.instance} at "
        f"{format_usd(winner.option.usd_per_hour)} an hour; idle time is {winner.idle_share:.0%} of that."
    )


def _limits(budget: Budget, everything: bool) -> list[str]:
    """What is to be known before the figures are used, the most serious first."""
    winner = budget.options[0].bill
    lines = [f"{winner.option.name} rests on: {winner.option.basis}. {winner.option.basis_why}"]
    if budget.tornado and budget.tornado[0].width_usd > 0:
        swings = [s for s in budget.tornado if s.width_usd > 0][:3]
        causes = ", ".join(f"{s.cause} ({significant(s.low_usd)} to {significant(s.high_usd)})" for s in swings)
        lines.append(f"What moves the saving a month most, with what is paid once spread over the days, USD: {causes}.")
    defaults = [a for a in budget.assumptions if a.source != "as asked"]
    lines.append(f"{len(defaults)} assumptions are not yours, such as {_examples(budget)}.")
    lines += [note for note in budget.notes if note not in winner.option.basis_why]
    lines += _refused(budget, everything)
    lines += [f"labelling: {line.why}." for line in winner.lines if line.kind == "labelling" and line.usd]
    if winner.option.joules_per_prediction is not None:
        lines += [f"energy: {line.why}." for line in winner.lines if line.kind == "energy"]
    if winner.carbon is not None:
        lines.append(f"carbon: {carbon_text(winner.carbon)} a month: {winner.carbon.why}.")
    return lines


def carbon_text(carbon: Carbon) -> str:
    """A month's carbon in words."""
    kg = carbon.kg_co2e_per_month
    return "not known" if kg is None else f"{significant(kg)} kg CO2e"


def _show_refused(console: Console, budget: Budget, everything: bool) -> None:
    lines = [*_refused(budget, everything), "No figure is told. Run `kcost bench` again while nothing else runs."]
    show_lines(console, lines)


def _refused(budget: Budget, everything: bool) -> list[str]:
    shown = budget.refused if everything else budget.refused[:REFUSED]
    lines = [f"left out: {one.name}: {one.reason}." for one in shown]
    more = len(budget.refused) - len(shown)
    return [*lines, f"left out: {more} more."] if more > 0 else lines


def _examples(budget: Budget) -> str:
    shown = ("headroom", "work_hours", "traffic_spread")
    return ", ".join(f"{a.option} {a.value:g}" for a in budget.assumptions if a.name in shown)

"""A budget in the terminal: the conclusion, the options, what limits it, and where the rest is, on one screen."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.units import format_usd, significant
from kcost.cost.budget import Budget, PricedOption
from kcost.cost.carbon import Carbon
from kcost.report.tables import titled_table

ROWS = 8
"""Options that are shown; with the header, the notes below keep the whole on one screen."""
REFUSED = 2
WIDTH = 100


def show_budget(console: Console, budget: Budget) -> None:
    """Prints a budget, the conclusion first."""
    console = Console(file=console.file, width=min(console.width, WIDTH), force_terminal=console.is_terminal)
    console.print(f"[bold]{escape(budget.sentence)}[/bold]", highlight=False)
    if not budget.options:
        _show_refused(console, budget)
        return
    if budget.invalid is not None:
        console.print(f"INVALID: {budget.invalid}. Measure again.", highlight=False, markup=False)
    against = budget.against_plain
    if against is not None and against.against != (budget.break_even.against if budget.break_even else None):
        days = "never repays" if against.days is None else f"repaid after {significant(against.days)} days"
        console.print(
            f"Against {against.against}, which runs today: saves {format_usd(against.usd_saved_per_month)} a month, "
            f"{days}.",
            highlight=False,
            markup=False,
        )
    console.print(_table(budget))
    more = len(budget.options) - ROWS
    if more > 0:
        console.print(f"and {more} more: --json has them all", highlight=False)
    if any(p.bill.option.is_plain for p in budget.options[:ROWS]):
        console.print("* runs today. A million: at this traffic, and were no replica ever idle.", highlight=False)
    _show_limits(console, budget)


def _table(budget: Budget) -> Table:
    simulated = any(p.bill.option.batch_limit is not None for p in budget.options)
    limit = f", p99 within {budget.p99_ms:g} ms (simulated)" if simulated else ""
    title = (
        f"{significant(budget.traffic.mean_queries_per_s)} requests a second, peak "
        f"{significant(budget.traffic.peak_queries_per_s)}{limit}; USD, total of {budget.horizon_days:g} days"
    )
    table = titled_table(title, "option")
    table.padding = (0, 1, 0, 0)
    for heading in ("replicas", "batch, wait", "a month (90%)", "total", "a million, full", "basis"):
        table.add_column(heading, justify="right", overflow="fold")
    for priced in budget.options[:ROWS]:
        table.add_row(*_row(priced))
    return table


def _row(priced: PricedOption) -> tuple[str, ...]:
    bill, option, month = priced.bill, priced.bill.option, priced.usd_per_month
    plain = " *" if option.is_plain else ""
    return (
        escape(f"{option.name}{plain}"),
        str(bill.replicas),
        "-" if option.batch_limit is None else f"{option.batch_limit}, {significant(option.wait_ms or 0, 2)} ms",
        f"{significant(month.value)} ({significant(month.low)}-{significant(month.high)})",
        f"{bill.usd_total:,.0f}" if bill.usd_total >= 1000 else f"{bill.usd_total:,.2f}",
        f"{significant(bill.usd_per_million)}, {significant(bill.usd_per_million_full)}",
        "simulated" if option.simulated else option.basis,
    )


def _show_limits(console: Console, budget: Budget) -> None:
    winner = budget.options[0].bill
    kinds = ", ".join(f"{line.kind} {format_usd(line.usd)}" for line in winner.lines if line.usd)
    lines = [
        f"{winner.option.name}: {kinds}. {winner.instances} x {winner.option.instance} at "
        f"{format_usd(winner.option.usd_per_hour)} an hour; idle time is {winner.idle_share:.0%} of that.",
    ]
    lines += [f"labelling: {line.why}." for line in winner.lines if line.kind == "labelling" and line.usd]
    if winner.option.joules_per_prediction is not None:
        lines += [f"energy: {line.why}." for line in winner.lines if line.kind == "energy"]
    if winner.carbon is not None:
        lines.append(f"carbon: {carbon_text(winner.carbon)} a month: {winner.carbon.why}.")
    if budget.tornado and budget.tornado[0].width_usd > 0:
        swings = [s for s in budget.tornado if s.width_usd > 0][:3]
        causes = ", ".join(f"{s.cause} ({significant(s.low_usd)} to {significant(s.high_usd)})" for s in swings)
        lines.append(f"What moves the saving a month most, with what is paid once spread over the days, USD: {causes}.")
    lines += _refused(budget)
    lines += [f"{winner.option.name} rests on: {winner.option.basis}. {winner.option.basis_why}"]
    lines += [note for note in budget.notes if note not in winner.option.basis_why]
    defaults = [a for a in budget.assumptions if a.source != "as asked"]
    lines.append(
        f"{len(defaults)} assumptions are not yours, such as {_examples(budget)}; --json has each with its option."
    )
    for line in lines:
        console.print(line, highlight=False, markup=False)


def carbon_text(carbon: Carbon) -> str:
    """A month's carbon in words."""
    kg = carbon.kg_co2e_per_month
    return "not known" if kg is None else f"{significant(kg)} kg CO2e"


def _show_refused(console: Console, budget: Budget) -> None:
    for line in [*_refused(budget), "No figure is told. Run `kcost bench` again while nothing else runs."]:
        console.print(line, highlight=False, markup=False)


def _refused(budget: Budget) -> list[str]:
    lines = [f"left out: {one.name}: {one.reason}." for one in budget.refused[:REFUSED]]
    more = len(budget.refused) - REFUSED
    return [*lines, f"left out: {more} more."] if more > 0 else lines


def _examples(budget: Budget) -> str:
    shown = ("headroom", "work_hours", "traffic_spread")
    return ", ".join(f"{a.option} {a.value:g}" for a in budget.assumptions if a.name in shown)

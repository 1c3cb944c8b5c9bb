"""What `kcost training-cost` shows: the answer, the lines of the cheapest bill, and the other cells."""

from __future__ import annotations

from rich.console import Console

from kcost.core.units import format_s, format_usd
from kcost.cost.training_bill import TrainingReport
from kcost.report.tables import titled_table

SHOWN = 8


def show_training(console: Console, report: TrainingReport) -> None:
    """Prints the answer first."""
    first = report.bills[0]
    console.print(report.sentence, style="bold", highlight=False, markup=False)
    table = titled_table(f"{first.label} at {format_usd(first.usd_per_hour)} an hour", "part")
    for heading in ("time", "USD"):
        table.add_column(heading, justify="right")
    table.add_column("why", overflow="fold")
    for part in first.parts:
        table.add_row(part.part, format_s(part.hours * 3600), format_usd(part.usd), part.why)
    console.print(table)
    if len(report.bills) > 1:
        others = titled_table("Other cells", "cell")
        for heading in ("time", "USD"):
            others.add_column(heading, justify="right")
        others.add_column("basis")
        for bill in report.bills[1 : SHOWN + 1]:
            others.add_row(f"{bill.model}, {bill.label}", format_s(bill.hours * 3600), format_usd(bill.usd), bill.basis)
        console.print(others)
    if len(report.bills) > SHOWN + 1:
        console.print(f"and {len(report.bills) - SHOWN - 1} more: --json has them all", highlight=False)
    for left_out in first.leaves_out:
        console.print(f"Leaves out {left_out}.", highlight=False, markup=False)
    console.print(f"{first.basis}. {first.basis_why} {first.price_source}.", highlight=False, markup=False)
    for one in report.left_out:
        console.print(f"No bill of {one.name}: {one.reason}", highlight=False, markup=False)

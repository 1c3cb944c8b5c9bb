"""What `kcost training-cost` shows: the answer, the lines of the cheapest bill, and the other cells."""

from __future__ import annotations

from rich.console import Console

from kcost.core.units import format_s, format_usd
from kcost.cost.training_bill import TrainingReport
from kcost.report.tables import show_more, show_notices, titled_table

SHOWN = 8


def show_training(console: Console, report: TrainingReport, *, everything: bool = False) -> None:
    """Prints the answer first; every cell and limit, if asked."""
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
        shown = report.bills[1:] if everything else report.bills[1 : SHOWN + 1]
        for bill in shown:
            others.add_row(f"{bill.model}, {bill.label}", format_s(bill.hours * 3600), format_usd(bill.usd), bill.basis)
        console.print(others)
        show_more(console, len(report.bills) - 1 - len(shown), "cells")
    console.print(f"{first.basis}. {first.basis_why} {first.price_source}.", highlight=False, markup=False)
    limits = [f"leaves out {left_out}" for left_out in first.leaves_out]
    limits += [f"no bill of {one.name}: {one.reason}" for one in report.left_out]
    show_notices(console, limits, everything=everything)

"""What the price commands show: what changed first, on one screen."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from kcost.core.units import format_usd
from kcost.cost.price_rules import Price
from kcost.cost.price_update import ORDER, PriceChange, PriceDiff

SHOWN = 12
"""Rows of a table that fits a screen."""


def show_price_diff(console: Console, diff: PriceDiff, *, updating: bool) -> None:
    """What changed between two books, the largest changes first, then what was left out, then where the rest is."""

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    counts = [f"{n} {'changed otherwise' if kind == 'other' else kind}" for kind in ORDER if (n := diff.count(kind))]
    dated = f" ({diff.redated} of them with another date)" if diff.redated else ""
    line(f"{', '.join(counts) or 'nothing changed'}; {diff.same} the same{dated}, from {diff.before} to {diff.after}")
    if diff.changes:
        table = Table("provider", "instance", "region", "change", "before", "after", "as of")
        for change in diff.changes[:SHOWN]:
            as_of = change.price.as_of
            table.add_row(
                change.price.provider,
                change.price.instance,
                change.price.region,
                _change(change),
                _usd(change.before),
                _usd(change.after),
                "unknown" if as_of is None else as_of.isoformat(),
            )
        console.print(table)
    if len(diff.changes) > SHOWN:
        line(f"and {len(diff.changes) - SHOWN} more: --json prints all")
    for reason, count in diff.left_out.items():
        line(f"left out {count} rows: {reason}")
    if diff.not_in_book:
        line(f"{diff.not_in_book} prices are of instances or regions that the book does not have: --add takes them too")
    if updating:
        line(f"written: {diff.out}" if diff.out else "nothing was written: --out FILE writes the book")


def _usd(price: Price | None) -> str:
    return "-" if price is None else format_usd(price.on_demand_usd_per_hour)


def _change(change: PriceChange) -> str:
    return change.kind if change.growth is None or change.kind == "other" else f"{change.growth:+.1%}"

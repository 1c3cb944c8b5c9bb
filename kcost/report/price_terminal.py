"""What the price commands show: what changed first, on one screen."""

from __future__ import annotations

from rich.console import Console

from kcost.core.units import format_usd
from kcost.cost.price_rules import Price
from kcost.cost.price_update import ORDER, PriceChange, PriceDiff
from kcost.report.tables import ROWS, show_more, show_notices, titled_table


def show_price_diff(console: Console, diff: PriceDiff, *, updating: bool, everything: bool = False) -> None:
    """What changed between two books, the largest changes first, then what was left out, then where the rest is."""

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    counts = [f"{n} {'changed otherwise' if kind == 'other' else kind}" for kind in ORDER if (n := diff.count(kind))]
    dated = f" ({diff.redated} of them with another date)" if diff.redated else ""
    line(f"{', '.join(counts) or 'nothing changed'}; {diff.same} the same{dated}, from {diff.before} to {diff.after}")
    if diff.changes:
        headings = ("provider", "instance", "region", "change", "before", "after", "as of")
        table = titled_table("USD per hour, the largest changes first", *headings)
        for change in diff.changes if everything else diff.changes[:ROWS]:
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
    show_more(console, 0 if everything else len(diff.changes) - ROWS)
    limits = [f"left out {count} rows: {reason}" for reason, count in diff.left_out.items()]
    if diff.not_in_book:
        limits.append(
            f"{diff.not_in_book} prices are of instances or regions that the book does not have: --add takes them too"
        )
    show_notices(console, limits, everything=everything)
    if updating:
        line(f"written: {diff.out}" if diff.out else "nothing was written: --out FILE writes the book")


def _usd(price: Price | None) -> str:
    return "-" if price is None else format_usd(price.on_demand_usd_per_hour)


def _change(change: PriceChange) -> str:
    return change.kind if change.growth is None or change.kind == "other" else f"{change.growth:+.1%}"

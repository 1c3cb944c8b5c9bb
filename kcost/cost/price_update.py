"""What changes between two sets of prices, and a book with the newer of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from kcost.core.schema import Record
from kcost.cost.price_rules import COLUMNS, OPTIONAL_COLUMNS, Price

Kind = Literal["new", "gone", "dearer", "cheaper", "other"]
"""other: the on-demand price stayed, and spot, committed, size or date did not."""

ORDER: tuple[Kind, ...] = ("dearer", "cheaper", "new", "gone", "other")


class PriceChange(Record):
    """One price that is not what it was."""

    kind: Kind
    before: Price | None = Field(description="None for a new one")
    after: Price | None = Field(description="None for one that is gone")

    @property
    def price(self) -> Price:
        """The newest of the two."""
        price = self.after or self.before
        assert price is not None
        return price

    @property
    def growth(self) -> float | None:
        """By what part the on-demand price grew; None where there is no pair."""
        if self.before is None or self.after is None:
            return None
        return self.after.on_demand_usd_per_hour / self.before.on_demand_usd_per_hour - 1


class PriceDiff(Record):
    """What changed from one set of prices to another."""

    before: str
    after: str
    changes: tuple[PriceChange, ...] = Field(description="the largest changes of an on-demand price first")
    same: int = Field(description="prices in both that say the same, whatever their source and date")
    redated: int = Field(default=0, description="of these, those with another date")
    not_in_book: int = Field(default=0, description="prices of an update that no book had, and that were not added")
    left_out: dict[str, int] = Field(default={}, description="reason -> rows of a list that were left out for it")
    out: str | None = Field(default=None, description="the file that was written")

    def count(self, kind: Kind) -> int:
        """How many changes are of a kind."""
        return sum(c.kind == kind for c in self.changes)


def diff(before: Iterable[Price], after: Iterable[Price], names: tuple[str, str]) -> PriceDiff:
    """What changed from one set of prices to another; a price is known by provider, instance and region, in any
    case."""
    old = {p.key.lower(): p for p in before}
    new = {p.key.lower(): p for p in after}
    changes, same, redated = [], 0, 0
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        kind = _kind(was, now)
        if kind is not None:
            changes.append(PriceChange(kind=kind, before=was, after=now))
        else:
            same += 1
            redated += was is not None and now is not None and was.as_of != now.as_of
    changes.sort(key=lambda c: (ORDER.index(c.kind), -abs(c.growth or 0.0)))
    return PriceDiff(before=names[0], after=names[1], changes=tuple(changes), same=same, redated=redated)


def _kind(was: Price | None, now: Price | None) -> Kind | None:
    if was is None or now is None:
        return "new" if was is None else "gone"
    if now.on_demand_usd_per_hour != was.on_demand_usd_per_hour:
        return "dearer" if now.on_demand_usd_per_hour > was.on_demand_usd_per_hour else "cheaper"
    told_apart = {"source", "as_of", "provider", "instance", "region"}
    return "other" if was.model_dump(exclude=told_apart) != now.model_dump(exclude=told_apart) else None


def without_older(book: Iterable[Price], read: Iterable[Price]) -> tuple[Price, ...]:
    """The prices of a list but for those of an earlier day than the book's own."""
    days = {p.key.lower(): p.as_of for p in book}

    def is_older(price: Price) -> bool:
        day = days.get(price.key.lower())
        return day is not None and price.as_of is not None and price.as_of < day

    return tuple(p for p in read if not is_older(p))


def updated(book: Sequence[Price], read: Sequence[Price], *, add: bool) -> tuple[tuple[Price, ...], int]:
    """A book with the prices of a list in it, and how many prices of the list it does not hold.

    What the list says nothing of stays: a price of another region, a spot price, an interruption rate.

    Args:
        add: also take prices whose instance and region the book does not have.
    """
    new = {p.key.lower(): p for p in read}
    merged = [_merged(p, new.pop(p.key.lower(), None)) for p in book]
    return (*merged, *(new.values() if add else ())), 0 if add else len(new)


def _merged(old: Price, new: Price | None) -> Price:
    if new is None:
        return old
    kept = {
        name: value
        for name in ("spot_usd_per_hour", *OPTIONAL_COLUMNS)
        if getattr(new, name) is None and (value := getattr(old, name)) is not None
    }
    if (spot := kept.get("spot_usd_per_hour")) is not None and spot > new.on_demand_usd_per_hour:
        del kept["spot_usd_per_hour"]  # an older spot price above the new on-demand price is stale
    names = {"provider": old.provider, "instance": old.instance, "region": old.region}
    return new.model_copy(update={**kept, **names})


def book_csv(prices: Iterable[Price]) -> bytes:
    """A price book as the bytes of a CSV file, that `PriceBook.parse` reads again."""
    rows = list(prices)
    extra = [c for c in OPTIONAL_COLUMNS if any(getattr(p, c) is not None for p in rows)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*COLUMNS, *extra))
    for price in rows:
        values = (getattr(price, c) for c in (*COLUMNS, *extra))
        writer.writerow(["" if v is None else f"{v:.10g}" if isinstance(v, float) else v for v in values])
    return out.getvalue().encode()

"""The price book: what instances cost, with the source and the day of each price.

The package's own book, data/prices.csv, was made from public price lists that are kept in repositories;
the `source` column names the repository, revision and file of each row:

- AWS, Azure and Google Cloud: the price tables that the Karpenter providers of the three ship
  (aws/karpenter-provider-aws, Azure/karpenter-provider-azure, cloudpilot-ai/karpenter-provider-gcp; all
  Apache-2.0). For Google's n1 machines with a T4 the GPU's own price was added, from kubernetes/autoscaler
  (Apache-2.0): Google sells the two apart.
- TPUs by the chip: dstackai/gpuhunt (MPL-2.0).
- A few instances of AWS, Google TPU slices and Lambda: the catalogue of SkyPilot, for which no licence was
  found; prices are facts, and nothing but them was taken. These have no date, so their `as_of` is empty.

Rows were dropped where two sources had the same instance and region (the one with a date stayed), where a
price was the placeholder 700.0, and where a Google machine was listed without its GPU. TPU slices carry
the number of their chips, whatever the number in their name counts. `PriceBook.check` holds every book,
this one too, to these rules.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path

from kcost.core.errors import PriceError
from kcost.core.result import Environment
from kcost.core.suggestion import did_you_mean
from kcost.cost.machine_match import Match, closest_price
from kcost.cost.own_prices import own_rows, parse_own
from kcost.cost.payment import Pay, offers
from kcost.cost.price_rules import COLUMNS, OPTIONAL_COLUMNS, Price, Problem, check_prices, from_memory, parse_row
from kcost.cost.price_warnings import warn_of

__all__ = ["Match", "Price", "PriceBook", "Problem"]

SHOWN_PROBLEMS = 10


class PriceBook:
    """The rows of one price file. Reading keeps what is wrong with a row; `checked` refuses it."""

    def __init__(
        self, lines: Sequence[tuple[int, Price]], problems: Sequence[Problem], name: str, aside: Sequence[Problem] = ()
    ) -> None:
        self.name = name
        self._lines = tuple(lines)
        self._problems = tuple(problems)
        self._aside = tuple(aside)

    @staticmethod
    def read(path: Path | str | None = None) -> PriceBook:
        """The book in a CSV file, or the package's own; of a .toml file, the user's prices over a book.

        Raises:
            PriceError: no such file, not UTF-8, not CSV, or without exactly the columns of a price book.
        """
        if path is None:
            return _own()
        if Path(path).suffix.lower() == ".toml":
            return PriceBook.read_own(Path(path))
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise PriceError(
                "A price book is a CSV file.", received=f"{path}: {error.strerror}", remedy="Name another file."
            ) from error
        return PriceBook.parse(content, str(path))

    @staticmethod
    def parse(content: bytes, name: str) -> PriceBook:
        """The book in the bytes of a CSV file. Raises PriceError as `read` does."""
        columns = "A price book has the columns " + ",".join(COLUMNS) + "."
        remedy = "`kcost prices list` prints a book to begin with."
        try:
            reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
            rows = [(reader.line_num, cells) for cells in reader if cells]
        except (UnicodeDecodeError, csv.Error) as error:
            rule = "A price book is a CSV file in UTF-8."
            raise PriceError(rule, received=f"{name}: {error}", remedy=remedy) from error
        header = [cell.strip() for cell in rows[0][1]] if rows else []
        if set(header) - set(OPTIONAL_COLUMNS) != set(COLUMNS) or len(set(header)) != len(header):
            raise PriceError(columns, received=f"{name}: {','.join(header) or 'an empty file'}", remedy=remedy)
        lines: list[tuple[int, Price]] = []
        problems: list[Problem] = []
        aside: list[Problem] = []
        for number, cells in rows[1:]:
            if len(cells) != len(header):
                received = f"{len(cells)} cells"
                rule = f"A row has {len(header)} cells, as the header has."
                quote = "Quote cells with commas in them."
                problems.append(Problem(row=number, key=cells[0], rule=rule, received=received, remedy=quote))
                continue
            row = parse_row(number, dict(zip(header, cells, strict=True)))
            if isinstance(row, Price) and from_memory(row):
                aside.append(
                    Problem(
                        row=number,
                        key=row.key,
                        rule="A price that was written from memory is not used.",
                        received=f"source = {row.source!r}",
                        remedy="Look the price up, and name where.",
                        level="warning",
                    )
                )
            elif isinstance(row, Price):
                lines.append((number, row))
            else:
                problems.extend(row)
        return PriceBook(lines, problems, name, aside)

    @staticmethod
    def read_own(path: Path) -> PriceBook:
        """A book with the user's own prices of a prices.toml, which win over those of the book that it names.

        Raises:
            PriceError: it, or the book that it names, cannot be read.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise PriceError("Prices of one's own are a TOML file.", received=f"{path}: {error.strerror}") from error
        own = parse_own(content, path.name)
        base = _own() if own.book is None else PriceBook.read(path.parent / own.book)
        return base.under(own_rows(own, base.prices, path.name), path.name)

    def under(self, rows: Sequence[Price], name: str) -> PriceBook:
        """This book under other prices: they win where both have one. Their lines come after those of the book."""
        mine = {p.key.lower() for p in rows}
        kept = [(line, p) for line, p in self._lines if p.key.lower() not in mine]
        last = max((line for line, _ in self._lines), default=1)
        own_lines = [(last + place, p) for place, p in enumerate(rows, start=1)]
        return PriceBook([*own_lines, *kept], self._problems, f"{name} over {self.name}", self._aside)

    @property
    def prices(self) -> tuple[Price, ...]:
        """The prices of the rows that could be read, in the order of the file."""
        return tuple(price for _, price in self._lines)

    def check(self) -> list[Problem]:
        """Everything that is wrong with the book, in the order of its lines; empty for a sound one."""
        return sorted((*self._problems, *check_prices(self._lines, _own().prices)), key=lambda p: p.row)

    def warnings(self, today: date | None = None) -> list[Problem]:
        """What should be looked at again but refuses nothing, in the order of the lines: units, days, spellings.

        Args:
            today: None asks the clock.
        """
        warned = warn_of(self._lines, _own().prices, today or date.today())
        return sorted((*self._aside, *warned), key=lambda w: w.row)

    def checked(self) -> PriceBook:
        """This book.

        Raises:
            PriceError: it has problems; the first of them are named.
        """
        problems = self.check()
        if problems:
            lines = [str(p) for p in problems[:SHOWN_PROBLEMS]]
            if len(problems) > SHOWN_PROBLEMS:
                lines.append(f"and {len(problems) - SHOWN_PROBLEMS} more")
            raise PriceError(
                "A price book keeps every rule that `kcost prices check` looks at.",
                received="\n  ".join([f"{self.name} with {len(problems)} problem(s):", *lines]),
                remedy="Mend or drop these rows.",
            )
        return self

    def find(
        self, provider: str | None = None, region: str | None = None, instance: str | None = None
    ) -> tuple[Price, ...]:
        """The prices with this provider, region and instance, where given; any case; the cheapest first."""
        wanted = {"provider": provider, "region": region, "instance": instance}
        prices = [
            price
            for price in self.prices
            if all(v is None or v.lower() == getattr(price, k).lower() for k, v in wanted.items())
        ]
        return tuple(sorted(prices, key=lambda p: (p.on_demand_usd_per_hour, p.key)))

    def _suggestion(self, provider: str | None, region: str | None, instance: str | None) -> str:
        """What the first name that the book does not have may have meant."""
        for field, name in (("provider", provider), ("region", region), ("instance", instance)):
            known = {str(getattr(price, field)) for price in self.prices}
            if name is not None and name.lower() not in {k.lower() for k in known}:
                return did_you_mean(name, sorted(known))
        return ""

    def closest(
        self,
        environment: Environment,
        provider: str | None = None,
        region: str | None = None,
        instance: str | None = None,
        pay: Pay = "on-demand",
    ) -> Match:
        """The price to put on a machine: of the instance that was asked for, else of the one most like it.

        Raises:
            PriceError: no price of that provider, region and instance, none with the machine's accelerator, or none
                to be paid for in that way.
        """
        candidates = self.find(provider, region, instance)
        if not candidates:
            place = ", ".join(str(v) for v in (provider, region, instance) if v is not None)
            raise PriceError(
                f"{self.name} has a price for what was asked.",
                received=place or "an empty book",
                remedy=f"{self._suggestion(provider, region, instance)}`kcost prices list` shows what there is; "
                "--prices takes a book of your own.",
            )
        offered = [p for p in candidates if offers(p, pay)]
        # A named instance that is not sold in that way is told so by its own price.
        try:
            return closest_price(environment, offered or candidates, named=instance is not None, pay=pay)
        except PriceError as error:
            if pay == "on-demand" or instance is not None:
                raise
            raise PriceError(
                f"{self.name} has a {pay} price of an instance like the machine.",
                received=f"{len(offered)} {pay} prices of {len(candidates)}, none like {environment.cpu_model}",
                remedy="Pay on demand, or give that price in prices.toml.",
            ) from error


@cache
def _own() -> PriceBook:
    content = resources.files("kcost.cost").joinpath("data", "prices.csv").read_bytes()
    return PriceBook.parse(content, "the package's own price book")

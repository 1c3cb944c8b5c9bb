"""What a price is, and the rules that a row of a price book must keep to be trusted.

Public price lists have traps that no parser sees: a placeholder where an instance is not on offer, a
virtual machine listed without the accelerator that is sold apart, a TPU priced by the core, the chip or
the slice. Each rule below names one of them.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Literal

from pydantic import Field

from kcost.core.schema import Record

COLUMNS = (
    "provider", "instance", "region", "vcpus", "memory_gib", "accelerator", "accelerator_count",
    "on_demand_usd_per_hour", "spot_usd_per_hour", "source", "as_of",
)  # fmt: skip
"""The columns of a price book, in order."""

OPTIONAL_COLUMNS = ("spot_interruptions_per_hour", "committed_usd_per_hour", "committed_years")
"""Columns that a price book may have besides."""


class Price(Record):
    """What one instance costs for an hour."""

    provider: str
    instance: str
    region: str
    vcpus: int | None = Field(description="None for TPUs, which are sold by the chip with their host")
    memory_gib: float | None
    accelerator: str | None = None
    accelerator_count: int = 0
    on_demand_usd_per_hour: float
    spot_usd_per_hour: float | None = None
    spot_interruptions_per_hour: float | None = Field(default=None, description="mean rate at which spot is taken back")
    committed_usd_per_hour: float | None = Field(default=None, description="for all hours of the committed years")
    committed_years: float | None = None
    source: str
    as_of: date | None = Field(description="None where the source gives no date")

    @property
    def key(self) -> str:
        """What names a price; a book holds each key once."""
        return f"{self.provider} {self.instance} {self.region}"

    @property
    def usd_per_accelerator_hour(self) -> float:
        """What one of its accelerators costs on demand, the machine around it included. There is one at least."""
        return self.on_demand_usd_per_hour / self.accelerator_count


class Problem(Record):
    """One reason not to trust a row of a price book, or, as a warning, to look at it again."""

    row: int = Field(description="line of the file, the header being line 1")
    key: str
    rule: str
    received: str
    remedy: str
    level: Literal["problem", "warning"] = Field(
        default="problem", description="a problem refuses the book; a warning may be wrong, and is told only"
    )

    def __str__(self) -> str:
        mark = "warning: " if self.level == "warning" else ""
        return f"{mark}line {self.row}, {self.key}: {self.rule} Received: {self.received}. {self.remedy}"


class PriceCheck(Record):
    """What checking a price book found."""

    name: str
    rows: int = Field(description="rows that could be read as prices")
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()


Row = Mapping[str, str]
Numbered = Sequence[tuple[int, Price]]
"""Prices with the line that each stands on."""

PLACEHOLDERS = (700.0,)
"""Prices that sources write where an instance is not on offer."""

SOLD_APART = ("gcp",)
"""Providers whose price lists have virtual machines and GPUs as separate items."""

LEAST_SHARE_OF_MEDIAN = 0.4
"""A GPU of a provider that sells it apart costs at least this share of what that GPU costs elsewhere.

A Google virtual machine alone is 10% to 30% of the price with its GPU.
"""

TPU_RANGE = (0.6, 1.7)
"""A TPU chip's price over the median of its version. A core is half a chip, the least slice four chips."""

TPU_NAME = re.compile(r"tpu-(v\d+[a-z]*)-(\d+|chip)")
TPU_CORES_A_CHIP = {"v2": 2, "v3": 2, "v4": 2, "v5p": 2, "v5e": 1, "v6e": 1}
"""What the number in a TPU's name counts: 2 where it counts cores, 1 where it counts chips."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def from_memory(price: Price) -> bool:
    """Whether a price was written down from memory: it is told of, and not used."""
    return "from memory" in price.source.lower()


def parse_row(number: int, row: Row) -> Price | list[Problem]:
    """The price in one row, or everything that is wrong with the row's own cells.

    Args:
        number: the row's line in the file.
        row: column -> text, with all of COLUMNS; surrounding spaces and tabs do not count. Other white space does: a
            no-break space beside a number is a spreadsheet's own way to write it, in thousands perhaps.
    """
    cells = {name: row.get(name, "").strip(" \t\r\n") for name in (*COLUMNS, *OPTIONAL_COLUMNS)}
    key = " ".join(cells[c] or f"(no {c})" for c in ("provider", "instance", "region"))
    problems: list[Problem] = []

    def refuse(column: str, rule: str, remedy: str = "Write the value that the source gives.") -> None:
        received = f"{column} = {cells[column]!r}"
        problems.append(Problem(row=number, key=key, rule=rule, received=received, remedy=remedy))

    def amount(column: str, *, needed: bool, whole: bool = False, zero: bool = False) -> float | None:
        text = cells[column]
        if not text and not needed:
            return None
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        bounds = "from 0 up" if zero else "above 0"
        if not (math.isfinite(value) and (value >= 0 if zero else value > 0) and not (whole and value % 1)):
            refuse(column, f"{column} is a {'whole ' if whole else ''}number {bounds}.")
            return None
        return value

    for column in ("provider", "instance", "region"):
        if not cells[column].strip():
            refuse(column, f"Every price names its {column}.")
    if not cells["source"].strip():
        refuse("source", "Every price names its source.", "Name the price list and the day that it was read.")
    with_host = not _is_tpu_name(cells["accelerator"])
    vcpus = amount("vcpus", needed=with_host, whole=True)
    memory_gib = amount("memory_gib", needed=with_host)
    count = amount("accelerator_count", needed=True, whole=True, zero=True)
    on_demand = amount("on_demand_usd_per_hour", needed=True)
    spot = amount("spot_usd_per_hour", needed=False)
    interruptions = amount("spot_interruptions_per_hour", needed=False, zero=True)
    committed = amount("committed_usd_per_hour", needed=False)
    years = amount("committed_years", needed=False)
    if (committed is None) != (years is None):
        refuse("committed_years", "A committed price names its years, and the years their price.")
    if count is not None and bool(count) != bool(cells["accelerator"]):
        refuse("accelerator_count", "accelerator and accelerator_count are both there, or are empty and 0.")
    as_of = _date(cells["as_of"])
    if as_of is None and cells["as_of"]:
        refuse("as_of", "as_of is a day as YYYY-MM-DD, or empty where it is not known.")
    if problems or count is None or on_demand is None:
        return problems
    return Price(
        provider=cells["provider"],
        instance=cells["instance"],
        region=cells["region"],
        vcpus=None if vcpus is None else int(vcpus),
        memory_gib=memory_gib,
        accelerator=cells["accelerator"] or None,
        accelerator_count=int(count),
        on_demand_usd_per_hour=on_demand,
        spot_usd_per_hour=spot,
        spot_interruptions_per_hour=interruptions,
        committed_usd_per_hour=committed,
        committed_years=years,
        source=cells["source"],
        as_of=as_of,
    )


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:  # 2026-02-30
        return None


def is_tpu(price: Price) -> bool:
    """Whether a price is of a TPU, which is sold by the chip with its host."""
    return price.accelerator is not None and _is_tpu_name(price.accelerator)


def _is_tpu_name(accelerator: str) -> bool:
    return accelerator.lower().startswith("tpu")


def check_prices(prices: Numbered, reference: Iterable[Price]) -> list[Problem]:
    """What is wrong with prices that each look well on their own, in the order of their lines.

    Args:
        reference: prices that are trusted, to hold those of accelerators against.
    """
    medians = _median_usd_per_accelerator([*reference, *(price for _, price in prices)])
    rules: tuple[Callable[[], Iterator[Problem]], ...] = (
        lambda: _doubled(prices),
        lambda: _placeholders(prices),
        lambda: _spot_above_on_demand(prices),
        lambda: _accelerator_adds_nothing(prices),
        lambda: _accelerator_left_out(prices, medians),
        lambda: _tpu_counts(prices),
        lambda: _tpu_units(prices, medians),
    )
    return sorted((problem for rule in rules for problem in rule()), key=lambda p: p.row)


def _problem(line: int, price: Price, rule: str, received: str, remedy: str) -> Problem:
    return Problem(row=line, key=price.key, rule=rule, received=received, remedy=remedy)


def _doubled(prices: Numbered) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for line, price in prices:
        key = price.key.lower()  # as `PriceBook.find` compares them
        if key in first:
            yield _problem(
                line,
                price,
                "A book holds each provider, instance and region once.",
                f"the key of line {first[key]} again",
                "Keep the row with a date.",
            )
        first.setdefault(key, line)


def _placeholders(prices: Numbered) -> Iterator[Problem]:
    for line, price in prices:
        if price.on_demand_usd_per_hour in PLACEHOLDERS:
            yield _problem(
                line,
                price,
                "A price is not a placeholder: sources write 700.0 where an instance is not on offer.",
                f"${price.on_demand_usd_per_hour} an hour",
                "Drop the row.",
            )


def _spot_above_on_demand(prices: Numbered) -> Iterator[Problem]:
    for line, price in prices:
        if price.spot_usd_per_hour is not None and price.spot_usd_per_hour > price.on_demand_usd_per_hour:
            yield _problem(
                line,
                price,
                "The spot price is at most the on-demand price.",
                f"spot ${price.spot_usd_per_hour}, on demand ${price.on_demand_usd_per_hour}",
                "Look both up again: the columns may be swapped, or one of them stale.",
            )


def _accelerator_adds_nothing(prices: Numbered) -> Iterator[Problem]:
    """The same vCPUs and memory without the accelerator cost as much: its price was left out."""
    bare: dict[tuple[str, str, int | None, float | None], Price] = {}
    for _, price in prices:
        if price.accelerator is None:
            size = _size(price)
            held = bare.get(size)
            if held is None or price.on_demand_usd_per_hour < held.on_demand_usd_per_hour:
                bare[size] = price
    for line, price in prices:
        if price.accelerator is None:
            continue
        twin = bare.get(_size(price))
        if twin is not None and price.on_demand_usd_per_hour <= twin.on_demand_usd_per_hour:
            yield _problem(
                line,
                price,
                "The price of an instance includes its accelerator.",
                f"${price.on_demand_usd_per_hour} with {price.accelerator}, and ${twin.on_demand_usd_per_hour} for "
                f"{twin.instance}, which has the same vCPUs and memory and no accelerator",
                "Add the accelerator's own price, and name both sources.",
            )


def _size(price: Price) -> tuple[str, str, int | None, float | None]:
    return price.provider.lower(), price.region.lower(), price.vcpus, price.memory_gib


def _accelerator_left_out(prices: Numbered, medians: Mapping[str, float]) -> Iterator[Problem]:
    for line, price in prices:
        if price.provider.lower() not in SOLD_APART or price.accelerator is None or price.accelerator.startswith("TPU"):
            continue
        each = price.usd_per_accelerator_hour
        median = medians[price.accelerator]
        if each < LEAST_SHARE_OF_MEDIAN * median:
            yield _problem(
                line,
                price,
                "The price of an instance includes its accelerator, also where the provider sells the two apart.",
                f"${each:.4g} for each {price.accelerator}, {each / median:.0%} of the median of all",
                "Add the accelerator's own price, and name both sources.",
            )


def _tpu_counts(prices: Numbered) -> Iterator[Problem]:
    for line, price in prices:
        if price.accelerator is None or not is_tpu(price):
            continue
        name = TPU_NAME.fullmatch(price.instance)
        version = name.group(1) if name else None
        if name is None or version not in TPU_CORES_A_CHIP or price.accelerator != f"TPU-{version}":
            known = ", ".join(TPU_CORES_A_CHIP)
            yield _problem(
                line,
                price,
                "A TPU row says what it prices: tpu-VERSION-NUMBER or tpu-VERSION-chip, accelerator TPU-VERSION.",
                f"instance {price.instance!r}, accelerator {price.accelerator!r}",
                f"Name the slice or the chip. Versions: {known}.",
            )
            continue
        chips = 1.0 if name.group(2) == "chip" else int(name.group(2)) / TPU_CORES_A_CHIP[name.group(1)]
        if price.accelerator_count != chips:
            counts = "cores, two a chip" if TPU_CORES_A_CHIP[name.group(1)] == 2 else "chips"
            yield _problem(
                line,
                price,
                f"accelerator_count of a TPU is its chips; the number in a {version} name counts {counts}.",
                f"accelerator_count {price.accelerator_count} for {price.instance}",
                f"Write {chips:g}, and the price of the whole slice.",
            )


def _tpu_units(prices: Numbered, medians: Mapping[str, float]) -> Iterator[Problem]:
    low, high = TPU_RANGE
    for line, price in prices:
        if price.accelerator is None or not price.accelerator.startswith("TPU"):
            continue
        each, median = price.usd_per_accelerator_hour, medians[price.accelerator]
        if not low <= each / median <= high:
            yield _problem(
                line,
                price,
                "A TPU row gives the price of all the chips that it counts, not of a core, one chip or another slice.",
                f"${each:.4g} a chip, where the median of {price.accelerator} is ${median:.4g}",
                "Look up which of them the source prices, and multiply.",
            )


def _median_usd_per_accelerator(prices: Iterable[Price]) -> dict[str, float]:
    usd_by_accelerator: dict[str, list[float]] = defaultdict(list)
    for price in prices:
        if price.accelerator is not None and price.on_demand_usd_per_hour not in PLACEHOLDERS:
            usd_by_accelerator[price.accelerator].append(price.usd_per_accelerator_hour)
    return {name: statistics.median(each) for name, each in usd_by_accelerator.items()}

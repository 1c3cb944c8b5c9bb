"""Reading price lists that others keep: SkyPilot's catalogue, and the tables that Karpenter's providers ship.

A list is read as it is: rows that cannot be a price here are left out, each with its reason. What none of them says
is filled from
a book that knows the instance: Karpenter's tables give no vCPUs, memory or accelerator.

Formats, read for their columns alone:

- SkyPilot: github.com/skypilot-org/skypilot-catalog, catalogs/vN/PROVIDER/vms.csv. A row is a zone; the cheapest of
a region is taken.
- Karpenter, AWS and Azure: Go source, region -> instance -> USD an hour, with the day it was generated (Apache-2.0).
- Karpenter, Google: JSON, regions and on-demand or spot above instance -> USD an hour (Apache-2.0).
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Literal, NamedTuple

from pydantic import Field

from kcost.core.errors import PriceError
from kcost.core.schema import Record
from kcost.cost.price_rules import COLUMNS, PLACEHOLDERS, SOLD_APART, Price, is_tpu
from kcost.cost.pricebook import PriceBook

Format = Literal["kcost", "skypilot", "karpenter"]

SKYPILOT = ("InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "Price", "SpotPrice", "Region")

PROVIDERS = ("aws", "azure", "gcp", "lambda")

_GENERATED = re.compile(r"generated at (\d{4}-\d{2}-\d{2})")
_GO_REGION = re.compile(r'"([\w-]+)"\s*:\s*\{')
_GO_PRICE = re.compile(r'"([\w.-]+)"\s*:\s*([0-9.eE+-]+)')
_REGION = re.compile(r"[a-z]+-[a-z]+\d+")


class Offer(NamedTuple):
    """One line of a list: what it says of an instance in a region."""

    instance: str
    region: str
    on_demand: float | None
    spot: float | None
    vcpus: int | None = None
    memory_gib: float | None = None
    accelerator: str | None = None
    chips: int = 0


class PriceList(Record):
    """What was read from a list."""

    name: str
    format: Format
    prices: tuple[Price, ...]
    left_out: dict[str, int] = Field(description="reason -> how many rows were left out for it")


def read_list(
    content: bytes, name: str, book: Sequence[Price], *, provider: str | None = None, as_of: date | None = None
) -> PriceList:
    """The prices in a list of any known format.

    Args:
        content: of a file.
        name: where it is from: it becomes the source of each price, and may name the provider in its path.
        book: prices to take vCPUs, memory and accelerators from, where the list has none.
        provider: aws, azure or gcp; None takes it from the name or the content.
        as_of: the day of the prices; None takes it from the list, where it says one.

    Raises:
        PriceError: no known format, no provider, or not one price.
    """
    text = _text(content, name)
    first = text.lstrip()[:1]
    header = text.partition("\n")[0].strip().split(",")
    if set(COLUMNS) <= {h.strip() for h in header}:
        own = PriceBook.parse(content, name).checked()
        return PriceList(name=name, format="kcost", prices=own.prices, left_out={})
    if set(SKYPILOT) <= set(header):
        kind: Format = "skypilot"
        offers = list(_skypilot(text, name))
    elif first == "{":
        kind, offers = "karpenter", list(_karpenter_json(text, name))
    elif "map[string]float64" in text:
        kind, offers = "karpenter", list(_karpenter_go(text))
    else:
        raise PriceError(
            "A price list is a book of kcost, SkyPilot's vms.csv, or the table of a Karpenter provider (Go or JSON).",
            received=f"{name}, which begins {text.strip()[:60]!r}" if text.strip() else f"{name}: an empty file",
            remedy="docs/prices.md names the files.",
        )
    whose = (provider or _provider_in(name, text)).lower()
    day = as_of or (date.fromisoformat(m.group(1)) if (m := _GENERATED.search(text)) else None)
    return _as_prices(offers, name, kind, whose, day, book)


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PriceError("A price list is text in UTF-8.", received=f"{name}: {error}") from error


def _provider_in(name: str, text: str) -> str:
    """The provider that a path or a list names. Raises PriceError for none."""
    words = re.split(r"[^a-z]+", f"{name.lower()} {text[:2000].lower()}")
    for provider in PROVIDERS:
        if provider in words or f"prices{provider}" in "".join(words):
            return provider
    raise PriceError(
        "A list of prices is of one provider.",
        received=f"{name}, which names none",
        remedy="Name it: --provider aws.",
    )


def _skypilot(text: str, name: str) -> Iterator[Offer]:
    try:
        for row in csv.DictReader(io.StringIO(text, newline=""), strict=True):
            count = _number(row["AcceleratorCount"]) or 0
            vcpus = _number(row["vCPUs"])
            yield Offer(
                instance=row["InstanceType"] or row["AcceleratorName"] or "",
                region=row["Region"] or "",
                on_demand=_number(row["Price"]),
                spot=_number(row["SpotPrice"]),
                vcpus=None if vcpus is None else int(vcpus),
                memory_gib=_number(row["MemoryGiB"]),
                accelerator=row["AcceleratorName"] or None,
                chips=int(count),
            )
    except csv.Error as error:
        raise PriceError("SkyPilot's catalogue is a CSV file.", received=f"{name}: {error}") from error


def _number(text: str | None) -> float | None:
    """A number, or None for an empty cell or what is no finite number from 0 up."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _karpenter_go(text: str) -> Iterator[Offer]:
    begins = [(m.end(), m.group(1)) for m in _GO_REGION.finditer(text)]
    for place, (begin, region) in enumerate(begins):
        end = begins[place + 1][0] if place + 1 < len(begins) else len(text)
        for match in _GO_PRICE.finditer(text[begin:end]):
            yield Offer(match.group(1), region, _number(match.group(2)), None)


def _karpenter_json(text: str, name: str) -> Iterator[Offer]:
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PriceError("Karpenter's table of Google's prices is JSON.", received=f"{name}: {error}") from error
    merged: dict[tuple[str, str], dict[str, float]] = {}
    for path, usd in _leaves(document, ()):
        region = next((part for part in path if _REGION.fullmatch(part)), "")
        paid = "spot" if any("spot" in part.lower() for part in path[:-1]) else "on_demand"
        merged.setdefault((path[-1], region), {})[paid] = usd
    for (instance, region), each in merged.items():
        yield Offer(instance, region, each.get("on_demand"), each.get("spot"))


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(node, Mapping):
        for key, inner in node.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(node, int | float) and not isinstance(node, bool) and math.isfinite(node) and path:
        yield path, float(node)


def _as_prices(
    offers: Sequence[Offer], name: str, kind: Format, provider: str, day: date | None, book: Sequence[Price]
) -> PriceList:
    known = {p.key.lower(): p for p in book}
    sizes = {(p.provider.lower(), p.instance.lower()): p for p in book}
    left_out: Counter[str] = Counter()
    prices: dict[str, Price] = {}
    for offer in offers:
        size = known.get(f"{provider} {offer.instance} {offer.region}".lower()) or sizes.get(
            (provider, offer.instance.lower())
        )
        reason = _not_a_price(offer, kind, provider, size)
        if reason is not None:
            left_out[reason] += 1
            continue
        assert offer.on_demand is not None  # or there is a reason
        price = Price(
            provider=provider,
            instance=offer.instance,
            region=offer.region,
            vcpus=offer.vcpus if offer.vcpus or size is None else size.vcpus,
            memory_gib=offer.memory_gib if offer.memory_gib or size is None else size.memory_gib,
            accelerator=size.accelerator if size is not None else offer.accelerator,
            accelerator_count=size.accelerator_count if size is not None else offer.chips,
            on_demand_usd_per_hour=offer.on_demand,
            spot_usd_per_hour=offer.spot or None,
            source=name,
            as_of=day,
        )
        before = prices.get(price.key)
        prices[price.key] = price if before is None else _cheapest_zone(before, price)
    if not prices:
        why = "; ".join(f"{count} rows: {reason}" for reason, count in left_out.most_common(3)) or "no rows"
        raise PriceError("A price list has a price in it.", received=f"{name}: {why}")
    return PriceList(name=name, format=kind, prices=tuple(prices.values()), left_out=dict(left_out.most_common()))


def _not_a_price(offer: Offer, kind: Format, provider: str, size: Price | None) -> str | None:
    """Why an offer is left out; None where it is a price."""
    if not offer.instance or not offer.region:
        return "no instance or no region"
    if not offer.on_demand:
        return "no on-demand price"
    if offer.on_demand in PLACEHOLDERS:
        return "the placeholder 700.0, which stands for not on offer"
    if offer.spot is not None and offer.spot > offer.on_demand:
        return "a spot price above the on-demand price"
    if size is None and (offer.vcpus is None or offer.memory_gib is None):
        return "an instance of unknown size: the list has no vCPUs or memory, and no book knows it"
    sold_apart = provider in SOLD_APART and size is not None and size.accelerator is not None and not is_tpu(size)
    if kind == "karpenter" and sold_apart:
        return "a machine that the list prices without its accelerator"
    return None


def _cheapest_zone(one: Price, other: Price) -> Price:
    """One price for a region of several zones: on-demand and spot are the cheapest of them."""
    spots = [p.spot_usd_per_hour for p in (one, other) if p.spot_usd_per_hour is not None]
    cheapest = min(one, other, key=lambda p: p.on_demand_usd_per_hour)
    return cheapest.model_copy(update={"spot_usd_per_hour": min(spots, default=None)})

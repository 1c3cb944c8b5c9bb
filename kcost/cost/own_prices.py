"""prices.toml: what a user's own machines cost, and prices of theirs that win over a book's.

    book = "prices.csv"              # a book to begin with; left out: the package's own

    [[instance]]                     # a price that a provider gave you
    provider = "aws"
    instance = "c7i.2xlarge"
    region = "us-east-1"
    usd_per_hour = 0.30              # on demand
    spot_usd_per_hour = 0.12
    spot_interruptions_per_hour = 0.02
    committed_usd_per_hour = 0.21
    committed_years = 1
    as_of = 2026-07-01

    [[machine]]                      # a machine of your own
    name = "workstation"
    vcpus = 16
    memory_gib = 64
    accelerator = "RTX 4090"         # with accelerator_count; left out: none
    purchase_usd = 3200
    years = 4                        # until it is written off
    resale_usd = 400
    watts = 450                      # drawn while it works
    usd_per_kwh = 0.30
    share_used = 0.25                # part of all hours in which it works, for anything
    other_usd_per_month = 0          # space, cooling, care

An hour of work on a machine of one's own costs its price for all hours over the hours in which it works, and the
power of that hour:

    (purchase - resale) / (years x 8766 h x share) + 12 x other / (8766 h x share) + watts / 1000 x USD a kWh
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from datetime import date
from typing import Any

from pydantic import Field, ValidationError

from kcost.core.errors import PriceError
from kcost.core.schema import Record
from kcost.cost.price_rules import Price

HOURS_PER_YEAR = 8766
"""Of the mean year of 365.25 days."""

OWN = "own"
"""The provider of machines that nobody rents out."""


class OwnInstance(Record):
    """A price of the user's own for an instance that a provider rents out."""

    provider: str = Field(min_length=1)
    instance: str = Field(min_length=1)
    region: str = Field(min_length=1)
    usd_per_hour: float = Field(gt=0, allow_inf_nan=False)
    vcpus: int | None = Field(default=None, gt=0)
    memory_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    accelerator: str | None = None
    accelerator_count: int = Field(default=0, ge=0)
    spot_usd_per_hour: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    spot_interruptions_per_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    committed_usd_per_hour: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    committed_years: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    as_of: date | None = None


class OwnMachine(Record):
    """A machine that the user bought."""

    name: str = Field(min_length=1)
    region: str = "here"
    vcpus: int = Field(gt=0)
    memory_gib: float = Field(gt=0, allow_inf_nan=False)
    accelerator: str | None = None
    accelerator_count: int = Field(default=0, ge=0)
    purchase_usd: float = Field(ge=0, allow_inf_nan=False)
    resale_usd: float = Field(default=0, ge=0, allow_inf_nan=False)
    years: float = Field(gt=0, allow_inf_nan=False)
    watts: float = Field(ge=0, allow_inf_nan=False)
    usd_per_kwh: float = Field(ge=0, allow_inf_nan=False)
    share_used: float = Field(gt=0, le=1)
    other_usd_per_month: float = Field(default=0, ge=0, allow_inf_nan=False)
    as_of: date | None = None

    @property
    def usd_per_hour(self) -> float:
        """What an hour of work costs: see the formula above.

        Examples:
            >>> own = OwnMachine(name="box", vcpus=8, memory_gib=32, purchase_usd=8766, years=1, watts=500,
            ...     usd_per_kwh=0.2, share_used=0.5)
            >>> own.usd_per_hour
            2.1
        """
        hours = HOURS_PER_YEAR * self.share_used
        fixed = (self.purchase_usd - self.resale_usd) / (self.years * hours) + 12 * self.other_usd_per_month / hours
        return fixed + self.watts / 1000 * self.usd_per_kwh


class OwnPrices(Record):
    """A prices.toml."""

    book: str | None = None
    instance: tuple[OwnInstance, ...] = ()
    machine: tuple[OwnMachine, ...] = ()


def parse_own(content: bytes, name: str) -> OwnPrices:
    """What a prices.toml says.

    Raises:
        PriceError: not UTF-8, not TOML, a key that is not known, or a value that cannot be.
    """
    try:
        own = OwnPrices.model_validate(tomllib.loads(content.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PriceError("Prices of one's own are a TOML file.", received=f"{name}: {error}", remedy=_SEE) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = _place(first["loc"])
        given: Any = first["input"]
        value = "" if isinstance(given, dict) else f" = {given!r}"
        rule = "Prices of one's own are [[instance]] and [[machine]]."
        received = f"{name}: {place}{value}: {first['msg']}"
        raise PriceError(rule, received=received, remedy=_SEE) from error
    for machine in own.machine:
        if machine.usd_per_hour <= 0:
            raise PriceError(
                "A machine costs something.",
                received=f"{name}: [[machine]] {machine.name} at {machine.usd_per_hour:g} USD an hour",
                remedy="Give what it was bought for, and less for what it is sold for.",
            )
    return own


_SEE = "docs/prices.md has an example."


def _place(where: Sequence[int | str]) -> str:
    return ".".join(f"[{part + 1}]" if isinstance(part, int) else part for part in where).replace(".[", "[")


def own_rows(own: OwnPrices, book: Sequence[Price], name: str) -> tuple[Price, ...]:
    """The user's prices as rows of a book.

    Raises:
        PriceError: the size of an instance is neither given nor known to the book.
    """
    sizes = {(p.provider.lower(), p.instance.lower()): p for p in book}
    rows = [_instance_row(i, sizes.get((i.provider.lower(), i.instance.lower())), name) for i in own.instance]
    return (*rows, *(_machine_row(m, name) for m in own.machine))


def _instance_row(own: OwnInstance, known: Price | None, name: str) -> Price:
    if known is None and (own.vcpus is None or own.memory_gib is None):
        raise PriceError(
            "An instance that no book knows gives its vcpus and memory_gib.",
            received=f"{name}: {own.provider} {own.instance}",
            remedy="Add both.",
        )
    of_book = known is not None and own.accelerator is None
    return Price(
        provider=own.provider,
        instance=own.instance,
        region=own.region,
        vcpus=own.vcpus if own.vcpus is not None or known is None else known.vcpus,
        memory_gib=own.memory_gib if own.memory_gib is not None or known is None else known.memory_gib,
        accelerator=known.accelerator if of_book and known is not None else own.accelerator,
        accelerator_count=known.accelerator_count if of_book and known is not None else own.accelerator_count,
        on_demand_usd_per_hour=own.usd_per_hour,
        spot_usd_per_hour=own.spot_usd_per_hour,
        spot_interruptions_per_hour=own.spot_interruptions_per_hour,
        committed_usd_per_hour=own.committed_usd_per_hour,
        committed_years=own.committed_years,
        source=f"{name}, [[instance]]",
        as_of=own.as_of,
    )


def _machine_row(own: OwnMachine, name: str) -> Price:
    bought = f"{own.purchase_usd:g} USD over {own.years:g} years at {own.share_used:.0%} of all hours"
    return Price(
        provider=OWN,
        instance=own.name,
        region=own.region,
        vcpus=own.vcpus,
        memory_gib=own.memory_gib,
        accelerator=own.accelerator,
        accelerator_count=own.accelerator_count,
        on_demand_usd_per_hour=own.usd_per_hour,
        source=f"{name}, [[machine]]: {bought}, {own.watts:g} W at {own.usd_per_kwh:g} USD a kWh",
        as_of=own.as_of,
    )

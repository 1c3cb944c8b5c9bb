"""Which instances could serve what was measured on a machine, and how many workers of that size each holds."""

from __future__ import annotations

from typing import NamedTuple

from kcost.core.result import Environment
from kcost.cost.basis import CostBasis, basis_of
from kcost.cost.machine_match import instruction_set
from kcost.cost.price_rules import Price
from kcost.cost.pricebook import PriceBook

WORKERS = (1, 2, 4, 8, 16, 32)
"""Counts of workers on an instance that are looked at where no instance was named."""


class Offer(NamedTuple):
    """An instance that some workers of the measured size fit on."""

    price: Price
    workers: int
    usd_per_hour: float
    """On demand, for the part of the instance that is used."""
    spot_usd_per_hour: float | None
    vcpus: float | None
    """Of that part; None where the instance has an accelerator, or the book does not say."""
    basis: CostBasis
    why: str


def offers_for(
    environment: Environment,
    book: PriceBook,
    *,
    provider: str | None = None,
    region: str | None = None,
    instance: str | None = None,
    peak_bytes: int | None = None,
) -> list[Offer]:
    """The named instance; else the one most like the machine, and larger ones of its kind in the same place.

    A larger instance holds as many workers as the machine's cores go into its vCPUs, and as fit into its memory. That
    they do not slow each other down was not measured, and the basis says so.

    Args:
        peak_bytes: most memory that a worker held; None where that is not known.

    Raises:
        PriceError: the book has no price for what was asked, or none with the machine's accelerator or architecture.
    """
    match = book.closest(environment, provider, region, instance)
    first = _offer(environment, match.price, match.share, match.why, peak_bytes)
    if instance is not None or environment.accelerators or match.price.vcpus is None:
        return [first]
    offers = [first]
    for price in book.find(match.price.provider, match.price.region):
        if price.vcpus is None or price.accelerator is not None or price.key == match.price.key:
            continue
        whole = price.vcpus % environment.cores == 0 and price.vcpus // environment.cores in WORKERS
        if whole and _same_architecture(environment, price):
            offers.append(_offer(environment, price, 1.0, match.why, peak_bytes))
    if len(offers) > 1 and match.price.vcpus < environment.cores:
        return offers[1:]  # seconds of its own size are worth more than those that are scaled to fewer cores
    return offers


def _same_architecture(environment: Environment, price: Price) -> bool:
    """Only instances whose processors are known to be the machine's kind: another kind is a projection of its own."""
    return basis_of(environment, price) in ("measured", "scaled") or instruction_set(environment) == "none"


def _offer(environment: Environment, price: Price, share: float, why: str, peak_bytes: int | None) -> Offer:
    workers = 1
    if price.vcpus is not None and price.accelerator is None:
        workers = max(1, price.vcpus // environment.cores)
        if peak_bytes and price.memory_gib is not None:
            workers = max(1, min(workers, int(price.memory_gib * 2**30 // peak_bytes)))
    return Offer(
        price=price,
        workers=workers,
        usd_per_hour=price.on_demand_usd_per_hour * share,
        spot_usd_per_hour=None if price.spot_usd_per_hour is None else price.spot_usd_per_hour * share,
        vcpus=None if price.vcpus is None or price.accelerator is not None else price.vcpus * share,
        basis=basis_of(environment, price),
        why=why,
    )

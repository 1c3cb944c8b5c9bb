"""What a recommendation is asked for, and what an option costs under it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from kcost.core.schema import Record
from kcost.cost.assumptions import Assumptions
from kcost.cost.instances import Offer
from kcost.cost.option import OneOff, Option
from kcost.cost.pricebook import PriceBook
from kcost.cost.sizing import Rates, mean_usd_per_hour, rates_of
from kcost.cost.traffic import Traffic
from kcost.cost.uncertainty import draw, spend

SCHEDULE_DRAWS = 400
"""Of traffic, prices and capacity, the same for every way: the mean over them is smooth where a bill has steps."""

ENDLESS = 1e12
"""Requests a second of a replica that is never the limit."""


class Limits(Record):
    """What the user asks for."""

    p99_ms: float = Field(gt=0, allow_inf_nan=False)
    max_drop: float = Field(ge=0, le=1, description="of the score below float32; held against a one-sided bound")


class Terms(NamedTuple):
    """What every way is priced under."""

    traffic: Traffic
    assumed: Assumptions
    limits: Limits
    book: PriceBook
    provider: str | None
    region: str | None
    instance: str | None
    seed: int

    @property
    def rates(self) -> Rates:
        """The rates to size for."""
        return rates_of(self.traffic)

    @property
    def months(self) -> float:
        """Of the horizon, 730 hours each."""
        return self.assumed.horizon_days * 24 / 730.0


def expected_total_usd(terms: Terms, offers: list[Offer], rate: float, *, is_plain: bool) -> float:
    """Expected dollars over the horizon of a way whose replica answers `rate` requests a second within the limit.

    The expectation is over traffic, prices, capacity and work as the assumptions spread them; the instance is the
    cheapest of the offers at the values.
    """
    return min(_expected(terms, offer, rate, is_plain) for offer in _cheapest(terms, offers, rate))


def _cheapest(terms: Terms, offers: list[Offer], rate: float) -> list[Offer]:
    usable = [o for o in offers if terms.assumed.spot_share == 0 or o.spot_usd_per_hour is not None] or offers

    def hourly(offer: Offer) -> float:
        return float(
            mean_usd_per_hour(
                terms.rates, rate, offer.workers, offer.usd_per_hour, offer.spot_usd_per_hour or 0.0, terms.assumed
            )
        )

    return [min(usable, key=lambda o: (hourly(o), o.workers))]


def _expected(terms: Terms, offer: Offer, rate: float, is_plain: bool) -> float:
    hours = 0.0 if is_plain else terms.assumed.work_hours
    option = Option(
        name="a way",
        instance=offer.price.key,
        usd_per_hour=offer.usd_per_hour,
        spot_usd_per_hour=offer.spot_usd_per_hour,
        price_source=offer.price.source,
        workers_per_instance=offer.workers,
        queries_per_s_per_replica=rate,
        queries_per_s_at_full_load=rate,
        basis=offer.basis,
        basis_why=offer.why,
        is_plain=is_plain,
        one_off=OneOff(work_hours=hours),
    )
    drawn = draw([option], [{}], terms.assumed, SCHEDULE_DRAWS, terms.seed)
    return float(np.mean(spend([option], terms.rates, terms.assumed, drawn).total))

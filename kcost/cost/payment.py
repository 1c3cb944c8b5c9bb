"""Ways to pay for an instance: on demand, spot, or committed for years."""

from __future__ import annotations

from typing import Literal

from kcost.core.errors import PriceError
from kcost.cost.price_rules import Price

Pay = Literal["on-demand", "spot", "committed"]

PAYS: tuple[Pay, ...] = ("on-demand", "spot", "committed")

RESTART_H = 0.1
"""Hours that are paid and lost when spot takes an instance back, until another serves: six minutes. An assumption."""


def usd_per_hour(price: Price, pay: Pay) -> float:
    """What an hour of work costs on an instance, paid for in one of the ways.

    A spot instance that is taken back r times an hour loses r x RESTART_H of its hours:
    spot / (1 - r x RESTART_H).

    Raises:
        PriceError: the price says nothing of that way, or spot is lost more than it works.
    """
    if pay == "on-demand":
        return price.on_demand_usd_per_hour
    if pay == "committed":
        if price.committed_usd_per_hour is None:
            raise _not_offered(price, "committed_usd_per_hour")
        return price.committed_usd_per_hour
    if price.spot_usd_per_hour is None:
        raise _not_offered(price, "spot_usd_per_hour")
    lost = (price.spot_interruptions_per_hour or 0.0) * RESTART_H
    if lost >= 1:
        raise PriceError(
            f"A spot instance works between two interruptions: fewer than {1 / RESTART_H:g} an hour.",
            received=f"{price.key} with {price.spot_interruptions_per_hour:g} an hour",
            remedy="Pay on demand.",
        )
    return price.spot_usd_per_hour / (1 - lost)


def offers(price: Price, pay: Pay) -> bool:
    """Whether a price can be paid for in one of the ways."""
    columns = {"spot": price.spot_usd_per_hour, "committed": price.committed_usd_per_hour}
    return pay == "on-demand" or columns[pay] is not None


def paid_text(price: Price, pay: Pay) -> str:
    """How an hour is paid, in words."""
    usd = f"${usd_per_hour(price, pay):.4g} an hour"
    if pay == "on-demand":
        return f"{usd} on demand"
    if pay == "committed":
        return f"{usd}, committed for {price.committed_years:g} years"
    rate = price.spot_interruptions_per_hour
    if rate is None:
        return f"{usd} spot, as if it were never taken back: its interruption rate is not known"
    return f"{usd} spot, with {rate:g} interruptions an hour of {RESTART_H * 60:g} paid minutes each"


def _not_offered(price: Price, column: str) -> PriceError:
    return PriceError(
        f"The price says what is to be paid: {column}.",
        received=f"{price.key}, which has no {column}",
        remedy="Pay on demand, or add it to an [[instance]] of prices.toml.",
    )

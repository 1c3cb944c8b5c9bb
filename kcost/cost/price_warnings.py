"""What makes a price doubtful without making it wrong: a unit, a day or a spelling that a reader should look at again.

A rule of `price_rules` refuses a row, so it must never be wrong. A warning may be: a price can be that high, and a
marketplace may rent a GPU for less than others take for the machine around it.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta

from kcost.cost.price_rules import LEAST_SHARE_OF_MEDIAN, SOLD_APART, Numbered, Price, Problem, is_tpu

BARE_USD_PER_VCPU_HOUR = 0.0316
BARE_USD_PER_GIB_HOUR = 0.0042
"""What a machine without an accelerator costs about: Google's list price of its N1 machines in us-central1.

Each such row of the package's own book lies between 0.5 and 1.3 times of what these two give.
"""

DEAR = 5.0
"""Times what machines of that size cost. Large discounts and old generations stay below; cents are 100 times the price
in dollars, and the price of a month is 730 times that of an hour, at a cheap host still 50 times this estimate."""

CHEAP = 1 / 40
"""Times what machines of that size cost. Cheap hosts take a twentieth; a price by the minute is a sixtieth."""

BARE_AT_MOST = 1.25
"""Times the estimate: a machine with an accelerator that costs no more than this may have been listed without it."""

LOWER_CASE_INSTANCES = ("aws", "gcp")
"""Providers whose instances have names in lower case."""


OLD_AFTER_DAYS = 180
"""A price that is older is told to be."""


def age_days(price: Price, today: date) -> int | None:
    """How old a price is in days, 0 for one of a later day; None where it has no date."""
    return None if price.as_of is None else max(0, (today - price.as_of).days)


def warn_of(prices: Numbered, reference: Iterable[Price], today: date) -> list[Problem]:
    """What should be looked at again in prices that no rule refuses, in the order of their lines.

    Args:
        prices: the rows of a book, each with its line.
        reference: prices that are trusted, to hold the others against.
        today: a later day cannot be the day of a price.
    """
    trusted = tuple(reference)
    medians = _median_usd_by_chip(trusted)
    providers = {price.provider for price in trusted}
    warnings: list[Problem] = []
    for line, price in prices:
        warnings.extend(_of_one(line, price, medians, providers, today))
    return sorted(warnings, key=lambda w: w.row)


def _of_one(
    line: int, price: Price, medians: Mapping[str, float], providers: set[str], today: date
) -> Iterator[Problem]:
    def warning(rule: str, received: str, remedy: str) -> Problem:
        return Problem(row=line, key=price.key, rule=rule, received=received, remedy=remedy, level="warning")

    # A day's grace: where the price was read, it may be tomorrow already.
    if price.as_of is not None and price.as_of > today + timedelta(days=1):
        yield warning(
            "A price is of a day that has been.",
            f"as_of {price.as_of}, and today is {today}",
            "Write the day that the price was read on, or leave as_of empty.",
        )
    provider = price.provider.lower()
    if price.provider != provider and provider in providers:
        yield warning(
            "A provider is written as in the package's own book, so that nobody takes one for two.",
            f"provider {price.provider!r}",
            f"Write {provider}.",
        )
    if provider in LOWER_CASE_INSTANCES and price.instance != price.instance.lower():
        yield warning(
            f"Instances of {provider} have names in lower case.",
            f"instance {price.instance!r}",
            f"Write {price.instance.lower()}, and look whether the row is there twice.",
        )
    if price.vcpus is None or price.memory_gib is None or is_tpu(price):
        return  # a TPU's price by the chip is looked at by the rules
    bare = BARE_USD_PER_VCPU_HOUR * price.vcpus + BARE_USD_PER_GIB_HOUR * price.memory_gib
    chips = _median_of(price, medians)
    if price.accelerator is not None and chips is not None and _may_be_left_out(price, bare, chips):
        yield warning(
            "The price of an instance includes its accelerator.",
            f"${price.on_demand_usd_per_hour:.4g} with {price.accelerator_count} x {price.accelerator}, "
            f"{price.on_demand_usd_per_hour / chips:.0%} of what these cost elsewhere (a machine of that size without "
            f"an accelerator costs about ${bare:.2g})",
            "Look whether the accelerator is in the price, and add its own price where it is not.",
        )
    elif price.accelerator is not None and chips is None and price.on_demand_usd_per_hour <= bare:
        yield warning(
            "The price of an instance includes its accelerator.",
            f"${price.on_demand_usd_per_hour:.4g} with {price.accelerator}, where a machine of that size without an "
            f"accelerator costs about ${bare:.2g}",
            "Look whether the accelerator is in the price. Where it is, the price may stay as it is.",
        )
    if price.accelerator is not None and chips is None:
        return  # what a chip costs that the book does not know, nobody can say
    usual = bare + (chips or 0.0)
    ratio = price.on_demand_usd_per_hour / usual
    if ratio > DEAR or ratio < CHEAP:
        times = f"{ratio:.0f} times" if ratio > 1 else f"1/{1 / ratio:.0f} of"
        yield warning(
            "on_demand_usd_per_hour is in dollars, not in cents, and by the hour, not by the month or the minute.",
            f"${price.on_demand_usd_per_hour:.4g} an hour, {times} what machines of that size cost (${usual:.2g})",
            "Look up the unit. A price of a month is divided by 730 hours, cents by 100.",
        )


def _may_be_left_out(price: Price, bare: float, chips: float) -> bool:
    """Whether a machine is as cheap as only one without its accelerators is."""
    if price.on_demand_usd_per_hour >= LEAST_SHARE_OF_MEDIAN * chips:
        return False
    return price.provider.lower() in SOLD_APART or price.on_demand_usd_per_hour <= BARE_AT_MOST * bare


def _median_of(price: Price, medians: Mapping[str, float]) -> float | None:
    """What the accelerators of a machine cost elsewhere, USD an hour; None where the book knows none of that chip.

    A name may say less than the book's, as `A100` does beside `A100-40GB`, or more, as `nvidia-tesla-a100`: then the
    cheapest that it can mean is taken.
    """
    if price.accelerator is None:
        return None
    if price.accelerator.upper() in medians:
        return medians[price.accelerator.upper()] * price.accelerator_count
    chips = _chip_words(price.accelerator)
    fitting = [usd for name, usd in medians.items() if chips & _chip_words(name)]
    return min(fitting) * price.accelerator_count if fitting else None


def _chip_words(accelerator: str) -> set[str]:
    """The words of a name that say which chip it is: those with a digit, but for the size of its memory."""
    words = re.split(r"[^A-Z0-9]+", accelerator.upper())
    return {word for word in words if re.search(r"\d", word) and not re.fullmatch(r"\d+GI?B", word)}


def _median_usd_by_chip(reference: Iterable[Price]) -> dict[str, float]:
    """Upper-case name of an accelerator -> the median of the machine's price for each."""
    usd: dict[str, list[float]] = defaultdict(list)
    for price in reference:
        if price.accelerator is not None:
            usd[price.accelerator.upper()].append(price.usd_per_accelerator_hour)
    return {name: statistics.median(each) for name, each in usd.items()}

"""Numbers as a person reads them. Every function takes a plain number in the unit that its name says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


def significant(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits, without an exponent between 1e-4 and 1e9."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude >= 9:
        return f"{value:.{digits - 1}e}"
    rounded = round(value, digits - 1 - magnitude)
    return f"{rounded:,.{max(0, digits - 1 - magnitude)}f}"


def format_usd(usd: float) -> str:
    """Dollars with three significant digits below 100 dollars, cents above; never with an exponent."""
    sign, size = "-" if usd < 0 else "", abs(usd)
    if size >= 100:
        return f"{sign}${size:,.2f}"
    if 0 < size < 1e-4:
        return f"{sign}${size:.{2 - math.floor(math.log10(size))}f}"
    return f"{sign}${significant(size)}"


def format_cents(usd: float) -> str:
    """An amount as `format_usd` has it; in cents below one, so that no figure begins with zeros.

    Examples:
        >>> format_cents(0.000434), format_cents(0.00000434)
        ('0.0434 cents', 'under 0.01 cents')
    """
    cents = usd * 100
    if 0 < abs(cents) < 1:
        return f"{significant(cents)} cents" if abs(cents) >= SMALLEST_USD else "under 0.01 cents"
    return format_usd(usd)


class UsdScale(NamedTuple):
    """How many of something figures in dollars are for, so that they read at a glance."""

    factor: float
    """Dollars per `unit`, of a dollar per the unit that they came in."""
    unit: str

    def text(self, usd: float) -> str:
        """A figure of the unit that it came in, in this one."""
        return format_usd(usd * self.factor)


SMALLEST_USD, LARGEST_USD = 0.01, 10_000
_COUNTS = {1e-3: "thousand", 1.0: "million", 1e3: "billion", 1e6: "trillion"}
_RUNS = {1.0: "training run", 1e3: "thousand training runs", 1e6: "million training runs"}


def usd_scale(usd: Iterable[float], unit: str) -> UsdScale:
    """The unit in which the smallest of some costs lies between a cent and 10,000 dollars, where there is one.

    Args:
        usd: costs per `unit`.
        unit: such as `million predictions` or `training run (3 epochs)`; another one stays as it is.

    Examples:
        >>> usd_scale([9.69e-05, 0.002], "million predictions")
        UsdScale(factor=1000.0, unit='billion predictions')
        >>> usd_scale([9.69e-05], "million predictions").text(9.69e-05)
        '$0.0969'
    """
    smallest = min((abs(u) for u in usd if u and math.isfinite(u)), default=SMALLEST_USD)
    for words in (_COUNTS, _RUNS):
        if not unit.startswith(words[1.0]):
            continue
        rest = unit.removeprefix(words[1.0])
        fitting = [f for f in words if SMALLEST_USD <= smallest * f <= LARGEST_USD]
        factor = 1.0 if 1.0 in fitting else min(fitting, default=max(words) if smallest < 1 else min(words))
        return UsdScale(factor, f"{words[factor]}{rest}")
    return UsdScale(1.0, unit)


def usd_a_million(usd: float) -> str:
    """Dollars for a million of something, in the unit in which they read at a glance.

    Examples:
        >>> usd_a_million(9.69e-05)
        '$0.0969 a billion'
    """
    scale = usd_scale([usd], "million")
    return f"{scale.text(usd)} a {scale.unit}"


def format_s(seconds: float) -> str:
    """A duration given in seconds, in the unit that fits."""
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    if seconds >= 1:
        return f"{significant(seconds)} s"
    if seconds >= 1e-3:
        return f"{significant(seconds * 1e3)} ms"
    return f"{significant(seconds * 1e6)} us"


def format_bytes(count: float) -> str:
    """A size given in bytes, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{significant(count)} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def format_percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * fraction:.1f}%"

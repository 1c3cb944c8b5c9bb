"""Numbers as a person reads them. Every function takes a plain number in the unit that its name says."""

from __future__ import annotations

import math


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
    """Dollars with three significant digits below 100 dollars, cents above."""
    sign = "-" if usd < 0 else ""
    return f"{sign}${abs(usd):,.2f}" if abs(usd) >= 100 else f"{sign}${significant(abs(usd))}"


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

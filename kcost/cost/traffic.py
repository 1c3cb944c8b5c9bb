"""When requests come: a rate, a profile of a day or a week, or a log of their times.

Whatever it comes from, traffic is a list of hours that repeats, with a rate for each, and a peak to size for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.schema import Record

HOURS: dict[str, int] = {"daily": 24, "weekly": 168}

SHOWN = 60
"""Characters of a line of a log that an error repeats at most. A log holds what nobody should read."""

FIRST_TIME = re.compile(
    r"(?P<iso>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
    r"|\[(?P<common>\d\d/[A-Za-z]{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]"
    r"|^\s*\"?(?P<epoch>\d{9,10}(?:\.\d+)?|\d{13})\b"
)
"""A time as ISO 8601, as web servers log it, or in seconds (or 13 digits of milliseconds) since 1970 at the line's
beginning."""

MINUTE_S = 60.0
LEAST_BUSY = 600
"""Fewest requests a second and hour from which the spread of a log's minutes is told from chance."""


class Traffic(Record):
    """Requests a second by hour, in hours that repeat over the horizon."""

    kind: Literal["rate", "daily", "weekly", "log"]
    queries_per_s: tuple[float, ...] = Field(description="mean rate of each hour; one number for a constant rate")
    peak_queries_per_s: float = Field(description="what is sized for: the busiest hour, of a log its busiest minute")
    requests: int | None = Field(default=None, description="how many a log holds")
    dispersion: float | None = Field(
        default=None,
        description="of a log: variance over mean of the requests a second within an hour; 1 is a Poisson process",
    )

    @property
    def mean_queries_per_s(self) -> float:
        """Mean over the hours."""
        return math.fsum(self.queries_per_s) / len(self.queries_per_s)

    @property
    def per_day(self) -> float:
        """Requests of a mean day."""
        return self.mean_queries_per_s * 86_400

    @property
    def levels(self) -> tuple[tuple[float, float], ...]:
        """The different rates of the hours, ascending, each with the part of the hours that has it."""
        rates, counts = np.unique(np.asarray(self.queries_per_s), return_counts=True)
        return tuple((float(r), float(c) / len(self.queries_per_s)) for r, c in zip(rates, counts, strict=True))


def constant(queries_per_s: float) -> Traffic:
    """The same rate at all hours.

    Raises:
        InputError: it is not a positive finite number.

    Examples:
        >>> constant(200).per_day
        17280000.0
    """
    if not (math.isfinite(queries_per_s) and queries_per_s > 0):
        raise InputError(
            "Traffic is a positive number of requests a second.", received=queries_per_s, remedy="Such as --qps 200."
        )
    return Traffic(kind="rate", queries_per_s=(float(queries_per_s),), peak_queries_per_s=float(queries_per_s))


def profile(queries_per_s: Sequence[float], kind: Literal["daily", "weekly"]) -> Traffic:
    """A rate for each hour of a day or of a week.

    Raises:
        InputError: another count of hours, a negative rate, or no traffic at all.

    Examples:
        >>> profile([100.0] * 12 + [300.0] * 12, "daily").mean_queries_per_s
        200.0
    """
    if len(queries_per_s) != HOURS[kind]:
        raise InputError(
            f"A {kind} profile has {HOURS[kind]} rates, one for each hour.",
            received=f"{len(queries_per_s)} rates",
            remedy="Write one number of requests a second for each hour, from the first on.",
        )
    wrong = next((r for r in queries_per_s if not (math.isfinite(r) and r >= 0)), None)
    if wrong is not None or max(queries_per_s) == 0:
        raise InputError(
            f"The rates of a {kind} profile are 0 or more, and one of them is more.",
            received="0 at all hours" if wrong is None else wrong,
            remedy="Write requests a second.",
        )
    return Traffic(kind=kind, queries_per_s=tuple(map(float, queries_per_s)), peak_queries_per_s=max(queries_per_s))


def from_log(content: bytes, name: str) -> Traffic:
    """The traffic of a log with one request a line: the first time of each line is read, and nothing else.

    Times are ISO 8601, those of web servers (`[29/Nov/2026:10:00:00 +0000]`), or seconds since 1970 at the beginning
    of a line. Times without a zone are UTC. A first line without a time is taken for a heading.

    Args:
        content: the bytes of the log.
        name: what errors call it.

    Raises:
        InputError: a line without a time, times out of order, or fewer than two requests.
    """
    times_s = np.asarray(_times(content, name), dtype=np.float64)
    if len(times_s) < 2 or times_s[-1] <= times_s[0]:
        raise InputError(
            "A log of requests has two at different times at least.",
            received=f"{name}: {len(times_s)} requests" + (" at one time" if len(times_s) > 1 else ""),
            remedy="Give a longer piece of the log; a day or a week shows when it is busy.",
        )
    since_s = times_s - times_s[0]
    span_s = float(since_s[-1])
    hours = max(1, math.ceil(span_s / 3600))
    counts = np.bincount(np.minimum(since_s // 3600, hours - 1).astype(int), minlength=hours)
    seconds = np.full(hours, 3600.0)
    seconds[-1] = span_s - 3600.0 * (hours - 1)
    if hours > 1 and seconds[-1] < MINUTE_S:  # a rest of a few seconds says nothing of an hour
        counts[-2] += counts[-1]
        seconds[-2] += seconds[-1]
        counts, seconds = counts[:-1], seconds[:-1]
    rates = counts / seconds
    minutes = np.bincount((since_s // MINUTE_S).astype(int))
    busiest = float(minutes.max()) / min(MINUTE_S, span_s)
    return Traffic(
        kind="log",
        queries_per_s=tuple(float(r) for r in rates),
        peak_queries_per_s=max(busiest, float(rates.max())),
        requests=len(times_s),
        dispersion=_dispersion(since_s),
    )


def _times(content: bytes, name: str) -> list[float]:
    times: list[float] = []
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        time_s = _time(line)
        if time_s is None:
            if number == 1:
                continue
            raise InputError(
                "Each line of a log of requests holds a time.",
                received=f"{name}, line {number}: {line.strip()[:SHOWN]!r}",
                remedy="ISO 8601, [29/Nov/2026:10:00:00 +0000], or seconds since 1970 at the line's beginning.",
            )
        if times and time_s < times[-1]:
            raise InputError(
                "The times of a log of requests are in order.",
                received=f"{name}, line {number}: {times[-1] - time_s:g} s before the line above it",
                remedy="Sort the log by time first.",
            )
        times.append(time_s)
    return times


def _time(line: str) -> float | None:
    """The first time of a line in seconds since 1970; None where there is none."""
    match = FIRST_TIME.search(line)
    if match is None:
        return None
    try:
        if (iso := match["iso"]) is not None:
            moment = datetime.fromisoformat(iso.replace(",", "."))
        elif (common := match["common"]) is not None:
            moment = datetime.strptime(common, "%d/%b/%Y:%H:%M:%S %z")
        else:
            epoch = match["epoch"]
            return float(epoch) / (1000 if len(epoch) == 13 and "." not in epoch else 1)
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _dispersion(since_s: np.ndarray) -> float | None:
    """Variance over mean of the counts a second, within each hour, so that the time of day does not count."""
    counts = np.bincount(since_s.astype(int))
    hours = [h for h in np.array_split(counts, max(1, len(counts) // 3600)) if len(h) > 1 and h.sum() >= LEAST_BUSY]
    if not hours:
        return None
    return float(np.mean([h.var(ddof=1) / h.mean() for h in hours]))

"""When the requests of a load test are due, and what they say: a Poisson process, or a recorded log."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kcost.core.errors import InputError

MOST_REQUESTS = 1_000_000
LONGEST_S = 3600.0


class Schedule(NamedTuple):
    """Requests in the order in which they are due."""

    due_s: np.ndarray
    """Seconds from the beginning, float64, ascending."""
    bodies: tuple[bytes, ...]
    """One for each request, or fewer, which take turns."""
    source: str
    """Where the times are from, in words."""


def poisson(
    rate_per_s: float, duration_s: float, bodies: Sequence[bytes], seed: int = 0, *, count: int | None = None
) -> Schedule:
    """Requests that arrive as a Poisson process, as those of many users who know nothing of one another do.

    Args:
        rate_per_s: mean number of requests in a second.
        duration_s: over which they are due.
        bodies: take turns.
        seed: one seed gives one sequence, which a higher rate only presses together.
        count: exactly so many requests, in about `count / rate_per_s` seconds, in the place of a duration.

    Raises:
        InputError: the rate or the duration is not positive, or there would be too many requests or too long a test.

    Examples:
        >>> round(len(poisson(100, 10, [b"{}"], seed=1).due_s), -2)
        1000
    """
    for name, value in (("rate", rate_per_s), ("duration", duration_s)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"The {name} of a load test is positive.", received=f"{value:g}")
    _refuse_too_much(rate_per_s * duration_s, duration_s)
    random = np.random.default_rng(seed)
    if count is not None:
        due_s = np.cumsum(random.exponential(1 / rate_per_s, count))
    else:
        expected = rate_per_s * duration_s
        gaps = random.exponential(1 / rate_per_s, int(expected + 10 * math.sqrt(expected) + 20))
        due_s = np.cumsum(gaps)
        due_s = due_s[due_s < duration_s]
    return Schedule(due_s, tuple(bodies), f"Poisson, seed {seed}")


def read_log(path: Path, bodies: Sequence[bytes]) -> Schedule:
    """Requests as they were recorded: JSON lines with `at_s`, seconds, and, where the request had its own, `body`.

    Args:
        path: the file. Its times are taken from the first on.
        bodies: of the lines that have none.

    Raises:
        InputError: a line is none of these, the times go back, or there are too many requests or too long a test.
    """
    due_s: list[float] = []
    said: list[bytes] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("A log of requests is a file of JSON lines.", received=f"{path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        at_s, body = _read_line(path, number, line)
        if due_s and at_s < due_s[-1]:
            raise InputError("The times of a log ascend.", received=f"{path}:{number}: {at_s:g} after {due_s[-1]:g}")
        due_s.append(at_s)
        if body is None and not bodies:
            raise InputError("A line without a body needs one from elsewhere.", received=f"{path}:{number}")
        said.append(bodies[(len(due_s) - 1) % len(bodies)] if body is None else body)
    if not due_s:
        raise InputError('A log has at least one line such as {"at_s": 0.5}.', received=f"{path}, which is empty")
    _refuse_too_much(len(due_s), due_s[-1] - due_s[0])
    return Schedule(np.array(due_s) - due_s[0], tuple(said), f"recorded in {path.name}")


def _read_line(path: Path, number: int, line: str) -> tuple[float, bytes | None]:
    rule = 'A line of a log is JSON with `at_s`, in seconds, and perhaps `body`, such as {"at_s": 0.5}.'
    try:
        document = json.loads(line)
        at_s, body = document["at_s"], document.get("body")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InputError(rule, received=f"{path}:{number}: {line[:80]!r}") from error
    if isinstance(at_s, bool) or not isinstance(at_s, int | float) or not math.isfinite(at_s):
        raise InputError(rule, received=f"{path}:{number}: at_s = {at_s!r}")
    return float(at_s), None if body is None else json.dumps(body).encode()


def _refuse_too_much(requests: float, duration_s: float) -> None:
    if requests > MOST_REQUESTS:
        raise InputError(f"A load test has at most {MOST_REQUESTS:,} requests.", received=f"{requests:,.0f}")
    if duration_s > LONGEST_S:
        raise InputError(f"A load test lasts at most {LONGEST_S:g} s.", received=f"{duration_s:g} s")

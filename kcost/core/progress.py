"""How long work tells of its progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from kcost.core.units import format_s

LINE_EVERY_S = 15.0

OnProgress = Callable[[int, int, str], None]
"""Told pieces of work done, pieces in all, and what comes next."""


def silent(done: int, total: int, text: str) -> None:
    """Progress that nobody watches."""


class ProgressLines:
    """Progress as plain lines: one where a stage begins, and one each LINE_EVERY_S as long as something happens.

    A stage is the first word of what is told. No thread writes them: that would disturb what is measured.
    """

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._start_s = clock()
        self._line_s = -math.inf
        self._stage = ""

    def __call__(self, done: int, total: int, text: str) -> None:
        """Told as an OnProgress is."""
        now_s = self._clock()
        stage = text.partition(" ")[0]
        if not text or (stage == self._stage and now_s - self._line_s < LINE_EVERY_S):
            return
        self._stage, self._line_s = stage, now_s
        gone_s = now_s - self._start_s
        left = f", about {format_s(gone_s / done * (total - done))} left" if 0 < done < total else ""
        self._write(f"{100 * done / total if total else 0:3.0f}% {text} ({format_s(gone_s)} gone{left})")

"""How long work tells of its progress: to an `OnProgress`, and how a stream shows what one is told."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO

from kcost.core.output import say
from kcost.core.units import format_s

LINE_EVERY_S = 15.0

OnProgress = Callable[[int, int, str], None]
"""Told pieces of work done, pieces in all, and what comes next."""


def silent(done: int, total: int, text: str) -> None:
    """Progress that nobody watches."""


def in_steps(on_progress: OnProgress, total: int) -> Callable[[str], None]:
    """What is told of each of `total` steps of some work as it begins."""
    steps = itertools.count()

    def tell(text: str) -> None:
        done = next(steps)
        on_progress(done, total, f"{text}, step {done + 1} of {total}")

    return tell


@contextmanager
def stage(on_progress: OnProgress, text: str) -> Iterator[None]:
    """Tells of work that is one stage, where it begins and where it ends."""
    on_progress(0, 1, text)
    yield
    on_progress(1, 1, f"done: {text}")


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


@contextmanager
def shown_on(stream: IO[str], *, transient: bool = False) -> Iterator[OnProgress]:
    """What work tells its progress to: a bar where the stream is a terminal, elsewhere plain lines.

    Where nobody reads the stream any more, it goes nowhere, and the work goes on.

    Args:
        transient: the bar goes when the work ends.
    """
    from kcost.core.console import UnreadConsole

    console = UnreadConsole(file=stream)
    if not console.is_terminal:
        yield ProgressLines(partial(say, stream))
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.percentage:3.0f}%"), BarColumn(bar_width=20), TimeElapsedColumn())
    described = TextColumn("{task.description}", markup=False)
    # Refreshed only when something happens: a thread that redraws would disturb what is measured.
    with Progress(*columns, described, console=console, auto_refresh=False, transient=transient) as bar:
        task = bar.add_task("starting", total=None)

        def on_progress(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total or None, description=text or None)
            bar.refresh()

        yield on_progress

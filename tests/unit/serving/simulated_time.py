"""An event loop whose seconds are simulated, so that what a test says of time does not hang on the machine's load."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import TypeVar

import pytest

from kcost.serving import load

T = TypeVar("T")

_LOOK_S = 20e-6
"""What a turn of the loop takes: a client that waits by looking at the clock would else wait for ever."""

_DELIVERY_S = 0.001
"""A socket of the loopback delivers at once, but the kernel may be busy: simulated time passes only after so long
without anything to read."""


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += _LOOK_S
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        ready = super().select(timeout if timeout is None else _DELIVERY_S)
        if not ready and timeout is not None:
            self.now_s += timeout
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Real sockets, simulated seconds: waiting takes no time."""

    def __init__(self) -> None:
        self._seconds = _Selector()
        super().__init__(self._seconds)

    def time(self) -> float:
        return self._seconds.now_s

    def stall(self, seconds: float) -> None:
        """Lets time pass in which the process does nothing."""
        self._seconds.now_s += seconds


class SimulatedTime:
    """Runs coroutines in simulated time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = SimulatedLoop()
        clock = SimpleNamespace(perf_counter_ns=lambda: round(self.loop.time() * 1e9))
        monkeypatch.setattr(load, "time", clock)

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            return runner.run(coroutine)

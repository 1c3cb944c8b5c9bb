"""How a pool ends its workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcost.bench.pool import Pool
from kcost.core.plan import Settings


class Recorded:
    """A worker that tells what is done with it."""

    def __init__(self, name: str, events: list[str]) -> None:
        self._name, self._events = name, events

    def ask_to_end(self) -> None:
        self._events.append(f"ask {self._name}")

    def kill(self, *, wait: bool) -> None:
        assert not wait
        self._events.append(f"kill {self._name}")

    def close(self) -> None:
        self._events.append(f"close {self._name}")


def pool_of(events: list[str], logs: Path) -> Pool:
    pool = Pool(logs, Settings())
    pool._workers = {name: Recorded(name, events) for name in ("a", "b")}  # type: ignore[assignment, misc]
    return pool


def test_all_workers_are_asked_to_end_before_one_is_waited_for(tmp_path: Path) -> None:
    events: list[str] = []
    with pool_of(events, tmp_path):
        pass
    assert events == ["ask a", "ask b", "close a", "close b"]


def test_after_an_error_all_are_killed_before_one_is_waited_for(tmp_path: Path) -> None:
    events: list[str] = []
    with pytest.raises(KeyboardInterrupt), pool_of(events, tmp_path):
        raise KeyboardInterrupt
    assert [e for e in events if not e.startswith("ask")] == ["kill a", "kill b", "close a", "close b"]

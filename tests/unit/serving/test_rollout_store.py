"""Counts of rollouts on disk: a proxy that was ended, or killed at any moment, goes on from what it has told."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import kcost
from kcost.core.errors import InputError, SchemaError, StorageError
from kcost.cost.invoice import Meter
from kcost.risk.rollout import RolloutCounts
from kcost.serving.monitor.monitor import Monitor
from kcost.serving.monitor.report import rollout_sentence
from kcost.serving.monitor.rollout_store import RolloutStore, StoredRollout
from kcost.serving.monitor.rollouts import Rollouts, RolloutState
from kcost.serving.monitor.settings import (
    CanarySettings,
    MonitorSettings,
    RolloutSettings,
    ShadowSettings,
    read_settings,
)
from tests.unit.serving.monitored import REFERENCE
from tests.unit.serving.proxied import timed

Seen = tuple[Rollouts, list[RolloutState]]


def canary(version: int = 2, stable: int = 1, **changes: float) -> MonitorSettings:
    return MonitorSettings(canary={"m": CanarySettings(version=version, stable=stable, **changes)})


def with_store(
    file: Path, settings: MonitorSettings, steps: Callable[[Rollouts], Awaitable[None]], rows: int = 0
) -> Seen:
    """Rollouts of one proxy, from its start to its end."""
    store, announced = RolloutStore(file), list[RolloutState]()
    watched = {"m": RolloutCounts(rows=rows, row_squares=rows)} if rows else {}
    rollouts = Rollouts(settings, lambda: watched, announced.append, store=store)
    asyncio.run(steps(rollouts))
    store.close()
    return rollouts, announced


async def nothing(_: Rollouts) -> None: ...


async def some(rollouts: Rollouts) -> None:
    for i in range(20):
        rollouts.answered("m")
        rollouts.compared("m", timed(latency_ns=1000 + i), timed(latency_ns=1100, machine_ns=123.456 + i))
    rollouts.failed("m", 400)
    await rollouts.sync()


async def failures(rollouts: Rollouts) -> None:
    for _ in range(9):
        rollouts.failed("m", 200)
    await rollouts.sync()


def test_counts_go_on_in_the_next_proxy(tmp_path: Path) -> None:
    file = tmp_path / "there is none yet" / "rollouts.json"
    first, _ = with_store(file, canary(), some, rows=30)
    (before,) = first.states(1.0)
    assert (before.rollout.counts.requests, before.rollout.counts.rows, before.unclear) == (20, 30, 1)
    second, announced = with_store(file, canary(), nothing)
    assert second.states(1.0) == (before,), "to the last digit"
    assert second.agreed() == {"m": RolloutCounts(rows=30, row_squares=30)}  # what watches goes on from there
    third, _ = with_store(file, canary(), some, rows=40)
    counts = third.states(1.0)[0].rollout.counts
    assert (counts.requests, counts.pairs, counts.rows) == (40, 40, 40)
    assert announced == []
    assert sorted(path.name for path in file.parent.iterdir()) == [".rollouts.json.lock", "rollouts.json"]


def test_a_canary_that_was_rolled_back_stays_so_and_is_told_of_once(tmp_path: Path) -> None:
    file = tmp_path / "rollouts.json"
    first, announced = with_store(file, canary(), failures)
    assert [state.rollout.decision for state in announced] == ["roll back"]
    second, again = with_store(file, canary(), failures)
    assert again == []
    (state,) = second.states(1.0)
    assert state.stopped
    assert rollout_sentence(state) == rollout_sentence(first.states(1.0)[0])
    # Other versions are judged by themselves, and so is the same one at other gates; back again, nothing is forgotten.
    assert not with_store(file, canary(version=3), some)[0].states(1.0)[0].stopped
    assert not with_store(file, canary(stable=0), some)[0].states(1.0)[0].stopped
    shadow = MonitorSettings(shadow={"m": ShadowSettings(version=2, stable=1)})
    assert with_store(file, shadow, nothing)[0].states(1.0)[0].rollout.counts == RolloutCounts()
    assert not with_store(file, canary(max_failed=0.999), nothing)[0].states(1.0)[0].stopped
    assert with_store(file, canary(), nothing)[0].states(1.0)[0].stopped


def test_a_decision_is_on_disk_before_it_is_told(tmp_path: Path) -> None:
    """A kill between the two has it told again, in the place of never."""
    file, decided = tmp_path / "rollouts.json", list[str]()

    class KilledError(Exception):
        pass

    def killed(state: RolloutState) -> None:
        decided.append(state.rollout.decision)
        raise KilledError

    store = RolloutStore(file)
    rollouts = Rollouts(canary(), dict, killed, store=store)
    rollouts.failed("m", 200)
    for _ in range(8):
        rollouts.failed("m", 200)
    assert decided == []  # stopped at once, but told when it is stored
    with pytest.raises(KilledError):
        asyncio.run(rollouts.sync())
    store.close()
    assert decided == ["roll back"]
    _, announced = with_store(file, canary(), failures)
    assert [state.rollout.decision for state in announced] == ["roll back"]


def test_what_is_not_on_disk_is_not_told(tmp_path: Path) -> None:
    store = RolloutStore(tmp_path / "rollouts.json")
    rollouts = Rollouts(canary(), dict, lambda _: None, store=store)
    rollouts.answered("m")
    assert rollouts.states(1.0)[0].rollout.counts.requests == 0
    asyncio.run(rollouts.sync())
    assert rollouts.states(1.0)[0].rollout.counts.requests == 1


def test_a_full_disk_stops_the_storing_and_not_the_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rollouts.json"
    settings = canary().model_copy(update={"rollouts": RolloutSettings(file=file)})
    monitor = Monitor("http://x", settings, {})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def run() -> None:
        await some(monitor.rollouts)
        before = file.read_bytes()
        monkeypatch.setattr("kcost.serving.monitor.rollout_store.os.fsync", full)
        await failures(monitor.rollouts)
        assert file.read_bytes() == before
        assert monitor.rollouts.states(1.0)[0].stopped
        failed = monitor.rollouts.store_failed
        assert failed is not None
        limits = monitor.report(Meter(1.0, 0).invoice(10**9)).limits
        assert any("goes on from the file of before" in limit and failed in limit for limit in limits)
        assert "StorageError" in failed
        assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".draft")] == []
        monkeypatch.undo()
        await monitor.rollouts.sync()  # there is room again
        assert monitor.rollouts.store_failed is None
        assert file.read_bytes() != before
        await monitor.close()

    asyncio.run(run())


def test_one_proxy_at_a_time_writes_a_file(tmp_path: Path) -> None:
    store = RolloutStore(tmp_path / "rollouts.json")
    with pytest.raises(InputError, match="another one writes"):
        RolloutStore(tmp_path / "rollouts.json")
    store.close()
    RolloutStore(tmp_path / "rollouts.json").close()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 99, "rollouts": []}', '{"schema": 1, "rollouts": 1}'])
def test_a_file_that_is_no_kcosts_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    file = tmp_path / "rollouts.json"
    file.write_text(content)
    for _ in range(2):
        with pytest.raises(SchemaError, match="rollouts"):
            RolloutStore(file)
    assert file.read_text() == content
    with pytest.raises(StorageError):
        RolloutStore(file / "below a file")


def test_a_path_in_the_settings_is_relative_to_them_and_without_one_the_report_says_so(tmp_path: Path) -> None:
    text = "[canary.m]\nversion = 2\nstable = 1\n"
    (tmp_path / "monitor.toml").write_text(text + '[rollouts]\nfile = "state/rollouts.json"\n')
    settings = read_settings(tmp_path / "monitor.toml")
    assert settings.rollouts.file == tmp_path / "state" / "rollouts.json"
    bill = Meter(1.0, 0).invoice(10**9)
    plain = Monitor("http://x", canary(), {}).report(bill)
    assert any("begin anew with the proxy" in limit for limit in plain.limits)
    stored = Monitor("http://x", settings, {}).report(bill)
    assert not any("begin anew" in limit for limit in stored.limits)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StorageError, match="such as a local disk") as refused:
        RolloutStore(tmp_path / "rollouts.json")
    assert refused.value.received == f"{os.strerror(number)} ({tmp_path / 'rollouts.json'})"


def test_a_proxy_that_does_not_start_leaves_the_file_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "monitor.toml").write_text(
        "[canary.m]\nversion = 2\nstable = 1\n[rollouts]\nfile = 'rollouts.json'\n", encoding="utf-8"
    )
    (tmp_path / "reference.json").write_text(REFERENCE.model_dump_json())
    settings: dict[str, Any] = {
        "monitor": tmp_path / "monitor.toml",
        "references": [f"m={tmp_path / 'reference.json'}"],
    }
    failures: list[InputError] = []  # their tracebacks keep alive what was made, and a lock that nobody gave back
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for upstream, forecasts in (
            ("http://127.0.0.1:9", ()),
            ("no URL", ()),
            ("http://127.0.0.1:9", (str(tmp_path / "no forecast.json"),)),
            ("http://127.0.0.1:9", ()),
        ):
            with pytest.raises(InputError) as failed:
                kcost.serve_proxy(upstream, usd_per_hour=1.0, port=port, forecasts=forecasts, **settings)
            failures.append(failed.value)
    assert [failure.rule for failure in failures[::3]] == ["kcost serves on a free port of this machine."] * 2
    assert not any("another one writes" in str(failure) for failure in failures)
    RolloutStore(tmp_path / "rollouts.json").close()


def stored_monitor(file: Path, log: Callable[[str], None] | None = None) -> Monitor:
    return Monitor("http://x", canary().model_copy(update={"rollouts": RolloutSettings(file=file)}), {}, log)


def test_what_is_counted_during_the_last_write_is_stored_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, lines = tmp_path / "rollouts.json", list[str]()
    begun, goes_on, write = threading.Event(), threading.Event(), RolloutStore.write

    def slow(store: RolloutStore, rollouts: Iterable[StoredRollout]) -> None:
        begun.set()
        goes_on.wait(20)
        write(store, rollouts)

    async def run() -> None:
        monitor = stored_monitor(file, lines.append)
        monkeypatch.setattr(RolloutStore, "write", slow)
        await monitor.start()
        monitor.rollouts.answered("m")
        assert await asyncio.to_thread(begun.wait, 20)
        for _ in range(9):
            monitor.rollouts.failed("m", 200)
        closing = asyncio.create_task(monitor.close())
        await asyncio.sleep(0.05)
        goes_on.set()
        await closing

    asyncio.run(run())
    assert [line.partition(":")[0] for line in lines] == ["roll back"]
    assert with_store(file, canary(), nothing)[0].states(1.0)[0].stopped


def test_a_roll_back_is_stored_and_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kcost.serving.monitor.monitor.JUDGE_S", 60.0)
    lines = list[str]()

    async def run() -> None:
        monitor = stored_monitor(tmp_path / "rollouts.json", lines.append)
        await monitor.start()
        async with asyncio.timeout(20):
            await asyncio.sleep(0)  # it waits for the next minute
            for _ in range(9):
                monitor.rollouts.failed("m", 200)
            while not lines:
                await asyncio.sleep(0.01)
        await monitor.close()

    asyncio.run(run())


def test_an_end_after_the_storing_failed_closes_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rollouts.json"

    async def run() -> None:
        monitor = stored_monitor(file)

        async def broken() -> None:
            raise ZeroDivisionError("what nobody foresaw")

        monkeypatch.setattr(monitor.rollouts, "sync", broken)
        await monitor.start()
        with pytest.raises(ZeroDivisionError):
            await monitor.close()
        RolloutStore(file).close()

    asyncio.run(run())


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_log_that_raises_ends_no_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stored: bool) -> None:
    """A failure of a canary is judged and told in the midst of a client's request, and else where counts are stored."""
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))
    lines = list[str]()

    def full(text: str) -> None:
        lines.append(text)
        raise OSError(28, "No space left on device")

    async def run() -> None:
        monitor = stored_monitor(tmp_path / "a.json", full) if is_stored else Monitor("http://x", canary(), {}, full)
        await monitor.start()
        for _ in range(9):
            monitor.rollouts.failed("m", 200)
        await monitor.close()

    asyncio.run(run())
    assert [line.partition(":")[0] for line in lines] == ["roll back"]
    assert len(list((tmp_path / "logs").iterdir())) == 1


WRITER = """
import sys
from pathlib import Path
from kcost.risk.rollout import RolloutCounts
from kcost.serving.monitor.rollout_store import RolloutStore, StoredRollout
store = RolloutStore(Path(sys.argv[1]))
key = ("m", "canary", 2, 1)
before = store.find(key)
count = 0 if before is None else before.counts.requests
while True:
    count += 1
    counts = RolloutCounts(requests=count, failed=count)
    store.write([StoredRollout(model="m", kind="canary", version=2, stable=1, counts=counts, agreement=RolloutCounts(),
                               unclear=count, announced="can't tell")])
    print(count, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_file_with_all_that_was_written(tmp_path: Path) -> None:
    file, chooser, last = tmp_path / "rollouts.json", random.Random(0), 0
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert int(writer.stdout.readline()) == last + 1  # it goes on, and nobody holds the file any more
        time.sleep(chooser.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        printed = writer.stdout.read().splitlines()
        writer.wait()
        store = RolloutStore(file)
        stored = store.find(("m", "canary", 2, 1))
        store.close()
        assert isinstance(stored, StoredRollout)
        last = stored.counts.requests
        assert stored.counts.failed == stored.unclear == last
        assert last >= (int(printed[-1]) if printed else 1)
    assert last > 8

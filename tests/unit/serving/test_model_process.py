"""A process with a model where the system has no room for one, and one that ends or hangs before it serves."""

from __future__ import annotations

import asyncio
import resource
import socket
from pathlib import Path

import pytest

from kcost.core import frames
from kcost.core.errors import KcostError, WorkerError
from kcost.core.frames import Kind
from kcost.core.serving import ServedModel, ServeRequest
from kcost.serving.model_process import ModelProcess, TrialError
from testing.quotas import under_quota


def open_files() -> list[int]:
    """Descriptors of this process, without that of the folder which tells them."""
    named = list(Path("/proc/self/fd").iterdir())
    return sorted(int(path.name) for path in named if path.exists())


def limit_that_leaves(left: int) -> int:
    """The limit of open files under which as many more can be opened."""
    taken, limit = set(open_files()), 0
    while limit - sum(number < limit for number in taken) < left:
        limit += 1
    return limit


@pytest.mark.parametrize("left", range(9))
def test_no_process_can_be_started_where_files_are_short(tmp_path: Path, left: int) -> None:
    """Each place that opens a file fails in its turn: two sockets, the log, and the pipes of the process."""

    async def run() -> None:
        process = ModelProcess(tmp_path, 1, tmp_path / "log", lambda: None)
        before, failure = open_files(), None
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit_that_leaves(left), hard))
        try:
            await process.start(0, lambda: None)
        except KcostError as error:
            failure = error
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert isinstance(failure, WorkerError)
        assert failure.cause == "not_started"
        assert "Too many open files" in str(failure)
        assert open_files() == before

    asyncio.run(run())


class Made:
    """A process in name alone: what it says is written by the test."""

    def __init__(self, says: tuple[Kind, ...], *, ends: bool) -> None:
        self.says = says
        self.ends = ends
        self.was_killed = False

    def socket(self) -> socket.socket:
        mine, its = socket.socketpair()
        for kind in self.says:
            its.sendall(b"".join(frames.encode(0, kind, [READY] if kind == Kind.READY else [])))
        if self.ends:
            its.close()
        self.its = its
        mine.setblocking(False)
        return mine

    def receive(self, timeout_s: float) -> None:
        raise WorkerError("A worker stays alive.", received="the process was killed by SIGABRT", cause="killed")

    def kill(self, *, wait: bool) -> None:
        self.was_killed = True

    def close(self) -> None:
        self.its.close()


READY = ServedModel(signatures=(), library_version="0").model_dump_json().encode()


@pytest.mark.parametrize(
    ("says", "ends", "trial_s", "error"),
    [
        ((Kind.LOADED, Kind.READY), False, 0.05, None),
        ((Kind.READY,), False, 0.05, None),  # no trial was asked for
        ((Kind.LOADED,), False, 0.05, TrialError("they did not end within 0.05 s")),
        ((Kind.LOADED,), True, 60.0, TrialError("the process was killed by SIGABRT")),  # its time is not up before
        ((), True, 0.05, WorkerError("A worker stays alive.", "the process was killed by SIGABRT")),
    ],
)
def test_a_process_that_ends_or_hangs_at_its_trial_is_told_from_one_that_does_not_load(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: tuple[Kind, ...],
    ends: bool,
    trial_s: float,
    error: Exception | None,
) -> None:
    made, loaded, ended = Made(says, ends=ends), list[int](), list[int]()

    async def run() -> None:
        process = ModelProcess(tmp_path, 1, tmp_path / "log", lambda: ended.append(1))

        def start_worker() -> socket.socket:
            process._worker = made  # type: ignore[assignment]
            return made.socket()

        monkeypatch.setattr(process, "_start_worker", start_worker)
        failure, served = None, None
        try:
            async with asyncio.timeout(20):
                served = await process.start(trial_s, lambda: loaded.append(1))
        except (TrialError, WorkerError) as caught:
            failure = caught
        assert (type(failure), str(failure)) == (type(error), str(error))
        assert served == (ServedModel.model_validate_json(READY) if error is None else None)
        await asyncio.sleep(0.1)  # the trial's time is up; nothing comes of it where it has ended
        assert made.was_killed == (error is not None)
        process.close()
        await asyncio.sleep(0)
        assert ended == []
        assert len(loaded) == says.count(Kind.LOADED)

    asyncio.run(run())


def test_a_start_that_is_given_up_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may end at any moment of a start, also before it is connected to the process."""
    made = Made((), ends=False)

    async def run() -> None:
        process = ModelProcess(tmp_path, 1, tmp_path / "log", lambda: None)

        def start_worker() -> socket.socket:
            process._worker = made  # type: ignore[assignment]
            return made.socket()

        async def never(*_: object, sock: socket.socket) -> None:
            with sock:
                await asyncio.sleep(60)

        monkeypatch.setattr(process, "_start_worker", start_worker)
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
        start = asyncio.create_task(process.start(0, lambda: None))
        await asyncio.sleep(0)
        start.cancel()
        await asyncio.wait((start,))
        assert start.cancelled()
        assert made.was_killed

    asyncio.run(run())


def test_a_process_has_as_many_threads_as_a_quota_has_cores_unless_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked:
        def __init__(self, *_: object, **__: object) -> None: ...

        def send(self, request: ServeRequest) -> None:
            sent.append((request.threads, request.cores))

    sent: list[tuple[int, tuple[int, ...]]] = []
    monkeypatch.setattr("kcost.serving.model_process.Worker", Asked)
    monkeypatch.setattr("kcost.core.cpu_quota.os.sched_getaffinity", lambda _: {0, 1, 2})
    under_quota(tmp_path, monkeypatch, 1.0)
    for threads in (0, 3):
        ModelProcess(tmp_path, threads, tmp_path / "log", lambda: None)._start_worker().close()
    assert sent == [(1, (0, 1, 2)), (3, (0, 1, 2))]

"""A process with a model where the system has no room for one."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest

from kcost.core.errors import KcostError, WorkerError
from kcost.serving.model_process import ModelProcess


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
            await process.start()
        except KcostError as error:
            failure = error
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert isinstance(failure, WorkerError)
        assert failure.cause == "not_started"
        assert "Too many open files" in str(failure)
        assert open_files() == before

    asyncio.run(run())

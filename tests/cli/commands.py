"""Commands as a user gives them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from kcost.cli import main


def kcost(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in this process, which has imported the program already; its workers are processes as ever.

    What a test says of the start of a process (its encoding, its modules, a pipe) needs `kcost_process`.
    """
    command = ["kcost", *map(str, arguments)]
    with _stream("stdout") as output, _stream("stderr") as errors:
        with mock.patch.dict(os.environ, environment), mock.patch.object(sys, "argv", command):
            try:
                main()
            except SystemExit as end:
                code = end.code
        return subprocess.CompletedProcess(command, int(code or 0), output(), errors())


def kcost_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "kcost", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


@contextmanager
def _stream(name: str) -> Iterator[Callable[[], str]]:
    """Turns a standard stream to a file, also for what writes to the descriptor itself. Gives what reads it."""
    number = {"stdout": 1, "stderr": 2}[name]
    before = os.dup(number)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), number)
        try:
            descriptor = io.FileIO(number, "w", closefd=False)
            with (
                io.TextIOWrapper(descriptor, "utf-8", write_through=True) as stream,
                mock.patch.object(sys, name, stream),
            ):
                yield lambda: os.pread(number, os.fstat(number).st_size, 0).decode()
        finally:
            os.dup2(before, number)
            os.close(before)


def check(finished: subprocess.CompletedProcess[str], code: int, *messages: str) -> None:
    assert finished.returncode == code, finished.stderr
    for text in messages:
        assert text in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""

"""What a server says on standard error where that takes nothing any more: it serves on."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

import pytest

from kcost.cli.shared import tell


class Failing(io.StringIO):
    """A stream that the system refuses to write to, with a descriptor of its own."""

    def __init__(self, number: int, descriptor: int) -> None:
        super().__init__()
        self.number = number
        self.descriptor = descriptor

    def write(self, _: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def fileno(self) -> int:
        return self.descriptor


@pytest.mark.parametrize(("number", "goes"), [(5, True), (32, True), (28, False)])
def test_a_line_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, goes: bool
) -> None:
    """A terminal that hung up (EIO) and a reader that went (EPIPE) do not come back; a full disk has room again."""
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stderr", Failing(number, log.fileno()))
        tell("one")
        tell("two")
        assert os.path.samestat(os.fstat(log.fileno()), Path(os.devnull).stat()) == goes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = 0
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as log:  # closing it fails, too
        monkeypatch.setattr(sys, "stderr", log)
        for lines in range(1, 3):
            tell(str(lines))
        monkeypatch.undo()
    assert lines == 2


def test_a_stream_that_was_closed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    tell("one")

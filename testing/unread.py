"""Streams that nobody reads any more, as of a command in `kcost ... | head -1` once `head` has ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def unread_pipe() -> Iterator[int]:
    """The end of a pipe that is written to, of which nobody has the other end."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    try:
        yield write_fd
    finally:
        os.close(write_fd)


@contextmanager
def unread_stdout() -> Iterator[None]:
    """Standard output of this process as such a pipe."""
    with (
        unread_pipe() as pipe,
        open(pipe, "w", encoding="utf-8", closefd=False) as stream,
        mock.patch.object(sys, "stdout", stream),
    ):
        yield

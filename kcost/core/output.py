"""Texts on a stream that somebody may stop reading: as of `| head -1`, at which the work itself does not end."""

from __future__ import annotations

import errno
import os
from typing import IO

GONE = (errno.EPIPE, errno.EIO)
"""Nobody reads any more: the other end of a pipe was closed, or the terminal hung up."""


def drop_output(stream: IO[str]) -> None:
    """The reader of a pipe (head, less) has gone: what is still said goes nowhere, at exit, too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def say(stream: IO[str], text: str, end: str = "\n") -> bool:
    """Writes a text at once, and drops it where nobody reads the stream any more.

    Returns:
        Whether somebody reads it.
    """
    try:
        print(text, file=stream, end=end, flush=True)
    except OSError as error:
        if error.errno not in GONE:
            raise
        drop_output(stream)
        return False
    return True

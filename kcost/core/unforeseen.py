"""Errors that nobody foresaw: told in a sentence, with the place of a log that holds the traceback.

The log lies in the folder that KCOST_LOG_DIR names, else in kcost's folder in the user's state
($XDG_STATE_HOME, or ~/.local/state). A worker that has a log of its own, as in a run folder, writes there.
"""

from __future__ import annotations

import datetime
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from kcost.core.errors import in_a_line
from kcost.version import __version__

LOG_DIR_VARIABLE = "KCOST_LOG_DIR"
WORKER_LOG_VARIABLE = "KCOST_WORKER_LOG"
"""Set for a worker whose standard error goes to a file: its path."""


def log_folder() -> Path:
    """Where tracebacks of unforeseen errors go."""
    if named := os.environ.get(LOG_DIR_VARIABLE):
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "kcost"


def place_of(error: BaseException) -> str:
    """The error's class, the first line of what it says, and the file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{in_a_line(error)}{where}"


def logged(error: BaseException) -> str:
    """Writes the traceback of an error to a log, and says in a sentence where."""
    own = os.environ.get(WORKER_LOG_VARIABLE)
    if own:
        traceback.print_exception(error)
        return f"The traceback is in {own}."
    now = datetime.datetime.now(datetime.UTC)
    text = "\n".join(
        [
            f"{now.isoformat(timespec='seconds')} kcost {__version__}, Python {sys.version.split()[0]}",
            f"arguments: {sys.argv}",
            "".join(traceback.format_exception(error)),
        ]
    )
    for folder in (log_folder(), Path(tempfile.gettempdir())):
        path = folder / f"kcost-error-{now:%Y%m%dT%H%M%S}-{os.getpid()}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except (OSError, RuntimeError):
            continue
        return f"The traceback is in {path}."
    return f"Its traceback could not be written anywhere: set {LOG_DIR_VARIABLE} to a folder, and try again."


def harmless(log: Callable[[str], None]) -> Callable[[str], None]:
    """The same log, but what it raises ends nothing. The first traceback of that is kept, see `logged`.

    A server tells of what it does in the middle of that: a line that a full disk has no room for must not leave a
    process without its next start, or a client without its answer.
    """
    has_failed = False

    def say(text: str) -> None:
        nonlocal has_failed
        try:
            log(text)
        except Exception as error:
            if not has_failed:
                has_failed = True
                logged(error)

    return say

"""Every error that kcost raises on purpose.

    KcostError
    ├── InputError          exit 2   what the user gave cannot be used
    │   ├── PlanError               a benchmark plan
    │   ├── ArtifactError           an artifact folder or a .keras file
    │   ├── DataError               a data set or a file of one
    │   ├── PriceError              a price book
    │   ├── SchemaError             a file of kcost's own, broken or of another version
    │   └── StorageError            a folder that cannot be written, a full disk
    ├── UnavailableError    exit 3   a backend, device, runtime or extra that is not there
    ├── GateError           exit 1   a check that the user asked for did not hold
    └── WorkerError         exit 2   a worker process ended without its answer

A message has three parts: the rule, what was received, what to do. The library raises; only the
command line prints and exits.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal


class KcostError(Exception):
    """Base of all errors raised on purpose.

    Args:
        rule: what kcost needs, in one sentence.
        received: what it got instead; left out of the message when None.
        remedy: what the user can do; left out of the message when None.
    """

    exit_code = 2

    def __init__(self, rule: str, received: object = None, remedy: str | None = None) -> None:
        self.rule = rule
        self.received = received
        self.remedy = remedy
        parts = [rule]
        if received is not None:
            parts.append(f"Received: {received}")
        if remedy is not None:
            parts.append(remedy)
        super().__init__("\n".join(parts))

    def as_dict(self) -> dict[str, Any]:
        """The error as plain data, to cross a process boundary."""
        received = None if self.received is None else str(self.received)
        return {"type": type(self).__name__, "rule": self.rule, "received": received, "remedy": self.remedy}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> KcostError:
        """The error that `as_dict` described, of the same class."""
        classes = {cls.__name__: cls for cls in _all_subclasses(KcostError)}
        cls = classes.get(str(data["type"]), KcostError)
        parts = (data["rule"], data.get("received"), data.get("remedy"))
        if issubclass(cls, WorkerError):
            return cls(*parts, cause=data["cause"], signal_number=data["signal_number"])
        return cls(*parts)


class InputError(KcostError):
    """What the user gave cannot be used."""


class PlanError(InputError):
    """A benchmark plan that cannot be run."""


class ArtifactError(InputError):
    """An artifact folder or a .keras file that cannot be read."""


class DataError(InputError):
    """A data set, or a file of one, that cannot be read."""


class PriceError(InputError):
    """A price book, or a row of one, that cannot be trusted."""


class SchemaError(InputError):
    """A file of kcost's own that is broken or was written by another version."""


class StorageError(InputError):
    """A folder that cannot be written to, or a full disk."""


class UnavailableError(KcostError):
    """A backend, device, runtime or extra that was asked for is not there."""

    exit_code = 3


class GateError(KcostError):
    """A check that the user asked for did not hold."""

    exit_code = 1


WorkerCause = Literal["timeout", "garbage", "killed", "ended", "unforeseen", "not_started"]
"""timeout: no answer in time. garbage: a line that is no answer. killed: a signal ended the process. ended: it ended by
itself. unforeseen: an error in the worker that nobody foresaw, whose traceback is in a log. not_started: the system had
no room for one more process."""


class WorkerError(KcostError):
    """A worker process ended without giving its answer.

    Args:
        cause: None where several workers, or none, are to blame: `received` says what happened.
        signal_number: the signal that ended the process, where `cause` is "killed".
    """

    def __init__(
        self,
        rule: str,
        received: object = None,
        remedy: str | None = None,
        *,
        cause: WorkerCause | None = None,
        signal_number: int | None = None,
    ) -> None:
        super().__init__(rule, received, remedy)
        self.cause = cause
        self.signal_number = signal_number

    def as_dict(self) -> dict[str, Any]:
        """As KcostError's, with the cause."""
        return {**super().as_dict(), "cause": self.cause, "signal_number": self.signal_number}


_LONGEST_REASON = 300
_KERAS_WRAPS = re.compile(r"(?:Exception|Error) encountered(?: during \w+)?:")
_KERAS_HEADING = re.compile(r"^Exception encountered when calling (?:layer )?(.*?)(?:\.call\(\))?\.?$", re.MULTILINE)
_BOLD = re.compile(r"\x1b\[\d*m")


def in_a_line(error: BaseException) -> str:
    """An error's class and the line that says why, of at most 300 characters: for a cell, a table, another error.

    Keras wraps an error in the whole config of each layer around it, puts a heading in front, and prints it in bold:
    what the innermost says is told, and the layer that the heading names.
    """
    before, *wrapped = _KERAS_WRAPS.split(_BOLD.sub("", str(error)))
    reason = wrapped[-1].strip().removeprefix("''").removesuffix("''") if wrapped else before
    heading = _KERAS_HEADING.search(reason)
    line = first_line(_KERAS_HEADING.sub("", reason))[:_LONGEST_REASON] + (f" (in {heading[1]})" if heading else "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def first_line(text: str) -> str:
    """The first line of a text that is not blank, without the spaces around it; empty where every line is blank.

    Examples:
        >>> first_line("\\n  no such table: studies\\n[SQL: SELECT ...]")
        'no such table: studies'
    """
    return next((line for each in text.splitlines() if (line := each.strip())), "")


def _all_subclasses(cls: type[KcostError]) -> Iterator[type[KcostError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _all_subclasses(sub)


_NO_LOCKS = "The file system there cannot lock files. Name a folder on another one, such as a local disk."
_STORAGE_REMEDIES = {
    errno.EFBIG: "A limit on file sizes was met. Raise it, or name a folder without one.",
    errno.ENOSPC: "The disk is full. Free some space and start again; what was written before stays.",
    errno.EDQUOT: "The disk quota is used up. Free some space and start again; what was written before stays.",
    errno.EROFS: "The file system is read-only. Name another folder.",
    errno.EACCES: "You may not write there. Name another folder or change its permissions.",
    errno.EPERM: "You may not write there. Name another folder or change its permissions.",
    errno.ENOENT: "A folder on the path is not there and cannot be made. Name another one.",
    errno.ENOTDIR: "A part of the path is a file. Name another folder.",
    errno.EEXIST: "A file stands where a folder is needed. Name another folder.",
    errno.ENOLCK: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
    errno.ENOSYS: _NO_LOCKS,
}


@contextmanager
def storage(path: Path | str) -> Iterator[None]:
    """Turns the operating system's refusals to write below `path` into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE_REMEDIES:
            raise
        raise StorageError(
            f"kcost needs to write to {path}.",
            received=f"{error.strerror} ({error.filename or path})",
            remedy=_STORAGE_REMEDIES[error.errno],
        ) from error

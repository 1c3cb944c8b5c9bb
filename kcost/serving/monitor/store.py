"""Samples on disk: JSON lines in segments that are only ever appended to, so that a kill costs no line that was synced.

A process writes segments of its own alone. What it was writing when it was killed ends in a line without its end; a
reader skips that line, and says so.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from kcost.core.errors import StorageError, storage
from kcost.serving.monitor.settings import SampleSettings

SEGMENTS = 10
"""Of the size that is allowed: a tenth of the samples goes at a time."""

SALT_FILE = "salt"
_NAME = re.compile(r"samples-(\d{10})\.jsonl")


class Stored(NamedTuple):
    """What a folder of samples holds."""

    samples: list[dict[str, Any]]
    torn: int
    """Lines that were cut short, and skipped."""


class SampleStore:
    """Writes samples into a folder. What `append` took is safe when `sync` has returned.

    Args:
        settings: where, how much, how long.
        clock: seconds since 1970.

    Raises:
        StorageError: the folder cannot be written to.
    """

    def __init__(self, settings: SampleSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._file: BinaryIO | None = None
        self._written = 0
        self._unsynced = 0
        self.stored = 0
        """Samples that are safe on disk."""
        with storage(settings.folder):
            settings.folder.mkdir(parents=True, exist_ok=True)
            self._salt = _salt(settings.folder)
        self._number = max((number for number, _ in _segments(settings.folder)), default=0)

    def clean(self, value: Any, name: str = "", *, text_ids: frozenset[str] = frozenset()) -> Any:
        """A JSON value as it may be stored: fields dropped or hashed, strings hashed unless texts were asked for.

        Args:
            value: of a request.
            name: of the field that it stands in.
            text_ids: names of fields whose numbers are texts in another form, such as token ids.
        """
        settings = self._settings
        if name in settings.hash or (not settings.text and (name in text_ids or isinstance(value, str))):
            return self._hash(value)
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if k not in settings.drop}
            return {k: self.clean(v, k, text_ids=text_ids) for k, v in kept.items()}
        if isinstance(value, list):
            return [self.clean(v, name, text_ids=text_ids) for v in value]
        return value

    def append(self, sample: dict[str, Any]) -> None:
        """Adds a sample, which is safe after `sync`."""
        line = orjson.dumps(sample, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        with storage(self._settings.folder):
            if self._file is None or self._written + len(line) > self._segment_bytes:
                self._begin()
            assert self._file is not None
            self._file.write(line)
        self._written += len(line)
        self._unsynced += 1

    def sync(self) -> None:
        """Returns when everything that was appended is on disk."""
        if not self._unsynced:
            return
        assert self._file is not None
        with storage(self._settings.folder):
            self._file.flush()
            os.fsync(self._file.fileno())
        self.stored += self._unsynced
        self._unsynced = 0

    def close(self) -> None:
        """Syncs, and ends."""
        self.sync()
        if self._file is not None:
            self._file.close()

    @property
    def _segment_bytes(self) -> float:
        return self._settings.max_mib * (1 << 20) / SEGMENTS

    def _begin(self) -> None:
        """Starts a segment, after what is too old or too much has gone."""
        self.sync()
        if self._file is not None:
            self._file.close()
        self.prune()
        self._number += 1
        path = self._settings.folder / f"samples-{self._number:010d}.jsonl"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._file = os.fdopen(handle, "wb")
        self._written = 0
        sync_folder(self._settings.folder)

    def prune(self) -> None:
        """Removes segments that are too old, and the oldest while there are too many bytes for one more segment."""
        oldest = self._clock() - self._settings.max_days * 86400
        segments = [(number, path, path.stat()) for number, path in _segments(self._settings.folder)]
        total = sum(about.st_size for _, _, about in segments)
        room = self._settings.max_mib * (1 << 20) - self._segment_bytes
        for number, path, about in segments:
            if number == self._number and self._file is not None and not self._file.closed:
                continue
            if about.st_mtime < oldest or total > room:
                path.unlink(missing_ok=True)
                total -= about.st_size

    def _hash(self, value: Any) -> str:
        """Equal values have equal hashes in one folder; the key of the hash never leaves it."""
        plain = json.dumps(value, sort_keys=True).encode()
        return "sha256:" + hmac.new(self._salt, plain, hashlib.sha256).hexdigest()[:32]


def read_samples(folder: Path) -> Stored:
    """All samples of a folder, the oldest first; lines that were cut short are skipped and counted.

    Raises:
        StorageError: the folder cannot be read.
    """
    samples, torn = [], 0
    try:
        for _, path in _segments(folder):
            for line in _lines(path):
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("cut short")
                    samples.append(json.loads(line))
                except ValueError:
                    torn += 1
    except OSError as error:
        raise StorageError("Samples are in a folder that can be read.", received=f"{folder}: {error}") from error
    return Stored(samples, torn)


def sync_folder(folder: Path) -> None:
    """Returns when the names of the files in a folder are on disk: a file that was synced has to be found again."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _segments(folder: Path) -> list[tuple[int, Path]]:
    """Numbers and paths, ascending."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def _salt(folder: Path) -> bytes:
    path = folder / SALT_FILE
    if not path.exists():
        draft = folder / f".{SALT_FILE}.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(32))
        draft.replace(path)
    return path.read_bytes()

"""What was counted of shadows and canaries, in one file that is replaced whole: who reads it, and who begins anew after
a kill, finds the file of before or the new one.

Writing takes as long as the disk does; it is done beside the event loop, one write at a time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from kcost.core.errors import InputError, storage
from kcost.core.schema import VERSIONS, Record, read
from kcost.risk.rollout import Decision, RolloutCounts
from kcost.serving.monitor.settings import Kind
from kcost.serving.monitor.store import sync_folder

Key = tuple[str, Kind, int, int | None]


class StoredRollout(Record):
    """A new version beside an old one."""

    model: str
    kind: Kind
    version: int
    stable: int | None
    counts: RolloutCounts = Field(description="all but rows, which are of `agreement`")
    agreement: RolloutCounts = Field(description="rows that both answered, and those that were answered otherwise")
    unclear: int
    announced: Decision = Field(description="the last decision that was written to the log and the events")

    @property
    def key(self) -> Key:
        """Whom it is of: counts of other versions, or of another kind, say nothing of it."""
        return self.model, self.kind, self.version, self.stable


class _Document(Record):
    schema_: int = Field(default=VERSIONS["rollouts"], alias="schema")
    rollouts: tuple[StoredRollout, ...]


class RolloutStore:
    """The file, which one proxy writes at a time.

    Args:
        file: its path; it is made where it is not there.

    Raises:
        InputError: another process writes it.
        SchemaError: it is damaged, or of a newer kcost.
        StorageError: its folder cannot be written to, or its file system cannot lock files.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._draft = file.with_name(f".{file.name}.draft")
        with storage(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._lock = file.with_name(f".{file.name}.lock").open("ab")
        try:
            with storage(file):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stored = read("rollouts", file, _Document).rollouts if file.exists() else ()
        except BlockingIOError as error:
            self.close()
            raise InputError(
                "A file of rollouts is written by one proxy.",
                received=f"{file}, which another one writes",
                remedy="End that one, or name another file under [rollouts] in monitor.toml.",
            ) from error
        except BaseException:
            self.close()
            raise
        self._rollouts = {rollout.key: rollout for rollout in stored}

    def find(self, key: Key) -> StoredRollout | None:
        """What was counted of it before; None where nothing was."""
        return self._rollouts.get(key)

    def write(self, rollouts: Iterable[StoredRollout]) -> None:
        """Returns when these are on disk, beside what is there of others; does nothing where they are.

        What is there of others stays: a version that was rolled back is the same after another one was tried.

        Raises:
            StorageError, OSError: it cannot be written. The file is that of before.
        """
        together = {**self._rollouts, **{rollout.key: rollout for rollout in rollouts}}
        if together == self._rollouts:
            return
        content = _Document(rollouts=tuple(together.values())).model_dump_json(indent=1) + "\n"
        with storage(self._file):
            try:
                with self._draft.open("w", encoding="utf-8") as draft:
                    draft.write(content)
                    draft.flush()
                    os.fsync(draft.fileno())
                self._draft.replace(self._file)
            except BaseException:
                self._draft.unlink(missing_ok=True)
                raise
            sync_folder(self._file.parent)
        self._rollouts = together

    def close(self) -> None:
        """Lets another process write the file."""
        self._lock.close()

"""The models of a server: which versions are on disk, which are wanted, and bringing the one to the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from kcost.core.conversion import Runtime
from kcost.core.errors import InputError, KcostError, WorkerError
from kcost.serving.config import ModelEntry, read_models, version_folder, versions_in
from kcost.serving.model_process import ModelProcess, ModelRunner
from kcost.serving.model_version import Limits, ModelVersion
from kcost.serving.status import Code, RequestError, invalid
from kcost.serving.version_files import how_to_make, layout, version_files

PATIENCE_S = 5.0
"""A server that has a model to answer waits no longer at its start for another one's trial."""

_MOST_ENDED = 20
"""Versions of a model that are served no more and still told of in its status."""

NewRunner = Callable[[Path, Callable[[], None]], ModelRunner]
"""What makes the runner of a version: from its folder, and what is called when it ends by itself."""


class Models:
    """Every model of a folder, kept as its files say.

    Args:
        folder: see `config.read_models`.
        limits: of each version.
        worker_log: takes what processes print.
        log: told what changes.
        new_runner: what runs a model; a process where it is None.
        runtime: that the models run in.

    Raises:
        InputError: the folder serves nothing.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        worker_log: Path,
        log: Callable[[str], None],
        new_runner: NewRunner | None = None,
        runtime: Runtime = "saved_model",
    ) -> None:
        self._folder = folder
        self._runtime: Runtime = runtime
        self._limits = limits
        self._log = log
        self._new_runner = new_runner or (
            lambda path, on_end: ModelProcess(path, limits.threads, worker_log, on_end, runtime)
        )
        self._entries = {entry.name: entry for entry in read_models(folder, runtime)}
        self._versions: dict[str, dict[int, ModelVersion]] = {entry.name: {} for entry in self._entries.values()}
        self._tried: dict[tuple[str, int], int] = {}
        self._told: list[str] = []
        """What the last look could not read."""
        self._tasks: set[asyncio.Task[None]] = set()

    def all_versions(self) -> list[ModelVersion]:
        """Every version that is or was served."""
        return [version for versions in self._versions.values() for version in versions.values()]

    def ready(self) -> bool:
        """Whether each model has a version that answers."""
        return all(
            any(version.state == "AVAILABLE" for version in self._versions.get(name, {}).values())
            for name in self._entries
        )

    def find(self, name: str, version: int | None = None, label: str | None = None) -> ModelVersion:
        """The version that serves a request: the one named, the one labelled, else the latest.

        Raises:
            RequestError: 404 for a model or version that is not served, 400 for a label that is not known.
        """
        versions = self._versions.get(name, {})
        if label is not None:
            if name not in self._versions:
                raise RequestError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
            labels = self._entries[name].labels if name in self._entries else {}
            if label not in labels:
                raise invalid(f"Unrecognized servable version label: {label}")
            version = labels[label]
        if version is not None:
            named = versions.get(version)
            if named is None or named.state != "AVAILABLE":
                raise RequestError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})")
            return named
        available = [v for v in versions.values() if v.state == "AVAILABLE"]
        if not available:
            raise RequestError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
        return max(available, key=lambda v: v.version)

    def statuses(self, name: str, version: int | None = None, label: str | None = None) -> list[ModelVersion]:
        """The versions that a status tells of, the newest first.

        Raises:
            RequestError: 404 where there is none.
        """
        versions = self._versions.get(name, {})
        if label is not None:
            version = self.find(name, label=label).version
        if version is not None:
            if version not in versions:
                raise RequestError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
            return [versions[version]]
        if not versions:
            raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return [versions[number] for number in sorted(versions, reverse=True)]

    async def load_first(self) -> None:
        """Loads what is wanted now, but waits for no trial that takes long where another version answers already.

        Raises:
            KcostError: not one version could be loaded.
        """
        self.poll()
        while self._tasks and not self._waits_for_trials_alone():
            done, _ = await asyncio.wait(self._tasks, timeout=PATIENCE_S / 10, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        versions = self.all_versions()
        if not any(v.state == "AVAILABLE" for v in versions):
            failures = [v.failure for v in versions if v.failure is not None]
            if failures:
                raise failures[0]
            raise InputError(
                "At least one model has a version that its policy wants.",
                received=", ".join(f"{e.name} in {e.base_path}" for e in self._entries.values()),
                remedy=f"Versions are {layout(self._runtime)}. Export one: {how_to_make(self._runtime)}",
            )

    def _waits_for_trials_alone(self) -> bool:
        """Whether a version answers, and all that are not loaded yet have been at their trials for long."""
        latest_s = time.monotonic() - PATIENCE_S
        loading = [v for v in self.all_versions() if v.state == "LOADING"]
        return any(v.state == "AVAILABLE" for v in self.all_versions()) and all(
            v.trial_since_s is not None and v.trial_since_s < latest_s for v in loading
        )

    async def keep_up(self, period_s: float) -> None:
        """Looks at the files every `period_s`, and at deadlines more often, until it is cancelled."""
        step_s = min(0.05, self._limits.deadline_s / 4)
        looked = time.monotonic()
        while True:
            await asyncio.sleep(step_s)
            now = time.monotonic()
            for version in self.all_versions():
                version.fail_late(now)
            if now - looked >= period_s:
                looked = now
                self.poll()

    def poll(self) -> None:
        """Reads what the files want, and starts to load and unload. What cannot be read changes nothing.

        Files come and go while they are looked at: what went just now is seen at the next look. Where the files of one
        model cannot be read, those of the others are looked at all the same.
        """
        unread = []
        try:
            self._entries = {entry.name: entry for entry in read_models(self._folder, self._runtime)}
        except (KcostError, OSError) as error:
            unread.append(f"what is served stays as it is. {error}")
        else:
            for entry in self._entries.values():
                try:
                    self._bring(entry)
                except (KcostError, OSError) as error:
                    unread.append(f"what is served of {entry.name} stays as it is. {error}")
            for name in self._versions.keys() - self._entries.keys():
                for version in self._versions[name].values():
                    if version.state == "AVAILABLE":
                        self._spawn(self._unload(version))
        for text in unread:
            if text not in self._told:  # told once, not every second
                self._log(text)
        self._told = unread

    def _bring(self, entry: ModelEntry) -> None:
        """Loads what an entry wants, and unloads the rest once something that it wants is served."""
        versions = self._versions.setdefault(entry.name, {})
        wanted = entry.wanted(versions_in(entry.base_path, self._runtime))
        for number in wanted:
            current = versions.get(number)
            if current is None or current.state == "END":
                self._start(entry, number, versions)
        states = {versions[number].state for number in wanted if number in versions}  # one may have gone just now
        if "AVAILABLE" in states and not states & {"START", "LOADING"}:
            for version in versions.values():
                if version.version not in wanted and version.state == "AVAILABLE":
                    self._spawn(self._unload(version))
        ended = [v.version for v in versions.values() if v.state == "END" and v.version not in wanted]
        for number in sorted(ended)[:-_MOST_ENDED]:
            del versions[number]

    def _start(self, entry: ModelEntry, number: int, versions: dict[int, ModelVersion]) -> None:
        """Starts to load a version, unless these very files have failed before."""
        files = version_files(version_folder(entry.base_path, number), self._runtime)
        if files is None:  # it went away just now
            return
        stamp = files.marker.stat().st_mtime_ns
        current = versions.get(number)
        failure = None if current is None else current.failure
        says_nothing = isinstance(failure, WorkerError) and failure.cause == "not_started"  # of these files
        if failure is not None and not says_nothing and self._tried.get((entry.name, number)) == stamp:
            return
        self._tried[entry.name, number] = stamp
        version = ModelVersion(
            *(entry.name, number, self._limits),
            new_runner=lambda on_end: self._new_runner(files.folder, on_end),
            log=self._log,
        )
        version.state = "LOADING"
        versions[number] = version
        self._spawn(self._load(version, str(failure) if says_nothing else ""))

    async def _load(self, version: ModelVersion, failure_before: str) -> None:
        """Loads a version, and tells how that went, unless it is what was told of the try before."""
        await version.load()
        if version.failure is None:
            together = "" if version.rows_together is None else f"; {version.rows_together}"
            self._log(f"{version.name} version {version.version} is available{together}")
        elif str(version.failure) != failure_before:
            self._log(f"{version.name} version {version.version} was not loaded. {version.failure}")

    async def _unload(self, version: ModelVersion) -> None:
        await version.unload()
        self._log(f"{version.name} version {version.version} was unloaded")

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def fail_all(self, error: Callable[[], RequestError]) -> None:
        """Ends every request that has no answer, each with an error of its own."""
        for version in self.all_versions():
            version.fail_all(error)

    async def close(self) -> None:
        """Answers what was accepted and ends every process."""
        for task in self._tasks:  # first: what is loading would be served when everything else has ended
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(version.unload() for version in self.all_versions()))

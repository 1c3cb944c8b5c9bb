"""The workers of one block of cells: one process a backend or runtime, device and number of threads."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, TypeVar

from kcost.bench.watch import Watcher
from kcost.core.conversion import Runtime
from kcost.core.environment import load_1min
from kcost.core.errors import KcostError, StorageError, WorkerError, storage
from kcost.core.jobs import MEASURE
from kcost.core.measuring import (
    FailureAnswer,
    MeasureAnswer,
    MeasureOperation,
    PrepareAnswer,
    PrepareRequest,
    ProfileAnswer,
    ProfileRequest,
    RoundAnswer,
    RoundRequest,
    ScenarioAnswer,
    ScenarioRequest,
    StartRequest,
)
from kcost.core.plan import Backend, CellSpec, Device, Settings
from kcost.core.process import Worker
from kcost.core.profile import Profile
from kcost.core.request import MeasureRequest
from kcost.core.result import Preparation, Round, Status, Watch
from kcost.core.run_cost import EnergyCounter, idle_watts
from kcost.core.scenario import Ask

A = TypeVar("A")


class _Key(NamedTuple):
    """What a worker is started for."""

    backend: Backend
    device: Device
    threads: int
    runtime: Runtime | None


class Prepared(NamedTuple):
    """What is known of a cell that is ready, by the names of the fields of CellResult."""

    preparation: Preparation
    outputs_file: str | None


class CellFailure(Exception):  # noqa: N818 -- it is the outcome of one cell, not an error of the run
    """A cell could not be measured. The run goes on without it."""

    def __init__(self, status: Status, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(f"{status}: {reason}")


class Pool:
    """Prepares and measures cells in workers, and replaces a worker that died.

    One that is given to several calls of `kcost.bench.runner.measure` keeps its workers, and what they hold, between
    them.
    """

    def __init__(self, logs: Path, settings: Settings) -> None:
        self._logs, self._settings = logs, settings
        self._workers: dict[_Key, Worker[MeasureOperation, MeasureAnswer]] = {}
        self._prepared: dict[_Key, set[str]] = {}
        self._started_beside: dict[_Key, int] = {}
        self._files: list[IO[bytes]] = []
        self._watcher = Watcher()
        self._counters: dict[bool, EnergyCounter] = {}
        self._idle_watts: dict[bool, float | None] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self._workers.values():
            if kind is not None:
                worker.kill(wait=False)
            worker.ask_to_end()  # side by side: a process that holds a framework takes a while to end
        for worker in self._workers.values():
            worker.close()
        for file in self._files:
            file.close()

    def take(self, settings: Settings) -> None:
        """Goes on under other settings, such as a shorter timeout."""
        self._settings = settings

    def holds(self, spec: CellSpec) -> bool:
        """Whether a worker that lives has the cell ready."""
        key = _key(spec)
        return self._alive(key) and spec.cell_id in self._prepared[key]

    def start(self, specs: Iterable[CellSpec]) -> None:
        """Starts the workers of these cells that are not there, side by side: most of a start is reading files.

        Nothing is measured meanwhile but the time of the imports, and a preparation says how many others there were.
        """
        specs = list(specs)
        wanted = {_key(spec): spec for spec in specs if not self._alive(_key(spec))}
        for key, spec in wanted.items():
            self._worker(spec).send(StartRequest(runtime=spec.runtime))
            self._started_beside[key] = len(wanted) - 1
        for key in wanted:
            try:
                self._workers[key].receive(self._settings.timeout_s)
            except KcostError:
                # Told by `prepare`, which starts the worker again and meets the same error, cell by cell.
                worker = self._workers.pop(key)
                worker.kill()
                worker.close()
        for gpu in {spec.device == "gpu" for spec in specs} - self._counters.keys():
            self._counters[gpu] = EnergyCounter(gpu=gpu)
            self._idle_watts[gpu] = idle_watts(self._counters[gpu])

    def prepare(self, request: MeasureRequest) -> Prepared:
        """Gets a cell ready.

        Raises:
            CellFailure: it cannot be got ready.
            StorageError: the run folder cannot be written to.
        """
        spec = request.spec
        self._worker(spec)
        operation = PrepareRequest(request=request, started_beside=self._started_beside.get(_key(spec), 0))
        preparation = self._ask(spec, operation, PrepareAnswer).preparation
        self._prepared[_key(spec)].add(spec.cell_id)
        gpu = spec.device == "gpu"
        if (watts := self._idle_watts.get(gpu)) is not None:
            energy = {"idle_watts": watts, "energy_source": self._counters[gpu].source}
            preparation = preparation.model_copy(update=energy)
        outputs = request.outputs_file.name if request.outputs_file.exists() else None
        return Prepared(preparation, outputs)

    def measure(self, request: MeasureRequest, session: str, number: int) -> Round:
        """Gives a cell its turn. A worker that died since is replaced, and the cell prepared again.

        Raises:
            CellFailure: the cell failed in its turn.
        """
        spec = request.spec
        gpu = spec.device == "gpu"
        self._make_ready(request)
        load = load_1min()
        counter = self._counters.get(gpu) if self._idle_watts.get(gpu) is not None else None
        self._watcher.begin([worker.pid for worker in self._workers.values()], gpu=gpu)
        uj_before = counter.read() if counter else None
        operation = RoundRequest(cell_id=spec.cell_id, round_s=self._settings.round_s)
        answer = self._ask(spec, operation, RoundAnswer)
        uj_after = counter.read() if counter else None
        return Round(
            session=session,
            number=number,
            step_ns=answer.step_ns,
            load_1min=load,
            watch=self._watcher.end(answer.cpu_s, gpu=gpu),
            peak_host_bytes=answer.peak_host_bytes,
            energy_uj=counter.spent_uj(uj_before, uj_after) if counter else None,
        )

    def scenario(self, request: MeasureRequest, ask: Ask, longest_s: float) -> tuple[tuple[int, ...], Watch]:
        """Has a cell answer queries while all others sleep: the durations in nanoseconds, and what went on beside it.

        Args:
            longest_s: what this may take, on top of what any answer may.

        Raises:
            CellFailure: the cell failed. Its worker is replaced when it is next asked for something.
        """
        spec = request.spec
        gpu = spec.device == "gpu"
        self._make_ready(request)
        self._watcher.begin([worker.pid for worker in self._workers.values()], gpu=gpu)
        operation = ScenarioRequest(cell_id=spec.cell_id, ask=ask)
        answer = self._ask(spec, operation, ScenarioAnswer, more_s=longest_s)
        return answer.durations_ns, self._watcher.end(answer.cpu_s, gpu=gpu)

    def profile(self, request: MeasureRequest) -> Profile:
        """Where the time of a cell goes; a worker that fails in it costs the profile and nothing else."""
        spec = request.spec
        try:
            self._make_ready(request)
            return self._ask(spec, ProfileRequest(cell_id=spec.cell_id), ProfileAnswer).profile
        except CellFailure as failure:
            known = failure.status if failure.status != "partial" else "crash"
            return Profile(status=known, reason=failure.reason)

    def _make_ready(self, request: MeasureRequest) -> None:
        """Prepares a cell again where its worker has died since, or never held it."""
        if not self.holds(request.spec):
            self.prepare(request)

    def _alive(self, key: _Key) -> bool:
        worker = self._workers.get(key)
        return worker is not None and worker.alive()

    def _worker(self, spec: CellSpec) -> Worker[MeasureOperation, MeasureAnswer]:
        key = _key(spec)
        if not self._alive(key):
            if key in self._workers:
                self._workers[key].close()
            name = f"{spec.runtime or spec.backend}-{spec.device}" + (
                f"-{spec.threads}-threads" if spec.threads else ""
            )
            path = self._logs / f"{name}.log"
            with storage(path):
                file = path.open("ab")
            self._files.append(file)
            self._prepared[key] = set()
            self._started_beside[key] = 0
            # A runtime's process sees no framework: it must not borrow one that its user will not have.
            backend: Backend = "fake" if spec.runtime else spec.backend
            self._workers[key] = Worker(MEASURE, backend, threads=spec.threads, device=spec.device, log=file)
        return self._workers[key]

    def _ask(self, spec: CellSpec, operation: MeasureOperation, kind: type[A], *, more_s: float = 0.0) -> A:
        """The answer of the kind that the operation has. Raises CellFailure where there is none."""
        worker = self._worker(spec)
        kills_before = _oom_kills()
        try:
            answer = worker.ask(operation, self._settings.timeout_s + more_s)
        except WorkerError as error:
            worker.kill()
            if error.signal_number == signal.SIGKILL and _oom_kills() > kills_before:
                raise CellFailure("oom", "the kernel ended the process for want of memory") from error
            raise CellFailure("timeout" if error.cause == "timeout" else "crash", str(error.received)) from error
        except StorageError:
            raise  # no other cell could be stored either
        except KcostError as error:
            raise CellFailure("unsupported", str(error)) from error
        if isinstance(answer, FailureAnswer):
            raise CellFailure(answer.status, answer.reason)
        assert isinstance(answer, kind), f"{type(answer).__name__} to {operation.op!r}"
        return answer


def _key(spec: CellSpec) -> _Key:
    return _Key(spec.backend, spec.device, spec.threads, spec.runtime)


def _oom_kills() -> int:
    """How many processes the kernel has ended for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

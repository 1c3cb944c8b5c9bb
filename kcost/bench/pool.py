"""The workers of one block of cells: one process a backend and device, started when first needed."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import IO, Any

from kcost.core.environment import load_1min
from kcost.core.errors import WorkerError, storage
from kcost.core.plan import CellSpec, Settings
from kcost.core.process import Worker
from kcost.core.request import MeasureRequest
from kcost.core.result import Preparation, Round, Status

_Key = tuple[str, str]


class CellFailure(Exception):  # noqa: N818 -- it is the outcome of one cell, not an error of the run
    """A cell could not be measured. The run goes on without it."""

    def __init__(self, status: Status, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(f"{status}: {reason}")


class Pool:
    """Prepares and measures cells in workers, and replaces a worker that died."""

    def __init__(self, logs: Path, settings: Settings) -> None:
        self._logs, self._settings = logs, settings
        self._workers: dict[_Key, Worker] = {}
        self._prepared: dict[_Key, set[str]] = {}
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self._workers.values():
            if kind is not None:
                worker.kill()
            worker.close()
        for file in self._files:
            file.close()

    def prepare(self, request: MeasureRequest) -> dict[str, Any]:
        """Gets a cell ready; returns the fields of its CellResult that are known then.

        Raises:
            CellFailure: it cannot be got ready.
            KcostError: the worker refused the model itself, which no other cell could use either.
        """
        answer = self._ask(request.spec, {"op": "prepare", "request": request.model_dump(mode="json")})
        self._prepared[_key(request.spec)].add(request.spec.cell_id)
        outputs = request.outputs_file.name if request.outputs_file.exists() else None
        return {"preparation": Preparation.model_validate(answer), "outputs_file": outputs}

    def measure(self, request: MeasureRequest, session: str, number: int) -> Round:
        """Gives a cell its turn. A worker that died since is replaced, and the cell prepared again.

        Raises:
            CellFailure: the cell failed in its turn.
        """
        spec = request.spec
        if not self._alive(spec) or spec.cell_id not in self._prepared[_key(spec)]:
            self.prepare(request)
        load = load_1min()
        answer = self._ask(spec, {"op": "round", "cell_id": spec.cell_id, "round_s": self._settings.round_s})
        return Round(session=session, number=number, step_ns=tuple(answer["step_ns"]), load_1min=load)

    def _alive(self, spec: CellSpec) -> bool:
        worker = self._workers.get(_key(spec))
        return worker is not None and worker.alive()

    def _worker(self, spec: CellSpec) -> Worker:
        key = _key(spec)
        if not self._alive(spec):
            if key in self._workers:
                self._workers[key].close()
            path = self._logs / f"{spec.backend}-{spec.device}.log"
            with storage(path):
                file = path.open("ab")
            self._files.append(file)
            self._prepared[key] = set()
            self._workers[key] = Worker("measure", spec.backend, threads=spec.threads, device=spec.device, log=file)
        return self._workers[key]

    def _ask(self, spec: CellSpec, message: dict[str, Any]) -> dict[str, Any]:
        worker = self._worker(spec)
        kills_before = _oom_kills()
        try:
            answer = worker.ask(message, self._settings.timeout_s)
        except WorkerError as error:
            worker.kill()
            reason = str(error.received)
            status: Status = "timeout" if reason.startswith("timeout") else "crash"
            if "SIGKILL" in reason and _oom_kills() > kills_before:
                status, reason = "oom", "the kernel ended the process for want of memory"
            raise CellFailure(status, reason) from error
        if "status" in answer:
            raise CellFailure(answer["status"], answer["reason"])
        return answer


def _key(spec: CellSpec) -> _Key:
    return (spec.backend, spec.device)


def _oom_kills() -> int:
    """How many processes the kernel has ended for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

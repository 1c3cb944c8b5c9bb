"""Models made by each backend in a process of its own, and their exports. Made once a session."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kcost.core.artifact import open_model
from kcost.core.jobs import Job
from kcost.core.plan import BACKENDS, Backend
from kcost.core.process import Worker, installed, worker_environment
from kcost.core.schema import Record
from kcost.ship import convert as convert_module, export as export_module
from kcost.ship.export_report import ExportReport

RunJob = Callable[..., Any]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one subfolder a backend, of what `make_models` writes."""
    missing = [b for b in BACKENDS if not installed(b)]
    if missing:
        pytest.skip(f"these backends are not installed: {missing}; install kcost[all]")
    root = tmp_path_factory.mktemp("models")
    started = []
    for backend in BACKENDS:
        (root / backend).mkdir()
        home = tmp_path_factory.mktemp(f"keras-{backend}")
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.ship.make_models", str(root / backend)],
                env=worker_environment(backend, 1, str(home)),
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
        )
    for process in started:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode(errors="replace")[-3000:]
    return root


class Exported(NamedTuple):
    model: Path
    out: Path
    report: ExportReport

    @property
    def version(self) -> Path:
        return self.out / self.report.name / str(self.report.version)


@pytest.fixture(scope="session")
def warm_jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunJob]:
    """`run_job` with one worker for each job and backend: starting TensorFlow for each test would take minutes."""
    workers: dict[str, Worker[Any, Any]] = {}
    with (tmp_path_factory.mktemp("logs") / "log").open("wb") as log, contextlib.ExitStack() as stack:

        def run_job(job: Job[Any, Any], backend: Backend, request: Record, **_: object) -> Any:
            key = f"{job.name} {backend}"
            if key not in workers:
                workers[key] = stack.enter_context(Worker(job, backend, device="cpu", threads=1, log=log))
            return workers[key].ask(request)

        yield run_job


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch, warm_jobs: RunJob) -> RunJob:
    """Lets exports and conversions use the warm workers."""
    monkeypatch.setattr(convert_module, "run_job", warm_jobs)
    return warm_jobs


@pytest.fixture(scope="session")
def exported(
    models: Path, warm_jobs: RunJob, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Exported]:
    """The exports of both models of every backend, by backend and kind; one output folder a backend."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_module, "run_job", warm_jobs)
        for backend in BACKENDS:
            out = tmp_path_factory.mktemp(f"exported-{backend}")
            for kind in ("cnn", "bert"):
                file = models / backend / f"{kind}.keras"
                report = export_module.export(open_model(file), out, f"my-{kind}", 3)
                made[backend, kind] = Exported(file, out, report)
    return made


@pytest.fixture(autouse=True)
def _quiet_tensorflow() -> Iterator[None]:
    """The C library reads this when it is loaded."""
    before = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    yield
    if before is None:
        del os.environ["TF_CPP_MIN_LOG_LEVEL"]
    else:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = before

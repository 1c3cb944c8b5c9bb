"""Starting worker processes: the one door from the framework-free side to the frameworks.

A worker is `python -m kcost.worker JOB` with a clean environment for one backend. It speaks JSON lines: a
request on its standard input, an answer on a pipe of its own; what frameworks print goes to standard
error. `core/jobs.py` holds the models of both. While a worker works, the parent sleeps on the pipe.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Generic, Self

from kcost.core.cpu_quota import default_threads
from kcost.core.errors import StorageError, UnavailableError, WorkerError
from kcost.core.job_threads import killed_at_a_stop
from kcost.core.jobs import Answer, Job, Request
from kcost.core.plan import BACKENDS, Backend
from kcost.core.suggestion import did_you_mean
from kcost.core.unforeseen import LOG_DIR_VARIABLE, WORKER_LOG_VARIABLE, log_folder

FRAMEWORKS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
"""Backend -> the module that must be importable for it."""

ANSWER_FD_VARIABLE = "KCOST_ANSWER_FD"

LONGEST_POLL_MS = 2**31 - 1
"""What the system takes in one call; 24 days. A longer wait is several."""


def installed(backend: Backend) -> bool:
    """Whether Keras and the backend's framework can be imported here. Imports neither."""
    if backend == "fake":
        return True
    return all(importlib.util.find_spec(module) is not None for module in (FRAMEWORKS[backend], "keras"))


def version_of(package: str) -> str | None:
    """Version of an installed distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def require(backend: str) -> Backend:
    """The backend by name.

    Raises:
        UnavailableError: no such backend, or its framework is not installed.
    """
    if backend not in (*BACKENDS, "fake"):
        raise UnavailableError(
            f"A backend is one of {', '.join(BACKENDS)}.",
            received=repr(backend),
            remedy=f"{did_you_mean(backend, BACKENDS)}Set KERAS_BACKEND, or --backend, to one of them.",
        )
    if not installed(backend):
        raise UnavailableError(
            f"The {backend} backend needs {FRAMEWORKS[backend]} and keras.",
            received="an environment without them",
            remedy=f"Install them: pip install 'kcost[{backend}]'",
        )
    return backend


def chosen_backend() -> Backend:
    """The backend in KERAS_BACKEND, else the first that is installed, in Keras's own order.

    Raises:
        UnavailableError: KERAS_BACKEND names none that is installed, or none is.
    """
    named = os.environ.get("KERAS_BACKEND")
    if named:
        return require(named)
    for backend in BACKENDS:
        if installed(backend):
            return backend
    return require(BACKENDS[0])


def worker_environment(backend: Backend, threads: int, keras_home: str, device: str = "any") -> dict[str, str]:
    """The environment variables of a worker: this process's own, with what decides speed set.

    `threads` is the number of CPU threads, 0 for `default_threads`. Pools are told in every framework's own
    variable; the worker also pins itself to as many cores, which is what XLA on CPU listens to.
    """
    count = str(threads or default_threads())
    environment = dict(os.environ)
    environment.update(
        KERAS_BACKEND="numpy" if backend == "fake" else backend,
        KERAS_HOME=keras_home,
        TF_CPP_MIN_LOG_LEVEL="3",
        TF_NUM_INTRAOP_THREADS=count,
        TF_NUM_INTEROP_THREADS="1",
        OMP_NUM_THREADS=count,
        OPENBLAS_NUM_THREADS=count,
        MKL_NUM_THREADS=count,
        PYTHONHASHSEED="0",
        # A worker takes what it needs of an accelerator's memory, so that peaks mean something.
        XLA_PYTHON_CLIENT_PREALLOCATE="false",
        TF_FORCE_GPU_ALLOW_GROWTH="true",
        # Frameworks look for hubs and telemetry; a measurement needs neither.
        HF_HUB_OFFLINE="1",
        GRPC_VERBOSITY="ERROR",
    )
    if device == "cpu":
        environment.update(CUDA_VISIBLE_DEVICES="-1", JAX_PLATFORMS="cpu")
    return environment


class Worker(Generic[Request, Answer]):
    """A running worker process of one job. Use it as a context manager: leaving the block ends the process."""

    def __init__(
        self,
        job: Job[Request, Answer],
        backend: Backend,
        *,
        threads: int = 0,
        device: str = "any",
        log: IO[bytes] | None = None,
        shows_progress: bool = False,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        """Starts `python -m kcost.worker JOB`.

        Args:
            log: takes what it prints; None passes it on to this process's standard error.
            shows_progress: passes on the standard output of a job that tells progress there; the log takes the rest.
            pass_fds: file descriptors that the process inherits under the same numbers.
        """
        self.backend = backend
        self.job = job
        with contextlib.ExitStack() as undo:  # what is left behind where the process cannot be started
            read_fd, write_fd = os.pipe()
            undo.callback(os.close, read_fd)
            try:
                self._home = tempfile.TemporaryDirectory(prefix="kcost-keras-")
                undo.callback(self._home.cleanup)
                environment = worker_environment(backend, threads, self._home.name, device)
                environment[ANSWER_FD_VARIABLE] = str(write_fd)
                environment[WORKER_LOG_VARIABLE] = "" if log is None else str(Path(log.name).absolute())
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "kcost.worker", job.name],
                    stdin=subprocess.PIPE,
                    stdout=_standard_error() if log is None or (shows_progress and job.tells_progress) else log,
                    stderr=log,
                    pass_fds=(write_fd, *pass_fds),
                    env=environment,
                    start_new_session=log is not None and not shows_progress,
                )
            finally:
                os.close(write_fd)
            self._answers = os.fdopen(read_fd, "rb", buffering=0)
            undo.pop_all()
        self._pending = b""

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def ask(self, request: Request, timeout_s: float | None = None) -> Answer:
        """Sends one request and sleeps until its answer is there.

        Raises:
            KcostError: the worker reported one; it is raised here as the same class.
            WorkerError: the worker ended, wrote garbage, or gave no answer in time; `cause` says which.
        """
        self.send(request)
        return self.receive(timeout_s)

    def send(self, request: Request) -> None:
        """Sends a request without waiting for the answer; a dead worker shows at `receive`."""
        assert self._process.stdin is not None
        # Of a process that has ended `receive` says how, with the exit status at hand.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(self.job.request_line(request))
            self._process.stdin.flush()

    def receive(self, timeout_s: float | None = None) -> Answer:
        """Sleeps until the next answer. Raises as `ask` does."""
        line = self._read_line(timeout_s)
        try:
            return self.job.read_answer(line)
        except ValueError as error:
            raise WorkerError(
                f"A {self.backend} worker answers in JSON.", received=f"garbage: {line[:120]!r}", cause="garbage"
            ) from error

    def _read_line(self, timeout_s: float | None) -> bytes:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        poll = select.poll()  # `select.select` knows descriptors below 1024 alone, and a server has more of them
        poll.register(self._answers, select.POLLIN)
        while b"\n" not in self._pending:
            left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not poll.poll(None if left_ms is None else min(left_ms, LONGEST_POLL_MS)):
                if deadline is not None and time.monotonic() < deadline:
                    continue
                self.kill()
                raise WorkerError(
                    f"A {self.backend} worker answers within {timeout_s:g} s.",
                    received="timeout: no answer; the worker was ended",
                    remedy="Raise settings.timeout_s in the plan if the model needs longer.",
                    cause="timeout",
                )
            chunk = self._answers.read(1 << 16)
            if not chunk:
                raise self._ended()
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def _ended(self) -> WorkerError:
        """What is raised for a process that ended without its answer."""
        code = self._process.wait()
        rule = f"A {self.backend} worker stays alive until it is done."
        if code < 0:
            name = signal.Signals(-code).name
            return WorkerError(rule, f"the process was killed by {name}", cause="killed", signal_number=-code)
        return WorkerError(rule, f"the process ended with exit code {code}", cause="ended")

    def kill(self, *, wait: bool = True) -> None:
        """Ends the process at once; without `wait` it is left to `close` to see it gone."""
        self._process.kill()
        if wait:
            self._process.wait()

    def ask_to_end(self) -> None:
        """Closes the input of the process, which ends it, and does not wait; `close` does."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which is what closing is for
            self._process.stdin.close()

    def close(self) -> None:
        """Asks the process to end; kills it after 5 seconds."""
        self.ask_to_end()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
        self._answers.close()
        self._home.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self.kill()
        self.close()


LAST_LINES = 20
"""Of a worker's log, that are told when it fails."""


def _standard_error() -> int:
    """The descriptor of standard error, also where a notebook or an editor has put another object in its place."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return 2


def run_job(
    job: Job[Request, Answer],
    backend: Backend,
    request: Request,
    *,
    device: str = "any",
    log: Path | None = None,
    timeout_s: float | None = None,
    quiet: bool = False,
) -> Answer:
    """Runs one job to its end in a fresh worker of `backend` and returns its answer.

    Args:
        job: one of those in `core/jobs.py`.
        device: cpu hides all others from the worker.
        log: takes what the worker prints. None: its progress goes to standard error, all else to a log that is kept and
            told of where the worker fails.
        timeout_s: most that it may take; None for as long as it takes.
        quiet: its progress goes to the log, too.

    Raises:
        KcostError: whatever the job raised, as the same class.
        WorkerError: the worker ended without an answer, or gave none in time.
    """
    own = log is None
    path = _own_log(job.name) if log is None else log
    keep = not own
    try:
        with path.open("ab") as file:
            shown = own and not quiet
            with (
                Worker(job, backend, device=device, log=file, shows_progress=shown) as worker,
                killed_at_a_stop(partial(worker.kill, wait=False)),
            ):
                return worker.ask(request, timeout_s)
    except WorkerError as error:
        keep = True
        if error.cause == "unforeseen":
            raise  # the worker told of itself, and where its log is
        last = path.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
        printed = "\n  ".join(["It last printed:", *last]) if last else "It printed nothing."
        raise WorkerError(
            error.rule,
            f"{error.received}. {printed}",
            f"See {path}.",
            cause=error.cause,
            signal_number=error.signal_number,
        ) from error
    finally:
        if not keep:
            path.unlink(missing_ok=True)


def _own_log(name: str) -> Path:
    """A new log in kcost's folder of logs, or in the system's for temporary files."""
    for folder in (log_folder(), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError, RuntimeError):
            folder.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(prefix=f"kcost-{name}-", suffix=".log", dir=folder)
            os.close(handle)
            return Path(path)
    raise StorageError(
        "A worker's messages go to a log.", "no folder that can be written to", f"Set {LOG_DIR_VARIABLE} to one."
    )

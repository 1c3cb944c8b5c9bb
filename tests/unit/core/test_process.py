from __future__ import annotations

import dataclasses
import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kcost.core.cpu_quota import default_threads
from kcost.core.errors import DataError, KcostError, PlanError, UnavailableError, WorkerError
from kcost.core.jobs import DEVICES, MEASURE
from kcost.core.measuring import ReleaseRequest, StartRequest
from kcost.core.process import ANSWER_FD_VARIABLE, Worker, chosen_backend, require, run_job, worker_environment
from kcost.core.request import DevicesRequest
from testing.quotas import under_quota


def test_an_error_crosses_a_process_boundary_as_the_same_class() -> None:
    error = PlanError("A rule.", received=3, remedy="Do that.")
    again = KcostError.from_dict(error.as_dict())
    assert (type(again), str(again), again.exit_code) == (PlanError, str(error), 2)
    assert str(error) == "A rule.\nReceived: 3\nDo that."


def test_what_ended_a_worker_crosses_it_too() -> None:
    error = WorkerError("A rule.", 3, cause="killed", signal_number=9)
    again = KcostError.from_dict(json.loads(json.dumps(error.as_dict())))
    assert isinstance(again, WorkerError)
    assert (again.cause, again.signal_number, str(again)) == ("killed", 9, str(error))


def test_backends_are_named_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match="one of tensorflow, jax, torch"):
        require("mxnet")
    monkeypatch.setenv("KERAS_BACKEND", "mxnet")
    with pytest.raises(UnavailableError, match="Received: 'mxnet'"):
        chosen_backend()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert chosen_backend() == "jax"


def test_a_backend_that_is_not_installed_says_how_to_install_it() -> None:
    code = (
        "from kcost.worker.isolate import hide; hide(['torch']);"
        "from kcost.core.process import require; from kcost.core.errors import KcostError\n"
        "try: require('torch')\nexcept KcostError as e: print(e); raise SystemExit(e.exit_code)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.returncode == 3
    assert "pip install 'kcost[torch]'" in child.stdout


def test_a_worker_gets_its_threads_and_keeps_off_the_gpu_for_cpu_cells() -> None:
    there = worker_environment("jax", 1, "/home", device="cpu")
    assert (there["KERAS_BACKEND"], there["OMP_NUM_THREADS"], there["CUDA_VISIBLE_DEVICES"]) == ("jax", "1", "-1")
    # How threads wait is left as users have it: PyTorch's would be woken for each operation.
    assert there.get("OMP_WAIT_POLICY") == os.environ.get("OMP_WAIT_POLICY")
    every = worker_environment("jax", 0, "/home", device="gpu")
    assert every["OMP_NUM_THREADS"] == str(default_threads())
    assert every.get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_a_worker_has_no_more_threads_than_a_quota_has_cores_unless_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcost.core.cpu_quota.os.sched_getaffinity", lambda _: {0, 1})
    assert worker_environment("torch", 0, "/home")["TF_NUM_INTRAOP_THREADS"] == str(default_threads())
    under_quota(tmp_path, monkeypatch, 1.0)
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert worker_environment("torch", 0, "/home")[variable] == "1"
        assert worker_environment("torch", 2, "/home")[variable] == "2"


def test_an_error_that_nobody_foresaw_is_a_worker_error_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path))
    with pytest.raises(WorkerError, match=r"ModuleNotFoundError: .*backends\.numpy.* \(.+:\d+\)") as raised:
        run_job(DEVICES, "fake", DevicesRequest())  # which has no devices
    assert raised.value.cause == "unforeseen"


def test_a_worker_that_was_killed_says_by_what() -> None:
    with Worker(MEASURE, "fake") as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="killed by SIGKILL") as raised:
            worker.ask(ReleaseRequest())
        assert (raised.value.cause, raised.value.signal_number) == ("killed", signal.SIGKILL)
        assert not worker.alive()


def test_a_worker_that_ended_by_itself_is_no_killed_one(tmp_path: Path) -> None:
    unknown = dataclasses.replace(MEASURE, name="no job")
    with pytest.raises(WorkerError, match=r"(?s)ended with exit code 2.*did not start: KeyError: 'no job'") as raised:
        run_job(unknown, "fake", ReleaseRequest(), log=tmp_path / "log")
    assert (raised.value.cause, raised.value.signal_number) == ("ended", None)


def test_a_worker_that_is_asked_to_end_does_and_is_closed_after(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log, Worker(MEASURE, "fake", log=log) as worker:
        worker.ask(StartRequest(), 60)
        worker.ask_to_end()
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # it ends without anybody closing it
        worker.close()
        assert not worker.alive()


def test_a_worker_ends_without_a_last_walk_over_all_that_it_holds() -> None:
    code = (
        "import atexit, gc; from kcost.worker.__main__ import main;"
        "atexit.register(lambda: print(len(gc.get_objects()))); main('devices')"
    )
    environment = {**worker_environment("fake", 1, ""), ANSWER_FD_VARIABLE: "2"}
    child = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert (child.returncode, child.stderr) == (0, "")
    assert int(child.stdout) < 100


def test_a_worker_that_is_late_is_ended() -> None:
    with Worker(MEASURE, "fake") as worker:
        with pytest.raises(WorkerError, match="no answer") as raised:
            worker.receive(timeout_s=0)  # nothing was asked
        assert (raised.value.cause, worker.alive()) == ("timeout", False)


def test_a_deliberate_error_of_a_job_comes_back_as_itself() -> None:
    with pytest.raises(DataError, match="Received: 1"):
        raise KcostError.from_dict(DataError("x", 1).as_dict())


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_a_worker_starts_where_standard_error_is_no_file(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)  # as in a notebook's kernel, or an editor's console
    run_job(MEASURE, "fake", StartRequest())


def test_what_a_worker_prints_is_told_only_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path))
    run_job(MEASURE, "fake", StartRequest())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WorkerError, match=r"(?s)It last printed:.*KeyError: 'no job'") as raised:
        run_job(dataclasses.replace(MEASURE, name="no job"), "fake", ReleaseRequest())
    (log,) = tmp_path.glob("kcost-no job-*.log")
    assert str(log) in str(raised.value)
    assert capfd.readouterr().err == ""


def test_what_libraries_print_goes_to_the_log_and_progress_of_kcost_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_log: list[bool] = []

    class Started(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            in_the_log.append(options["stdout"] is options["stderr"])
            super().__init__(*args, **options)

    monkeypatch.setattr("kcost.core.process.subprocess.Popen", Started)
    run_job(MEASURE, "fake", StartRequest())
    run_job(dataclasses.replace(MEASURE, tells_progress=True), "fake", StartRequest())
    assert in_the_log == [True, False]


def test_a_worker_answers_where_a_thousand_files_are_open() -> None:
    """`select.select` takes no descriptor from 1024 on; a server has one for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with pytest.raises(WorkerError, match="runs to its end") as raised:
            run_job(DEVICES, "fake", DevicesRequest(), quiet=True)  # which has no devices, and says so
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.cause == "unforeseen"


def test_a_worker_may_have_longer_than_the_system_waits_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with Worker(MEASURE, "fake") as worker:
        worker.ask(StartRequest(), timeout_s=1e9)  # milliseconds of it are no C int
        monkeypatch.setattr("kcost.core.process.LONGEST_POLL_MS", 1)
        worker.ask(ReleaseRequest(), timeout_s=60)
        with pytest.raises(WorkerError, match=r"within 0\.2 s") as raised:
            worker.receive(timeout_s=0.2)  # nothing was asked
        assert raised.value.cause == "timeout"
    with Worker(MEASURE, "fake") as starting:  # which takes far longer than a millisecond
        starting.ask(StartRequest(), timeout_s=60)

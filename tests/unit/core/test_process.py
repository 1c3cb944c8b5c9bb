from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kcost.core.errors import DataError, KcostError, PlanError, UnavailableError, WorkerError
from kcost.core.process import Worker, chosen_backend, require, run_job, worker_environment


def test_an_error_crosses_a_process_boundary_as_the_same_class() -> None:
    error = PlanError("A rule.", received=3, remedy="Do that.")
    again = KcostError.from_dict(error.as_dict())
    assert (type(again), str(again), again.exit_code) == (PlanError, str(error), 2)
    assert str(error) == "A rule.\nReceived: 3\nDo that."


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
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 3
    assert "pip install 'kcost[torch]'" in found.stdout


def test_a_worker_gets_its_threads_and_keeps_off_the_gpu_for_cpu_cells() -> None:
    there = worker_environment("jax", 1, "/home", device="cpu")
    assert (there["KERAS_BACKEND"], there["OMP_NUM_THREADS"], there["CUDA_VISIBLE_DEVICES"]) == ("jax", "1", "-1")
    # How threads wait is left as users have it: PyTorch's would be woken for each operation.
    assert there.get("OMP_WAIT_POLICY") == os.environ.get("OMP_WAIT_POLICY")
    every = worker_environment("jax", 0, "/home", device="gpu")
    assert every["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
    assert every.get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_an_unknown_request_is_a_worker_error_with_its_place() -> None:
    with pytest.raises(WorkerError, match=r"KeyError: 'op' \(measure\.py:\d+\)"):
        run_job("measure", "fake", {})


def test_a_worker_that_died_says_how() -> None:
    with Worker("measure", "fake") as worker:
        os.kill(worker.pid, 9)
        with pytest.raises(WorkerError, match="killed by SIGKILL"):
            worker.ask({"op": "release"})
        assert not worker.alive()


def test_a_deliberate_error_of_a_job_comes_back_as_itself() -> None:
    with pytest.raises(DataError, match="Received: 1"):
        raise KcostError.from_dict(DataError("x", 1).as_dict())

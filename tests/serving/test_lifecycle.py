"""A server with real processes: versions that come and go, a process that is killed, and an end that answers.

What of this needs no process is in tests/unit/serving.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from kcost.runtimes.protobuf import encode
from tests.serving.conftest import Client, Response, RunningServer
from tests.serving.grpc_client import HEALTH, GrpcClient, refused


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def slow(server: RunningServer, milliseconds: float) -> Response:
    return server.predict({"signature_name": "slow", "instances": [milliseconds]})


def states(server: RunningServer) -> dict[str, str]:
    document = server.get("/v1/models/half_plus_two").json
    return {v["version"]: v["state"] for v in document["model_version_status"]}


def test_the_life_of_a_server(saved_models: Path, tmp_path: Path) -> None:
    base = tmp_path / "half_plus_two"
    shutil.copytree(saved_models / "half_plus_two" / "1", base / "1")
    server = RunningServer(tmp_path, "--poll-s", "0.1", "--grpc-port", "0")
    client = GrpcClient(server.started["grpc_address"])
    with ThreadPoolExecutor(6) as pool:
        assert server.started["versions"] == [{"model": "half_plus_two", "version": 1, "state": "AVAILABLE"}]

        # A second version comes while requests go on: none fails, and the first one answers what it accepted.
        over, answers = threading.Event(), []

        def ask() -> None:
            while not over.wait(0.02):
                answers.append(server.predict({"instances": [2.0]}))

        asking = pool.submit(ask)
        accepted = pool.submit(slow, server, 300)
        shutil.copytree(saved_models / "half_plus_two" / "2", tmp_path / "2")
        (tmp_path / "2").rename(base / "2")  # as an export does: whole, in one step
        wait_for(lambda: states(server) == {"2": "AVAILABLE", "1": "END"})
        over.set()
        asking.result()
        assert accepted.result().json == {"predictions": [300.0]}
        assert {answer.status for answer in answers} == {200}
        assert {answer.json["predictions"][0] for answer in answers} <= {3.0, 4.0}
        assert server.predict({"instances": [2.0]}).json == {"predictions": [4.0]}
        assert server.post("/v1/models/half_plus_two/versions/1:predict", {"instances": [1.0]}).status == 404

        # A version that cannot be loaded leaves the one that is served.
        (base / "5").mkdir()
        (base / "5" / "saved_model.pb").write_bytes(b"no model")
        wait_for(lambda: states(server) == {"5": "END", "2": "AVAILABLE", "1": "END"})
        status = server.get("/v1/models/half_plus_two/versions/5").json["model_version_status"][0]["status"]
        assert "saved_model.pb" in status["error_message"]
        assert server.predict({"instances": [2.0]}).json == {"predictions": [4.0]}

        # The process is killed: what it was given is run again.
        given = [pool.submit(slow, server, 400 + i) for i in range(4)]
        time.sleep(0.2)
        (killed,) = server.workers()
        os.kill(killed, signal.SIGKILL)
        assert [answer.result().json for answer in given] == [{"predictions": [400.0 + i]} for i in range(4)]
        assert server.workers() != [killed]
        metrics = server.get("/monitoring/prometheus/metrics").body.decode()
        assert 'kcost_serving_process_restarts_total{model_name="half_plus_two",version="2"} 1' in metrics

        # The end answers what was accepted, and leaves no process.
        health = client.channel.unary_stream(f"/{HEALTH}/Watch")(b"", timeout=60)
        assert next(health) == encode(1, 1)  # SERVING
        last = [pool.submit(slow, server, 300) for _ in range(4)]
        called = pool.submit(client.predict, {"milliseconds": np.array([300], np.float32)}, signature="slow")
        time.sleep(0.2)
        workers = server.workers()
        code, errors = server.stop()
        assert [answer.result().status for answer in last] == [200] * 4
        assert called.result()["steps"].tolist() == [300.0]
        assert list(health) == [encode(1, 2)]  # NOT_SERVING
        with refused(grpc.StatusCode.UNAVAILABLE):
            client.predict({"x": np.ones(1, np.float32)})
    assert code == 0, errors
    assert "half_plus_two version 5 was not loaded" in errors
    assert "it is started again" in errors
    assert "Traceback" not in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_loading_runs_no_signature_that_changes_the_model(saved_models: Path) -> None:
    server = RunningServer(saved_models / "counter")
    try:
        assert server.predict({"instances": [1.0]}, "counter").json == {"predictions": [1.0]}
        assert server.predict({"signature_name": "train", "instances": [1.0]}, "counter").json == {"predictions": [1.0]}
        assert server.predict({"instances": [1.0]}, "counter").json == {"predictions": [2.0]}
    finally:
        code, errors = server.stop()
    assert code == 0, errors


def test_a_model_that_zeros_end_or_hold_is_served_and_holds_up_no_other(saved_models: Path, tmp_path: Path) -> None:
    """The calls of a trial are the server's own: what TensorFlow Serving serves is served."""
    for name in ("aborts", "hangs", "images"):
        shutil.copytree(saved_models / name, tmp_path / name)
    server = RunningServer(tmp_path, "--trial-s", "9", "--deadline-s", "1")

    def status(name: str) -> dict[str, Any]:
        (version,) = server.get(f"/v1/models/{name}").json["model_version_status"]
        return {"state": version["state"], **version["status"]}

    try:
        started = {v["model"]: v["state"] for v in server.started["versions"]}
        assert started == {"aborts": "AVAILABLE", "hangs": "LOADING", "images": "AVAILABLE"}
        assert status("images") == {"state": "AVAILABLE", "error_code": "OK", "error_message": ""}
        aborted = status("aborts")
        assert (aborted["state"], aborted["error_code"]) == ("AVAILABLE", "OK")
        assert "Served without a trial: " in aborted["error_message"]
        assert "SIGABRT" in aborted["error_message"]
        assert server.predict({"instances": [1.5]}, "aborts").json == {"predictions": [3.0]}
        # Its process ends twice: 500, or 504 where that takes longer than the deadline.
        assert server.predict({"instances": [0.0]}, "aborts").status in (500, 504)
        wait_for(lambda: status("hangs")["state"] == "AVAILABLE")
        assert "did not end within 9 s" in status("hangs")["error_message"]
        assert server.predict({"instances": [1.5]}, "hangs").json == {"predictions": [3.0]}
        assert server.predict({"instances": [0.0]}, "hangs").status == 504
        # The process is ended, and another one in its place is made no such calls, which it would end in again.
        wait_for(lambda: server.predict({"instances": [1.5]}, "hangs").json == {"predictions": [3.0]})
        wait_for(lambda: server.predict({"instances": [1.5]}, "aborts").json == {"predictions": [3.0]})
    finally:
        code, errors = server.stop()
    assert code == 0, errors
    assert errors.count("is served without a trial") == 2
    assert "Traceback" not in errors


@pytest.mark.parametrize("errors", [subprocess.DEVNULL, subprocess.STDOUT])
def test_a_server_whose_reader_goes_serves_on(saved_models: Path, errors: int) -> None:
    """Scripts read the first line to wait for the start, and close the pipe."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kcost", "serve", str(saved_models / "images"), "--threads", "1"]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=errors)
    assert process.stdout is not None
    process.stdout.close()
    client = Client(f"http://127.0.0.1:{port}")

    def is_served() -> bool:
        with contextlib.suppress(OSError):
            return client.get("/v2/health/ready").status == 200
        assert process.poll() is None
        return False

    try:
        wait_for(is_served)
    finally:
        process.terminate()
        process.wait(60)
    assert process.returncode == 0


def test_a_server_that_is_killed_leaves_no_process(saved_models: Path) -> None:
    server = RunningServer(saved_models / "images")
    workers = server.workers()
    assert len(workers) == 1
    server.process.kill()
    server.process.communicate()
    wait_for(lambda: not Path(f"/proc/{workers[0]}").exists())


def test_metrics_have_the_names_of_tensorflow_serving(server: RunningServer) -> None:
    server.predict({"instances": [1.0]})
    server.predict({"instances": ["x"]})
    server.post("/v1/models/none:predict", {"instances": [1.0]})
    page = server.get("/monitoring/prometheus/metrics")
    text = page.body.decode()
    assert page.headers["content-type"].startswith("text/plain")
    assert re.search(r'^:tensorflow:serving:request_count\{model_name="half_plus_two",status="OK"\} \d+$', text, re.M)
    assert 'request_count{model_name="half_plus_two",status="INVALID_ARGUMENT"}' in text
    assert "none" not in text
    latency = ':tensorflow:serving:request_latency_bucket{model_name="half_plus_two",API="Predict",entrypoint="REST"'
    assert latency + ',le="+Inf"}' in text


def test_a_long_answer_is_compressed_where_the_client_takes_it(server: RunningServer) -> None:
    body = json.dumps({"instances": [0.5] * 3000}).encode()
    path = "/v1/models/half_plus_two:predict"
    answer = server.ask("POST", path, body, accept_encoding="gzip, deflate")
    assert answer.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.body)) == {"predictions": [3.25] * 3000}
    assert "content-encoding" not in server.ask("POST", path, body).headers

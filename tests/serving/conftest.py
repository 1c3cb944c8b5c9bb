"""A server with the models of the serving tests, made once a session; or a real TensorFlow Serving in its place."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kcost.core.process import installed, worker_environment

TFS_URL = os.environ.get("KCOST_TFS_URL")
"""Of a TensorFlow Serving with the folder that `python -m tests.serving.make_saved_models FOLDER` makes, and its
models.config: the conformance tests then run against it."""

TFS_GRPC = os.environ.get("KCOST_TFS_GRPC")
"""HOST:PORT of the gRPC of such a server; needed beside KCOST_TFS_URL for the conformance tests of gRPC."""

OIP_URL = os.environ.get("KCOST_OIP_URL")
"""Of a server that speaks the Open Inference Protocol and has those models; TensorFlow Serving does not speak it."""

MADE_BEFORE = os.environ.get("KCOST_SERVING_MODELS")
"""A folder that `make_saved_models` made before: it imports tensorflow, which takes most of the time of these tests."""

for package in ("uvicorn", "orjson", "httptools", "google.protobuf", "grpc"):
    pytest.importorskip(package, reason="install kcost[grpc]")

from tests.serving.grpc_client import GrpcClient  # noqa: E402


class Response(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        document = self.json
        assert document.keys() == {"error"}
        assert isinstance(document["error"], str)
        return document["error"]


class Client:
    """Asks a server as any client does."""

    def __init__(self, url: str) -> None:
        self.url = url
        host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
        self.address = (host, int(port or 80))

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=names)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Response(response.status, response.read(), dict(response.headers))
        except urllib.error.HTTPError as error:
            return Response(error.code, error.read(), dict(error.headers))

    def get(self, path: str) -> Response:
        return self.ask("GET", path)

    def post(self, path: str, document: Any) -> Response:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.ask("POST", path, body)

    def predict(self, document: Any, model: str = "half_plus_two") -> Response:
        return self.post(f"/v1/models/{model}:predict", document)

    def raw(self, content: bytes, *, end: bool = False) -> bytes:
        """What comes back for bytes of any kind, until the server closes; `end` closes this side first."""
        with socket.create_connection(self.address, timeout=30) as connection:
            connection.sendall(content)
            if end:
                connection.shutdown(socket.SHUT_WR)
            pieces = []
            while piece := connection.recv(1 << 16):
                pieces.append(piece)
            return b"".join(pieces)


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SavedModels, made by one process for all test processes."""
    if MADE_BEFORE:
        return Path(MADE_BEFORE)
    if not installed("tensorflow"):
        pytest.skip("tensorflow is not installed; install kcost[tensorflow]")
    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    folder = base / "serving-models"
    with (base / "serving-models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "models.config").exists():
            home = tmp_path_factory.mktemp("keras")
            made = subprocess.run(
                [sys.executable, "-m", "tests.serving.make_saved_models", str(folder)],
                env=worker_environment("tensorflow", 1, str(home), "cpu"),
                capture_output=True,
            )
            assert made.returncode == 0, made.stderr.decode(errors="replace")[-3000:]
    return folder


class RunningServer(Client):
    """`kcost serve` in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "kcost", "serve", str(folder), "--port", "0", "--threads", "1", "--json"]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.rstrip() == "}":
                break
        else:
            raise AssertionError(self.process.communicate()[1])
        self.started = json.loads("".join(lines))
        super().__init__(self.started["url"])

    def workers(self) -> list[int]:
        """Process ids of what runs the models."""
        import psutil

        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def stop(self) -> tuple[int, str]:
        """Ends it as a service manager does; the exit code, and what it printed as progress."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture(scope="session")
def server(saved_models: Path) -> Iterator[RunningServer]:
    """One server for the tests that change nothing of it."""
    running = RunningServer(saved_models, "--client-timeout-s", "2", "--most-mib", "1", "--grpc-port", "0")
    yield running
    code, errors = running.stop()
    assert code == 0, errors
    assert "Traceback" not in errors


@pytest.fixture(scope="session")
def serving(request: pytest.FixtureRequest) -> Client:
    """What the conformance tests ask: KCOST_TFS_URL, else `kcost serve`."""
    return Client(TFS_URL) if TFS_URL else request.getfixturevalue("server")


@pytest.fixture(scope="session")
def grpc_serving(request: pytest.FixtureRequest) -> GrpcClient:
    """The gRPC that the conformance tests call: KCOST_TFS_GRPC, else `kcost serve`."""
    return GrpcClient(TFS_GRPC or request.getfixturevalue("server").started["grpc_address"])


@pytest.fixture(scope="session")
def inferring(request: pytest.FixtureRequest) -> Client:
    """What the conformance tests of the Open Inference Protocol ask: KCOST_OIP_URL, else `kcost serve`."""
    return Client(OIP_URL) if OIP_URL else request.getfixturevalue("server")

"""What the application answers, on both ways that a request can go."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

import kcost.serving.bodies as bodies_module
from kcost.serving import predictions
from kcost.serving.application import Application
from kcost.serving.at_once import Headers, RequestHead, Take
from kcost.serving.bodies import Bodies
from kcost.serving.http_server import HttpServer, HttpSettings
from kcost.serving.model_version import Limits, ModelVersion
from kcost.serving.models import Models
from kcost.serving.routes import Route, route
from kcost.serving.server import Server, Serving
from kcost.serving.status import RequestError
from tests.unit.serving.fakes import FakeRunner, ask, with_models, write_versions


def test_the_application_answers(tmp_path: Path) -> None:
    async def steps(models: Models) -> None:
        application = Application(models, "/metrics", Bodies(100))
        path = "/v1/models/m:predict"
        status, body = await ask(application, "POST", path, b'{"instances"', b": [[1.5, ", b"2]]}")
        assert (status, orjson.loads(body)) == (200, {"predictions": [[3.0, 4.0]]})
        assert await ask(application, "POST", path, b'{"inputs":[[NaN]]}') == (200, b'{"outputs":[[NaN]]}')
        status, body = await ask(application, "POST", path, b" " * 60, b" " * 60)
        assert status == 413
        status, body = await ask(application, "POST", path, b"", content_length="101")
        assert (status, orjson.loads(body)) == (413, {"error": "The body of a request has at most 100 bytes."})
        whole = b'{"signature_name": "whole", "instances": [1, 2]}'
        status, body = await ask(application, "POST", path, whole)
        assert (status, orjson.loads(body)["error"]) == (400, "Tensor name: y has no shape information ")
        assert await ask(application, "POST", path, whole.replace(b"instances", b"inputs")) == (200, b'{"outputs":3.0}')
        metrics = (await ask(application, "GET", "/metrics"))[1].decode()
        assert 'status="INVALID_ARGUMENT"} 1' in metrics
        labels = 'model_name="m",version="1"'
        assert f"kcost_serving_hand_overs_total{{{labels}}} 4" in metrics, "the two that were too long never ran"
        took = next(line for line in metrics.splitlines() if line.startswith("kcost_serving_hand_over_seconds_total{"))
        assert 0 < float(took.split()[-1]) < 10

    write_versions(tmp_path / "m", 1)
    with_models(tmp_path, steps)


def test_the_bodies_of_all_requests_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue refuses what is whole; before, each connection may hold as much as a request has at most."""
    monkeypatch.setattr(bodies_module, "MOST_BODIES_BYTES", 1000)
    body = b'{"instances": [[1.5]]}'.ljust(600)
    path = b"POST /v1/models/m:predict HTTP/1.1\r\nhost: x\r\n"
    head = path + b"content-length: 600\r\n\r\n"

    async def steps(models: Models) -> None:
        bodies = Bodies(600)
        application = Application(models, None, bodies)
        server = HttpServer(application, HttpSettings(port=0))
        serving = asyncio.create_task(server.serve())

        async def sent(content: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
            writer.write(content)
            return reader, writer

        async def holds(count: int) -> None:
            async with asyncio.timeout(20):
                while bodies.held_bytes != count:
                    await asyncio.sleep(0.01)

        reader, writer = await sent(head + body[:-1])
        await holds(599)
        packed = gzip.compress(body)
        gzipped = path + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed
        for refused in (head + body, gzipped):
            other, its = await sent(refused)
            answer = await other.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in answer
            assert b"at most 1000 bytes together" in answer
            its.close()
        writer.write(body[-1:])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await holds(0)
        for whole in (head + body, gzipped):
            other, its = await sent(whole)
            assert (await other.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            its.close()
        _, writer = await sent(head + body[:-1])
        await holds(599)
        writer.close()  # it goes in the middle
        await holds(0)
        server.stop()
        await serving

    write_versions(tmp_path / "m", 1)
    with_models(tmp_path, steps)


def test_an_error_that_nobody_foresaw_is_a_500(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(models: Models) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError("never")

        monkeypatch.setattr(Models, "statuses", broken)
        status, body = await ask(Application(models, None, Bodies(100)), "GET", "/v1/models/m")
        assert status == 500
        assert "ZeroDivisionError: never" in orjson.loads(body)["error"]

    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))
    write_versions(tmp_path / "m", 1)
    with_models(tmp_path, steps)


def test_routes() -> None:
    assert route("POST", b"/v1/models/m:predict") == Route("m", None, None, "predict")
    assert route("GET", b"/v1/models/a%20b/labels/x%3ay/metadata") == Route("a b", None, "x:y", "metadata")
    assert route("GET", b"/v1/models/m/versions/007") == Route("m", 7, None, "status")
    for text in (b"9" * 19 + b"1", b"9223372036854775808"):
        with pytest.raises(RequestError, match="Failed to convert version"):
            route("GET", b"/v1/models/m/versions/" + text)


LONG = b'{"instances": [[' + b", ".join(b"%d" % i for i in range(900)) + b"]]}"
INFER = b'{"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]'
PREDICT = "/v1/models/m:predict"
REQUESTS: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "rows": (PREDICT, b'{"instances": [[1.5, 2]]}', {}),
    "columns": (PREDICT, b'{"inputs": [[NaN]]}', {}),
    "a version": ("/v1/models/m/versions/1:predict?q=1", b'{"inputs": [[1]]}', {}),
    "a long answer": (PREDICT, LONG, {}),
    "a long answer, compressed": (PREDICT, LONG, {"accept-encoding": "gzip"}),
    "Open Inference": ("/v2/models/m/infer", INFER + b"}", {}),
    "Open Inference in bytes": ("/v2/models/m/infer", INFER + b', "parameters": {"binary_data_output": true}}', {}),
    "no number": ("/v2/models/m/infer", INFER + b"}", {"inference-header-content-length": "ten"}),
    "no JSON": (PREDICT, b"{", {}),
    "nothing": (PREDICT, b"", {}),
    "half of a surrogate pair": (PREDICT, b'{"signature_name": "\\ud800", "inputs": [[NaN]]}', {}),
    "half of one as id": ("/v2/models/m/infer", b'{"id": "\\uD83d", "inputs": [NaN]}', {}),
    "a whole surrogate pair": ("/v2/models/m/infer", INFER.replace(b'"7"', b'"\\uD83d\\ude00"') + b"}", {}),
    "no signature": (PREDICT, b'{"signature_name": "x", "inputs": [1]}', {}),
    "a wrong shape": (PREDICT, b'{"inputs": 1}', {}),
    "an answer without rows": (PREDICT, b'{"signature_name": "whole", "instances": [1, 2]}', {}),
    "examples": ("/v1/models/m:classify", b'{"examples": [{"x": 1}]}', {}),
    "no model": ("/v1/models/n:predict", b'{"inputs": [[1]]}', {}),
    "no version": ("/v1/models/m/versions/2:predict", b'{"inputs": [[1]]}', {}),
    "no label": ("/v1/models/m/labels/x:predict", b'{"inputs": [[1]]}', {}),
}
LEFT_TO_ASGI: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "a compressed body": (PREDICT, gzip.compress(LONG), {"content-encoding": "gzip"}),
    "an unknown compression": (PREDICT, b"x", {"content-encoding": "br"}),
    "too long": (PREDICT, b'{"inputs": [[1]]}'.ljust(9001), {}),
    "a fragment": ("/v1/models/m#x:predict", b'{"inputs": [[1]]}', {}),
    "no path": ("/v1/models/m:what", b"{}", {}),
    "no interface": ("/metrics", b"{}", {}),
    "another method": ("/v2/health/live", b"{}", {}),
}


@contextlib.asynccontextmanager
async def serving(application: Any, take: Take | None) -> AsyncIterator[int]:
    """The port of a server."""
    server = HttpServer(application, HttpSettings(port=0), take)
    task = asyncio.create_task(server.serve())
    try:
        yield int(server.url.rpartition(":")[2])
    finally:
        server.stop()
        await task
        server.close()


async def answer_of(port: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """All that comes, but for the date, and for the name of the log that an error is in."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"POST {path} HTTP/1.1", "host: x", "connection: close", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    came = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return re.sub(rb"date: .*\r\n|kcost-error-\w+-\d+\.log", b"", came)


@pytest.mark.parametrize("queue", [10, 0])
@pytest.mark.parametrize("breaks", [False, True])
def test_no_client_can_tell_which_way_its_request_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: int, breaks: bool
) -> None:
    """Nor can who reads the metrics. Also where the queue is full, and where writing an answer fails unforeseen."""
    asgi_paths: list[str] = []

    async def steps(models: Models) -> None:
        bodies = Bodies(9000)
        taking, other = Application(models, None, bodies), Application(models, None, bodies)

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            asgi_paths.append(scope["path"])
            await taking(scope, receive, send)

        async with serving(counted, taking.take) as short, serving(other, None) as long:
            for name, request in (REQUESTS | LEFT_TO_ASGI).items():
                answer = await answer_of(short, *request)
                assert answer == await answer_of(long, *request), name
                assert answer.startswith(b"HTTP/1.1 "), name
                assert (name in LEFT_TO_ASGI) == bool(asgi_paths), name
                assert bodies.held_bytes == 0, name
                asgi_paths.clear()
                if name.startswith("half"):
                    assert b"HTTP/1.1 400 Bad Request" in answer
                    assert b"surrogate pair" in answer
                if name in ("rows", "a long answer, compressed"):
                    assert answer.startswith(b"HTTP/1.1 %d " % (429 if not queue else 500 if breaks else 200))
                    assert (b"content-encoding: gzip" in answer) == (name != "rows" and queue and not breaks)
        counts = [
            [line for line in application.metrics.text(()).splitlines() if "_count" in line]
            for application in (taking, other)
        ]
        assert counts[0] == counts[1]
        assert any("request_count" in line and "INVALID_ARGUMENT" in line for line in counts[0])

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("never")

    if breaks:
        monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))
        monkeypatch.setattr(predictions, "predict_answer", broken)
    write_versions(tmp_path / "m", 1)
    with_models(tmp_path, steps, queue=queue)


def test_an_answer_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))
    statuses = list[int]()

    def respond(status: int, headers: Headers, body: bytes) -> None:
        if status == 200:
            raise MemoryError("no room for the answer")
        statuses.append(status)

    async def steps(models: Models) -> None:
        bodies = Bodies(100)
        assert Application(models, None, bodies).take(RequestHead(PREDICT.encode(), []), b'{"inputs": [[1]]}', respond)
        for _ in range(5):
            await asyncio.sleep(0)
        assert (statuses, bodies.held_bytes) == ([500], 0)

    write_versions(tmp_path / "m", 1)
    with_models(tmp_path, steps)


@contextlib.asynccontextmanager
async def server_without_answers(folder: Path, stop_s: float) -> AsyncIterator[tuple[int, ModelVersion, FakeRunner]]:
    """Port, version and runner of a server whose model never comes back. A signal has to end it within 20 s."""
    write_versions(folder / "m", 1)
    settings = HttpSettings(port=0, stop_s=stop_s)
    server = Server(folder, settings, Limits(deadline_s=1000), 1.0, lambda _: None, FakeRunner)
    started: asyncio.Future[Serving] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(server.serve(started.set_result))
    async with asyncio.timeout(20):
        port = int((await started).url.rpartition(":")[2])
        version = server._models.find("m")
        runner = version._lanes[0].runner
        assert isinstance(runner, FakeRunner)
        runner.by_itself = False
        yield port, version, runner
        await running


@pytest.mark.parametrize("taken", [True, False])
def test_what_has_no_answer_shortly_before_the_end_is_refused(tmp_path: Path, taken: bool) -> None:
    """And the server ends, though its model never comes back."""

    async def run() -> None:
        headers = {} if taken else {"content-encoding": "identity"}
        async with server_without_answers(tmp_path, stop_s=1) as (port, version, runner):
            answers = [asyncio.create_task(answer_of(port, PREDICT, b'{"inputs": [[1]]}', headers)) for _ in range(3)]
            while sum(len(arrays[0]) for _, arrays, _ in runner.given) + version.waiting < 3:
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            for answer in await asyncio.gather(*answers):
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"The server ends" in answer

    asyncio.run(run())


def test_who_went_before_the_end_is_not_waited_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with server_without_answers(tmp_path, stop_s=600) as (port, _, runner):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /v1/models/m:predict HTTP/1.1\r\ncontent-length: 17\r\n\r\n" + b'{"inputs": [[1]]}')
            while not runner.given:
                await asyncio.sleep(0.01)
            writer.close()
            await asyncio.sleep(0.1)
            os.kill(os.getpid(), signal.SIGTERM)

    asyncio.run(run())


def test_a_taken_request_that_is_late_is_told_so_once(tmp_path: Path) -> None:
    async def steps(models: Models) -> None:
        bodies, statuses = Bodies(100), list[int]()
        application = Application(models, None, bodies)
        assert application.take(
            RequestHead(PREDICT.encode(), []), b'{"inputs": [[1]]}', lambda status, *_: statuses.append(status)
        )
        assert bodies.held_bytes == 17
        models.find("m").fail_late(float("inf"))
        assert (statuses, bodies.held_bytes) == ([504], 0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert (statuses, bodies.held_bytes) == ([504], 0)

    write_versions(tmp_path / "m", 1)
    with_models(tmp_path, steps)

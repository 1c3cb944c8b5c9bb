"""gRPC over a real socket, with a runner in the place of a process: ports, the end, health, errors nobody foresaw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

grpc = pytest.importorskip("grpc", reason="install kcost[grpc]")

import kcost.serving.bodies as bodies_module  # noqa: E402
from kcost.core.errors import ArtifactError, InputError  # noqa: E402
from kcost.serving.bodies import Bodies  # noqa: E402
from kcost.serving.grpc_server import GrpcServer  # noqa: E402
from kcost.serving.grpc_services import Health, Services, health_answer  # noqa: E402
from kcost.serving.http_limits import RESERVED_CONNECTIONS  # noqa: E402
from kcost.serving.http_server import HttpSettings  # noqa: E402
from kcost.serving.messages import message_class  # noqa: E402
from kcost.serving.metrics import Metrics  # noqa: E402
from kcost.serving.model_version import Limits  # noqa: E402
from kcost.serving.models import Models  # noqa: E402
from kcost.serving.server import Server  # noqa: E402
from kcost.serving.tensor_messages import fill  # noqa: E402
from tests.unit.serving.fakes import FakeRunner, write_versions  # noqa: E402

PREDICT = "/tensorflow.serving.PredictionService/Predict"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
Steps = Callable[[Models, GrpcServer, "grpc.aio.Channel"], Awaitable[None]]


def with_server(tmp_path: Path, steps: Steps, **settings: float) -> None:
    async def run() -> None:
        models = Models(tmp_path, Limits(), tmp_path / "log", lambda _: None, new_runner=FakeRunner)
        await models.load_first()
        bodies = Bodies(1 << 20)
        server = GrpcServer(Services(models, Metrics(), 1 << 20), bodies, HttpSettings(stop_s=20, **settings), 0)
        await server.start()
        async with grpc.aio.insecure_channel(server.address) as channel:
            await steps(models, server, channel)
        await server.stop()

    write_versions(tmp_path / "m", 1)
    asyncio.run(asyncio.wait_for(run(), 60))


def model_request(kind: str) -> bytes:
    message = message_class(kind)()
    message.model_spec.name = "m"
    serialized: bytes = message.SerializeToString()
    return serialized


def request() -> bytes:
    message = message_class("PredictRequest")()
    message.model_spec.name = "m"
    fill(message.inputs.add(key="x").value, np.ones((1, 1), np.float32))
    serialized: bytes = message.SerializeToString()
    return serialized


def test_health_is_told_when_it_changes(tmp_path: Path) -> None:
    async def steps(models: Models, server: GrpcServer, channel: grpc.aio.Channel) -> None:
        watch = channel.unary_stream(WATCH)(b"")
        assert await watch.read() == health_answer(Health.SERVING)
        version = models.find("m")
        version.state = "LOADING"
        assert await watch.read() == health_answer(Health.NOT_SERVING)
        version.state = "AVAILABLE"
        assert await watch.read() == health_answer(Health.SERVING)
        await server.stop()
        assert await watch.read() == health_answer(Health.NOT_SERVING)
        assert await watch.read() == grpc.aio.EOF

    with_server(tmp_path, steps)


def test_calls_at_a_time_are_bounded(tmp_path: Path) -> None:
    async def steps(_: Models, __: GrpcServer, channel: grpc.aio.Channel) -> None:
        watch = channel.unary_stream(WATCH)(b"")
        assert await watch.read() == health_answer(Health.SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(PREDICT)(request())
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    with_server(tmp_path, steps, connections=1)


async def hold_one(models: Models, channel: grpc.aio.Channel) -> tuple[asyncio.Task[bytes], FakeRunner]:
    """A prediction that is under way until its runner answers."""
    runner = models.find("m")._lanes[0].runner
    assert isinstance(runner, FakeRunner)
    runner.by_itself = False

    async def predict() -> bytes:
        answer: bytes = await channel.unary_unary(PREDICT)(request())
        return answer

    task = asyncio.create_task(predict())
    while not runner.given:
        await asyncio.sleep(0.01)
    return task, runner


def test_health_is_answered_where_predictions_have_all_places(tmp_path: Path) -> None:
    """An orchestrator that gets no answer of it ends the server that has the most to do."""

    async def steps(models: Models, server: GrpcServer, channel: grpc.aio.Channel) -> None:
        held, runner = await hold_one(models, channel)
        check = channel.stream_unary(CHECK)
        for _ in range(RESERVED_CONNECTIONS + 1):  # refused ones give their places back
            with pytest.raises(grpc.aio.AioRpcError, match="takes 1 calls at a time") as refused:
                await channel.unary_unary(PREDICT)(request())
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await check(iter([b""])) == health_answer(Health.SERVING)
        assert await channel.unary_unary(STATUS)(model_request("GetModelStatusRequest"))
        with pytest.raises(grpc.aio.AioRpcError, match="takes 1 calls"):  # a watch lasts
            await channel.unary_stream(WATCH)(b"").read()

        async def never() -> AsyncIterator[bytes]:
            await asyncio.sleep(30)
            yield b""

        with pytest.raises(grpc.aio.AioRpcError, match="sent within 1 s"):
            await check(never())
        runner.answer()
        assert await held
        runner.by_itself = True
        async with asyncio.timeout(20):
            while server._calls:  # the place is free once the answer has left
                await asyncio.sleep(0.01)
        assert await channel.unary_unary(PREDICT)(request())

    with_server(tmp_path, steps, connections=1)


def test_messages_count_among_the_bodies_of_all_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module, "MOST_BODIES_BYTES", 0)  # as much as one message may have

    async def steps(models: Models, server: GrpcServer, channel: grpc.aio.Channel) -> None:
        bodies, count = server._bodies, len(request())
        held, runner = await hold_one(models, channel)
        assert bodies.held_bytes == count
        assert bodies.hold((1 << 20) - 2 * count + 1)  # as bodies of HTTP
        with pytest.raises(grpc.aio.AioRpcError, match="bodies of all requests have at most 1048576") as refused:
            await channel.unary_unary(PREDICT)(request())
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert bodies.hold(count - 1)
        assert await channel.unary_unary(CHECK)(b"") == health_answer(Health.SERVING)
        runner.answer()
        assert await held
        assert bodies.held_bytes == (1 << 20) - count

    with_server(tmp_path, steps)


def test_an_error_that_nobody_foresaw_is_internal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("never")

    async def steps(_: Models, __: GrpcServer, channel: grpc.aio.Channel) -> None:
        predict = channel.unary_unary(PREDICT)
        monkeypatch.setattr(Models, "find", broken)
        with pytest.raises(grpc.aio.AioRpcError, match=r"ZeroDivisionError: never.*The traceback is in") as caught:
            await predict(request())
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        monkeypatch.undo()
        assert await predict(request())

    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))
    with_server(tmp_path, steps)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async def steps(_: Models, server: GrpcServer, __: grpc.aio.Channel) -> None:
        port = int(server.address.rpartition(":")[2])
        second = Server(tmp_path, HttpSettings(port=0), Limits(), 1.0, lambda _: None, FakeRunner, grpc_port=port)
        with pytest.raises(InputError, match=f"127.0.0.1:{port}, which is taken"):
            await second.serve(lambda _: None)

    with_server(tmp_path, steps)


def test_a_server_without_a_model_ends(tmp_path: Path) -> None:
    write_versions(tmp_path / "m", 1, content=b"damaged")
    server = Server(tmp_path, HttpSettings(port=0), Limits(), 1.0, lambda _: None, FakeRunner, grpc_port=0)
    with pytest.raises(ArtifactError, match="whole"):
        asyncio.run(asyncio.wait_for(server.serve(lambda _: None), 60))


@pytest.mark.parametrize("method", [CHECK, WATCH])
def test_a_message_that_never_comes_has_a_place_and_a_time_limit(tmp_path: Path, method: str) -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    async def steps(_: Models, server: GrpcServer, channel: grpc.aio.Channel) -> None:
        call = channel.stream_stream(method)(never())
        async with asyncio.timeout(20):
            while not server._calls:
                await asyncio.sleep(0.01)
            with pytest.raises(grpc.aio.AioRpcError, match=r"sent within 0\.5 s") as late:
                await call.read()
            while server._calls:
                await asyncio.sleep(0.01)
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    with_server(tmp_path, steps, client_timeout_s=0.5)


@pytest.mark.parametrize("method", [CHECK, WATCH, STATUS])
def test_a_message_without_tensors_is_short(tmp_path: Path, method: str) -> None:
    """It is not counted among bodies: where these have all the room, health is answered."""

    async def steps(_: Models, server: GrpcServer, channel: grpc.aio.Channel) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match=r"at most 8192 bytes\. Received: 8193") as refused:
            await channel.unary_stream(method)(b"a" * 8193).read()
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server._bodies.held_bytes == 0

    with_server(tmp_path, steps)

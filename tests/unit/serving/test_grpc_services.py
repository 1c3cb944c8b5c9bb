"""The gRPC services without gRPC and without a process: messages in, messages out; queues, counts and health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost.serving.grpc_services import MODEL_SERVICE, PREDICTION_SERVICE, Health, Services
from kcost.serving.messages import message_class
from kcost.serving.metrics import Metrics
from kcost.serving.model_version import Limits
from kcost.serving.models import Models
from kcost.serving.status import Code, RequestError
from kcost.serving.tensor_messages import as_array, fill
from tests.unit.serving.fakes import FakeRunner, tensor, write_versions


def request(*rows: float, signature: str = "", model: str = "m") -> bytes:
    message = message_class("PredictRequest")()
    message.model_spec.name, message.model_spec.signature_name = model, signature
    array = np.array(rows, np.float32)
    fill(message.inputs.add(key="x").value, array if signature == "whole" else array[:, None])
    serialized: bytes = message.SerializeToString()
    return serialized


def values(answer: bytes) -> Any:
    message = message_class("PredictResponse").FromString(answer)
    return as_array(message.outputs[0].value, tensor("y", None), 1 << 20).tolist()


def with_services(
    tmp_path: Path, steps: Callable[[Services, list[FakeRunner], Metrics, Models], Awaitable[None]], **limits: float
) -> None:
    async def run() -> None:
        runners: list[FakeRunner] = []

        def new_runner(folder: Path, on_end: Callable[[], None]) -> FakeRunner:
            runners.append(FakeRunner(folder, on_end, by_itself=False))
            return runners[-1]

        models = Models(tmp_path, Limits.model_validate(limits), tmp_path / "log", lambda _: None, new_runner)
        metrics = Metrics()
        await models.load_first()
        await steps(Services(models, metrics, 1 << 20), runners, metrics, models)

    write_versions(tmp_path / "m", 1)
    asyncio.run(run())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def code_of(answer: Awaitable[bytes]) -> Code:
    with pytest.raises(RequestError) as caught:
        await answer
    return caught.value.code


def test_calls_that_come_together_run_together(tmp_path: Path) -> None:
    async def steps(services: Services, runners: list[FakeRunner], metrics: Metrics, _: Models) -> None:
        calls = [asyncio.create_task(services.predict(request(i))) for i in range(3)]
        await settled()
        assert [len(run[0]) for run in runners[0].runs] == [3]
        runners[0].answer()
        assert [values(await call) for call in calls] == [[[0]], [[2]], [[4]]]
        page = metrics.text(())
        assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 3' in page
        assert 'request_latency_count{model_name="m",API="Predict",entrypoint="GRPC"} 3' in page

    with_services(tmp_path, steps)


def test_a_full_queue_refuses(tmp_path: Path) -> None:
    async def steps(services: Services, runners: list[FakeRunner], metrics: Metrics, _: Models) -> None:
        running = asyncio.create_task(services.predict(request(1)))
        await settled()
        waiting = asyncio.create_task(services.predict(request(2)))
        await settled()
        assert await code_of(services.predict(request(3))) == Code.RESOURCE_EXHAUSTED
        runners[0].answer()
        runners[0].answer()
        assert [values(await call) for call in (running, waiting)] == [[[2]], [[4]]]
        assert 'status="RESOURCE_EXHAUSTED"} 1' in metrics.text(())

    with_services(tmp_path, steps, queue=1)


def test_a_call_that_is_given_up_is_never_run(tmp_path: Path) -> None:
    """gRPC cancels what it called when the deadline of the client has passed, or the client went."""

    async def steps(services: Services, runners: list[FakeRunner], metrics: Metrics, _: Models) -> None:
        running = asyncio.create_task(services.predict(request(1)))
        await settled()
        waiting = asyncio.create_task(services.predict(request(2)))
        await settled()
        for call in (running, waiting):
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        runners[0].answer()
        last = asyncio.create_task(services.predict(request(3)))
        await settled()
        runners[0].answer()
        assert values(await last) == [[6]]
        assert [run[0].tolist() for run in runners[0].runs] == [[[1]], [[3]]]
        assert 'status="CANCELLED"} 2' in metrics.text(())

    with_services(tmp_path, steps)


def test_an_error_of_the_model_is_the_answer(tmp_path: Path) -> None:
    async def steps(services: Services, runners: list[FakeRunner], metrics: Metrics, models: Models) -> None:
        call = asyncio.create_task(services.predict(request(1, 2, signature="whole")))
        await settled()
        runners[0].answer(RequestError(Code.INVALID_ARGUMENT, "no"))
        assert await code_of(call) == Code.INVALID_ARGUMENT
        call = asyncio.create_task(services.predict(request(1, 2, signature="whole")))
        await settled()
        runners[0].answer()
        assert values(await call) == 3.0
        call = asyncio.create_task(services.predict(request(1)))
        await settled()
        models.find("m").fail_late(float("inf"))
        assert await code_of(call) == Code.DEADLINE_EXCEEDED

    with_services(tmp_path, steps)


def test_health_follows_the_models_and_the_end(tmp_path: Path) -> None:
    async def steps(services: Services, _: list[FakeRunner], __: Metrics, models: Models) -> None:
        names = ("", PREDICTION_SERVICE, MODEL_SERVICE)
        assert {services.health(name) for name in names} == {Health.SERVING}
        assert services.health("none") == Health.SERVICE_UNKNOWN
        version = models.find("m")
        version.state = "LOADING"
        assert {services.health(name) for name in names} == {Health.NOT_SERVING}
        version.state = "AVAILABLE"
        services.is_stopping = True
        assert services.health("") == Health.NOT_SERVING

    with_services(tmp_path, steps)


def test_the_status_says_why_a_version_was_not_loaded(tmp_path: Path) -> None:
    async def steps(services: Services, _: list[FakeRunner], __: Metrics, models: Models) -> None:
        write_versions(tmp_path / "m", 2, content=b"damaged")
        models.poll()
        await asyncio.sleep(0.02)
        message = message_class("GetModelStatusRequest")()
        message.model_spec.name = "m"
        answer = message_class("GetModelStatusResponse").FromString(await services.status(message.SerializeToString()))
        states = [(status.version, status.state, status.status.error_code) for status in answer.model_version_status]
        assert states == [(2, 50, Code.INTERNAL), (1, 30, Code.OK)]
        assert "A SavedModel is whole." in answer.model_version_status[0].status.error_message

    with_services(tmp_path, steps)

"""gRPC on a port: TensorFlow Serving's services and the health service, with the limits that HTTP has."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

# gRPC's core writes to standard error for each port that is taken; nothing else than this variable tells it not to.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

from kcost.core.errors import InputError
from kcost.core.unforeseen import logged, place_of
from kcost.serving.grpc_services import (
    HEALTH_SERVICE,
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    Health,
    Services,
    health_answer,
    health_service,
)
from kcost.serving.http_server import HttpSettings
from kcost.serving.status import Code, RequestError

_LONGEST_DETAILS = 1000
"""Bytes of a status message: it travels in a header, a byte that is no ASCII as three, and those may end at 8 KiB."""

_HEALTH_LOOK_S = 0.2
"""How often Health.Watch looks whether something has changed."""

Answer = Callable[[bytes], Awaitable[bytes]]


class GrpcServer:
    """Serves gRPC beside HTTP, in the same event loop. To be made inside it.

    Args:
        services: what answers.
        settings: of HTTP, for host and limits.
        port: 0 for any that is free.

    Raises:
        InputError: the port is taken, or the host is none of this machine's.
    """

    def __init__(self, services: Services, settings: HttpSettings, port: int) -> None:
        self._services = services
        self._settings = settings
        self._stopping = asyncio.Event()
        timeout_ms = int(settings.client_timeout_s * 1000)
        self._server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 0),  # else two servers would share a port, and each get some of the requests
                ("grpc.max_receive_message_length", settings.most_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.server_handshake_timeout_ms", timeout_ms),
            ),
            maximum_concurrent_rpcs=settings.connections,
        )
        self._server.add_generic_rpc_handlers(self._handlers())
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise InputError(
                "kcost serves gRPC on a free port of this machine.",
                received=f"{host}:{port}, which is taken, or of another machine",
                remedy="Name another one: --grpc-port P --host HOST",
            ) from error
        self.address = f"{host}:{port}"

    def _handlers(self) -> tuple[Any, ...]:
        def unary(answer: Answer) -> Any:
            # Taken as a stream of one message, so that the time until it is there can be bounded. The same on the wire.
            return grpc.stream_unary_rpc_method_handler(self._bounded(answer))

        services = self._services
        return (
            grpc.method_handlers_generic_handler(
                PREDICTION_SERVICE,
                {"Predict": unary(services.predict), "GetModelMetadata": unary(services.metadata)},
            ),
            grpc.method_handlers_generic_handler(MODEL_SERVICE, {"GetModelStatus": unary(services.status)}),
            grpc.method_handlers_generic_handler(
                HEALTH_SERVICE,
                {"Check": unary(services.check), "Watch": grpc.unary_stream_rpc_method_handler(self._watch)},
            ),
        )

    def _bounded(self, answer: Answer) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def handle(messages: Any, context: Any) -> bytes:
            try:
                return await answer(await self._message(messages))
            except RequestError as error:
                status, text = grpc.StatusCode[error.code.name], error.message
            except Exception as error:
                status = grpc.StatusCode.INTERNAL
                text = f"kcost did not foresee this: {place_of(error)}. {logged(error)}"
            await context.abort(status, _cut(text))
            raise AssertionError("abort raises")

        return handle

    async def _message(self, messages: Any) -> bytes:
        timeout_s = self._settings.client_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                message: bytes = await anext(aiter(messages))
        except TimeoutError as error:
            raise RequestError(Code.DEADLINE_EXCEEDED, f"A request is sent within {timeout_s:g} s.") from error
        except StopAsyncIteration as error:
            raise RequestError(Code.UNIMPLEMENTED, "A unary call has one message. Received: none") from error
        return message

    async def _watch(self, content: bytes, context: Any) -> AsyncIterator[bytes]:
        """Health.Watch: the status now, and again whenever it has changed, until the server ends."""
        try:
            service = health_service(content)
        except RequestError as error:
            await context.abort(grpc.StatusCode[error.code.name], _cut(error.message))
        last = Health.UNKNOWN
        while True:
            is_last = self._stopping.is_set()  # looked at first: what is told last is the status during the end
            status = self._services.health(service)
            if status != last:
                yield health_answer(status)
                last = status
            if is_last:
                return
            try:
                async with asyncio.timeout(_HEALTH_LOOK_S):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def start(self) -> None:
        """Serves from now on."""
        await self._server.start()

    async def stop(self) -> None:
        """Accepts no further call, answers what was accepted, and returns; calling it again does nothing."""
        self._services.is_stopping = True
        self._stopping.set()
        await self._server.stop(self._settings.stop_s)


def _cut(text: str) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= _LONGEST_DETAILS else f"{encoded[:_LONGEST_DETAILS].decode(errors='ignore')}..."

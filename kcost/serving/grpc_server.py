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
from kcost.serving.bodies import Bodies
from kcost.serving.grpc_services import (
    HEALTH_SERVICE,
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    Health,
    Services,
    health_answer,
    health_service,
)
from kcost.serving.http_limits import RESERVED_CONNECTIONS
from kcost.serving.http_server import HttpSettings
from kcost.serving.status import Code, RequestError

_LONGEST_DETAILS = 1000
"""Bytes of a status message: it travels in a header, a byte that is no ASCII as three, and those may end at 8 KiB."""

_HEALTH_LOOK_S = 0.2
"""How often Health.Watch looks whether something has changed."""

_BEYOND_S = 1.0
"""A message is there by then where a call has one of the reserved places: who is slow must not hold these."""

_MOST_RESERVED_BYTES = 8192
"""Of a message that may have a reserved place: names, and no tensor. These are not counted among bodies."""

Answer = Callable[[bytes], Awaitable[bytes]]


class GrpcServer:
    """Serves gRPC beside HTTP, in the same event loop. To be made inside it.

    Args:
        services: what answers.
        bodies: counts messages, once they are whole, beside the bodies of HTTP: they are in the same memory.
        settings: of HTTP, for host and limits. Beyond as many calls as its connections, predictions are refused;
            health, states and metadata are answered on as many more as HTTP reserves.
        port: 0 for any that is free.

    Raises:
        InputError: the port is taken, or the host is none of this machine's.
    """

    def __init__(self, services: Services, bodies: Bodies, settings: HttpSettings, port: int) -> None:
        self._services = services
        self._bodies = bodies
        self._calls = 0
        """Under way, without those that were refused."""
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
            maximum_concurrent_rpcs=settings.connections + RESERVED_CONNECTIONS,
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
        def unary(answer: Answer, *, is_reserved: bool = True) -> Any:
            # Taken as a stream of one message, so that the time until it is there can be bounded. The same on the wire.
            return grpc.stream_unary_rpc_method_handler(self._bounded(answer, is_reserved=is_reserved))

        services = self._services
        return (
            grpc.method_handlers_generic_handler(
                PREDICTION_SERVICE,
                {
                    "Predict": unary(services.predict, is_reserved=False),
                    "GetModelMetadata": unary(services.metadata),
                },
            ),
            grpc.method_handlers_generic_handler(MODEL_SERVICE, {"GetModelStatus": unary(services.status)}),
            grpc.method_handlers_generic_handler(
                HEALTH_SERVICE,
                {
                    "Check": unary(services.check),
                    # A stream of one message, too: else grpc waits for it before anything is bounded.
                    "Watch": grpc.stream_stream_rpc_method_handler(self._watch),
                },
            ),
        )

    def _bounded(self, answer: Answer, *, is_reserved: bool) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def handle(messages: Any, context: Any) -> bytes:
            try:
                timeout_s = self._take_place(context, is_reserved=is_reserved)
                message = await self._message(messages, timeout_s, _MOST_RESERVED_BYTES if is_reserved else None)
                held_bytes = 0 if is_reserved else len(message)
                if not self._bodies.hold(held_bytes):
                    raise RequestError(Code.RESOURCE_EXHAUSTED, self._bodies.no_room().message)
                try:
                    return await answer(message)
                finally:
                    self._bodies.release(held_bytes)
            except RequestError as error:
                status, text = grpc.StatusCode[error.code.name], error.message
            except Exception as error:
                status = grpc.StatusCode.INTERNAL
                text = f"kcost did not foresee this: {place_of(error)}. {logged(error)}"
            await context.abort(status, _cut(text))
            raise AssertionError("abort raises")

        return handle

    def _take_place(self, context: Any, *, is_reserved: bool) -> float:
        """Takes a place for a call, until its answer has left; gives how long its message may take.

        Args:
            is_reserved: whether it may have a reserved place where all others are taken.

        Raises:
            RequestError: there is none: status RESOURCE_EXHAUSTED.
        """
        most, timeout_s = self._settings.connections, self._settings.client_timeout_s
        is_beyond = self._calls >= most
        if is_beyond and not is_reserved:
            raise RequestError(Code.RESOURCE_EXHAUSTED, f"The server takes {most} calls at a time. Try later.")
        self._calls += 1
        context.add_done_callback(self._leave)
        return min(_BEYOND_S, timeout_s) if is_beyond else timeout_s

    def _leave(self, _: Any) -> None:
        self._calls -= 1

    async def _message(self, messages: Any, timeout_s: float, most_bytes: int | None) -> bytes:
        """The one message of a call. Its bytes are in memory before anyone can count them: gRPC gives it whole.

        Args:
            most_bytes: of it; None for as many as gRPC takes.

        Raises:
            RequestError: it does not come in time, there is none, or it is longer.
        """
        try:
            async with asyncio.timeout(timeout_s):
                message: bytes = await anext(aiter(messages))
        except TimeoutError as error:
            raise RequestError(Code.DEADLINE_EXCEEDED, f"A request is sent within {timeout_s:g} s.") from error
        except StopAsyncIteration as error:
            raise RequestError(Code.UNIMPLEMENTED, "A unary call has one message. Received: none") from error
        if most_bytes is not None and len(message) > most_bytes:
            text = f"A message of this method has at most {most_bytes} bytes. Received: {len(message)}"
            raise RequestError(Code.RESOURCE_EXHAUSTED, text)
        return message

    async def _watch(self, messages: Any, context: Any) -> AsyncIterator[bytes]:
        """Health.Watch: the status now, and again whenever it has changed, until the server ends.

        It lasts, so that it has no reserved place: a few of them would leave none for Health.Check.
        """
        try:
            timeout_s = self._take_place(context, is_reserved=False)
            service = health_service(await self._message(messages, timeout_s, _MOST_RESERVED_BYTES))
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
        await self._server.stop(self._settings.end_s)


def _cut(text: str) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= _LONGEST_DETAILS else f"{encoded[:_LONGEST_DETAILS].decode(errors='ignore')}..."

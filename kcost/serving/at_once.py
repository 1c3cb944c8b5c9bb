"""Whole answers and whole requests, where ASGI has several messages, each with a turn of a task.

`respond` writes head and body of an answer at once. A server that was given a `Take` hands it POST requests that came
whole, without a task: see `limited_protocol`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Headers = list[tuple[bytes, bytes]]
AT_ONCE = "kcost.at_once"
"""The key of a request's scope under which a whole answer can be given; see `respond`."""

CONNECTION_HEADERS = frozenset(
    [
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"content-length", b"host", b"expect"),
    ]
)
"""Headers of one connection alone (RFC 9110, 7.6.1), and those that are written again."""

Respond = Callable[[int, Headers, bytes], None]
"""Answers a request: status, headers, body. CONNECTION_HEADERS among the headers are left out."""


class RequestHead:
    """What a request begins with. Requests with the same bytes there may share it, and nobody changes it.

    Args:
        target: path and query as they were sent.
        headers: with names in lower case.
    """

    __slots__ = ("headers", "kept", "target")

    def __init__(self, target: bytes, headers: Headers) -> None:
        self.target = target
        self.headers = headers
        self.kept: Any = None
        """For who takes requests: what it has made of target and headers, and would make again; None at first."""


Take = Callable[[RequestHead, bytes, Respond], bool]
"""Takes a POST request, head and body, and answers it once, maybe before it returns. False where the request has to go
by ASGI: nothing was done then."""


async def respond(
    scope: dict[str, Any],
    send: Callable[[dict[str, Any]], Awaitable[None]],
    status: int,
    headers: Headers,
    body: bytes,
) -> None:
    """Answers a request: at once where its server can, else by two ASGI messages.

    Args:
        headers: all but the length of the body, which is added.
    """
    if not respond_now(scope, status, headers, body):
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def respond_now(scope: dict[str, Any], status: int, headers: Headers, body: bytes) -> bool:
    """Answers a request before it returns; False where that cannot be, and nothing was written."""
    at_once = scope.get(AT_ONCE)
    return at_once is not None and bool(at_once(status, headers, body))


def answer_cycle(cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> bool:
    """Writes a whole answer; False where uvicorn's own way is needed, and nothing was written."""
    if (
        cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or cycle.scope["method"] == "HEAD"
        or any(name == b"connection" for name, _ in headers)
    ):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    headers = [*cycle.default_headers, *headers]
    cycle.transport.write(whole_answer(status, headers, body, keep_alive=cycle.keep_alive))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def whole_answer(status: int, headers: Headers, body: bytes, *, keep_alive: bool) -> bytes:
    """The bytes of an answer, without those of its headers that are CONNECTION_HEADERS."""
    pieces = [STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status]
    for name, value in headers:
        if name.lower() not in CONNECTION_HEADERS:
            pieces += (name, b": ", value, b"\r\n")
    end = b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n"
    pieces += (b"content-length: ", str(len(body)).encode(), end, body)
    return b"".join(pieces)


class Exchange:
    """A request that came whole and its answer, in the place of uvicorn's cycle: its protocol looks at the same.

    One serves all such requests of a connection, as there is one at a time.
    """

    message_event = asyncio.Event()
    """Nobody waits for it: there is no message to come."""

    def __init__(self) -> None:
        self.keep_alive = True
        """Whether the connection stays open behind the answer."""
        self.response_started = False
        self.response_complete = False
        self.disconnected = False

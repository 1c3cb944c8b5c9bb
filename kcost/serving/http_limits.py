"""uvicorn's HTTP protocol with what it leaves out: limits on the head of a request and on slow clients.

Also, the head of an answer is written together with its body: uvicorn writes them one after the other, so that a client
is woken up twice. `respond` writes both at once where it can, which takes a third of the time of two ASGI messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

_LINGER_S = 1.0
MOST_HEAD_BYTES = 1 << 16
"""Of the first line and the headers of a request together."""

Headers = list[tuple[bytes, bytes]]
AT_ONCE = "kcost.at_once"
"""The key of a request's scope under which a whole answer can be given; see `respond`."""


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
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    at_once = scope.get(AT_ONCE)
    if at_once is None or not at_once(status, headers, body):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _at_once(cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> bool:
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
    lines = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
    lines.append(body)
    cycle.transport.write(b"".join(lines))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    asyncio.get_running_loop().call_soon(cycle.on_response)  # once what was written has left
    return True


def limited_protocol(client_timeout_s: float) -> type[HttpToolsProtocol]:
    """The protocol class of a server.

    Args:
        client_timeout_s: a request is there, head and body, this long after its first byte; else it is answered with
            408. A connection that says nothing at all is closed after as long.
    """

    class LimitedProtocol(HttpToolsProtocol):
        _head_bytes = 0
        _in_head = True
        _timer: asyncio.TimerHandle | None = None
        _in_request = False
        _refused = False

        def connection_made(self, transport: Any) -> None:
            joined: Any = HeadWithBody(transport, self.loop)
            super().connection_made(joined)
            self._timer = self.loop.call_later(client_timeout_s, self._close_silent)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            if self._in_head:
                if not self._in_request:
                    self._in_request = True
                    self._stop_timer()
                before = len(data)
                # A head that comes whole in one piece is at most as long as the piece.
                if self._head_bytes + before > MOST_HEAD_BYTES and self._head_is_too_long(data):
                    return
                self._head_bytes += before
            super().data_received(data)
            if self._in_request and self._timer is None and not self._refused:  # it came in pieces
                self._timer = self.loop.call_later(client_timeout_s, self._refuse_slow)

        def _head_is_too_long(self, data: bytes) -> bool:
            """Refuses a head that does not end within the limit."""
            left = MOST_HEAD_BYTES - self._head_bytes
            end = data.find(b"\r\n\r\n")
            if 0 <= end <= left:
                return False
            self._refuse(431, f"The first line and the headers have at most {MOST_HEAD_BYTES} bytes together.")
            return True

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()
            self.scope[AT_ONCE] = partial(_at_once, self.cycle)  # type: ignore[literal-required]

        def on_message_complete(self) -> None:
            self._stop_timer()
            self._in_head, self._in_request, self._head_bytes = True, False, 0
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, msg)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _close_silent(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

        def _refuse_slow(self) -> None:
            self._refuse(408, f"A request is sent within {client_timeout_s:g} s.")

        def _refuse(self, status: int, message: str) -> None:
            """Answers in the place of the application, and closes the connection."""
            if self.transport is None or self.transport.is_closing():
                return
            self._stop_timer()
            self._refused = True
            if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
                body = orjson.dumps({"error": message})
                head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
                head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
                self.transport.write(head.encode() + body)
            # What the client goes on to send is read and dropped for a while: were the connection closed with bytes
            # unread, the kernel would reset it, and the client might never see the answer.
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._timer = self.loop.call_later(_LINGER_S, self._close_silent)

    return LimitedProtocol


class HeadWithBody:
    """A transport that keeps the head of an answer until its body comes, and no longer than the event loop's next turn.

    Args:
        transport: what is written to.
        loop: the event loop.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        """Writes bytes, behind a head that was kept."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        elif data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n"):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        if self._head:
            self.write(b"")

    def write_eof(self) -> None:
        """Ends what is written."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Closes the transport once all is written."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Whatever else a transport does."""
        return getattr(self._transport, name)


_REASONS = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}

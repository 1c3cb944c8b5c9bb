"""uvicorn's HTTP protocol with what it leaves out: limits on the head of a request, on slow clients and on connections.

Also, the head of an answer is written together with its body: uvicorn writes them one after the other, so that a client
is woken up twice. `respond` writes both at once where it can, which takes a third of the time of two ASGI messages.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

KEEP_ALIVE_S = 620.0
"""A connection without a request is closed after as long.

Who is about to send a request has to be the one that gives up a connection: closed by the server at that moment, the
request is lost. Load balancers give up one that nobody uses after 60 s (AWS) to 600 s (Google Cloud), Go's client after
90 s, curl after 118 s.
"""

RESERVED_CONNECTIONS = 128
"""Beyond the limit of connections: a state, metrics or health are answered there, predictions refused."""

_LINGER_S = 1.0
_LOOK_AGAIN_S = 0.1
_IDLE_S = 1.0
"""A client that had its answer just now is likely to be sending the next request."""

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


def limited_protocol(client_timeout_s: float, most_connections: int, stop_s: float) -> type[HttpToolsProtocol]:
    """The protocol class of a server.

    Args:
        client_timeout_s: a request is there, head and body, this long after its first byte; else it is answered with
            408. A connection on which no request ever comes is closed after as long, and broken off where its client
            takes nothing of an answer for as long.
        most_connections: for one more, that which has been without a request for the longest is closed. Where each had
            one just now, predictions on the further ones are answered with 503, whatever is asked by GET is answered.
        stop_s: the server ends so long after `shutdown`. A request that is not whole shortly before is refused.
    """
    without_request: dict[LimitedProtocol, float] = {}  # since when, that for the longest first
    leaving: set[LimitedProtocol] = set()  # about to be closed: they take nobody's place
    upload_s = max(stop_s / 2, stop_s - 2 * _LINGER_S)

    class LimitedProtocol(HttpToolsProtocol):
        _writing: HeadWithBody
        _head_bytes = 0
        _in_head = True
        _timer: asyncio.TimerHandle | None = None
        _in_request = False
        _refused = False
        _is_beyond = False
        _is_last = False
        _end_s = float("inf")
        """A request is whole by then, by the clock of the event loop."""

        def connection_made(self, transport: Any) -> None:
            self._writing = HeadWithBody(transport, self.loop, client_timeout_s)
            joined: Any = self._writing
            super().connection_made(joined)
            if self._are_too_many():
                self._is_beyond = True
                if len(self.connections) > most_connections + RESERVED_CONNECTIONS:
                    self._refuse_beyond()
                    self.transport.close()  # at once: files are what is short
                    return
                _close_one(without_request, self.loop.time() - _IDLE_S)
                self._stays_beyond()
            self._timer = self.loop.call_later(self._patience_s(), self._close_silent)
            without_request[self] = self.loop.time()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            without_request.pop(self, None)
            leaving.discard(self)
            super().connection_lost(exc)
            self._stop_keep_alive()  # uvicorn leaves it where the client reset the connection
            self._writing.stop_watching()

        def eof_received(self) -> None:
            self.transport.close()  # as the event loop would, but for no longer than its client takes something

        def pause_writing(self) -> None:
            super().pause_writing()
            self._writing.watch()

        def resume_writing(self) -> None:
            super().resume_writing()
            if not self.transport.is_closing():
                self._writing.stop_watching()

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            if self._in_head:
                if not self._in_request:
                    self._begin_request()
                before = len(data)
                # A head that comes whole in one piece is at most as long as the piece.
                if self._head_bytes + before > MOST_HEAD_BYTES and self._head_is_too_long(data):
                    return
                self._head_bytes += before
            super().data_received(data)
            if self._in_request and self._timer is None and not self._refused:  # it came in pieces
                self._expect_the_rest()

        def on_message_begin(self) -> None:
            if not self._in_request:  # it came in one piece with the one before
                self._begin_request()
            super().on_message_begin()

        def _begin_request(self) -> None:
            self._in_request = True
            without_request.pop(self, None)
            self._stop_timer()
            self._stop_keep_alive()

        def _head_is_too_long(self, data: bytes) -> bool:
            """Refuses a head that does not end within the limit."""
            left = MOST_HEAD_BYTES - self._head_bytes
            end = data.find(b"\r\n\r\n")
            if 0 <= end <= left:
                return False
            self._refuse(431, f"The first line and the headers have at most {MOST_HEAD_BYTES} bytes together.")
            return True

        def on_headers_complete(self) -> None:
            if self._refused:
                return
            if self._is_beyond and self._stays_beyond() and self.parser.get_method() != b"GET":
                self._refuse_beyond()
                return
            super().on_headers_complete()
            self._in_head = False
            if self._is_beyond or self._is_last:
                self.cycle.keep_alive = False
            self.scope[AT_ONCE] = partial(_at_once, self.cycle)  # type: ignore[literal-required]

        def on_body(self, body: bytes) -> None:
            if not self._refused:
                super().on_body(body)

        def on_message_complete(self) -> None:
            if self._refused:
                return
            self._stop_timer()
            self._in_head, self._in_request, self._head_bytes = True, False, 0
            super().on_message_complete()
            if self.cycle.response_complete and not self.transport.is_closing():  # answered before it was whole
                self._stop_keep_alive()
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
                without_request[self] = self.loop.time()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.timeout_keep_alive_task is not None and self.is_without_request():
                without_request[self] = self.loop.time()

        def timeout_keep_alive_handler(self) -> None:
            if self.transport.is_closing():
                return
            if self.is_without_request():
                super().timeout_keep_alive_handler()
            else:
                self.timeout_keep_alive_task = self.loop.call_later(_LOOK_AGAIN_S, self.timeout_keep_alive_handler)

        def shutdown(self) -> None:
            if self._refused or self.is_without_request():
                super().shutdown()
                return
            self._is_last = True
            if self.cycle is not None:
                self.cycle.keep_alive = False
            self._end_s = self.loop.time() + upload_s
            if self._is_answered():
                self._refuse_at_the_end()
            elif self._in_request and self._timer is not None and self._timer.when() > self._end_s:
                self._stop_timer()
                self._expect_the_rest()

        def _are_too_many(self) -> bool:
            return len(self.connections) - len(leaving) > most_connections

        def _stays_beyond(self) -> bool:
            """Whether a connection that came beyond the limit still is: room may have been made."""
            self._is_beyond = self._is_beyond and self._are_too_many()
            return self._is_beyond

        def _patience_s(self) -> float:
            """How long a client has: one that says nothing, or is slow, must not hold what is reserved."""
            return min(_LINGER_S, client_timeout_s) if self._is_beyond else client_timeout_s

        def is_without_request(self) -> bool:
            """Whether no request is here, nor any byte of one that was not read yet.

            Timers come before what was sent meanwhile is read. A connection that is closed with bytes unread is reset,
            and their request is lost.
            """
            answered = self.cycle is None or self.cycle.response_complete
            silent = self.transport.is_closing() or not _unread_bytes(self.transport)
            return answered and not self._in_request and silent

        def _is_answered(self) -> bool:
            """Whether the request whose body is still coming has its answer."""
            return not self._in_head and self.cycle.response_complete

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, msg)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _stop_keep_alive(self) -> None:
            if self.timeout_keep_alive_task is not None:
                self.timeout_keep_alive_task.cancel()
                self.timeout_keep_alive_task = None

        def _close_silent(self) -> None:
            if self.transport.is_closing():
                return
            if self._refused:
                self.transport.close()
            elif self._is_beyond and not self._stays_beyond():
                self._timer = self.loop.call_later(client_timeout_s, self._close_silent)
            elif self.is_without_request():
                self.transport.close()
            else:
                self._timer = self.loop.call_later(_LOOK_AGAIN_S, self._close_silent)

        def _expect_the_rest(self) -> None:
            left_s = max(_LOOK_AGAIN_S, self._end_s - self.loop.time())
            self._timer = self.loop.call_later(min(self._patience_s(), left_s), self._refuse_slow)

        def _refuse_slow(self) -> None:
            if self.flow.read_paused or (self._is_beyond and not self._stays_beyond()):
                self._expect_the_rest()  # it is not the client that is slow; or there is room for it now
            elif self._is_last:
                self._refuse_at_the_end()
            elif self._is_beyond:
                self._refuse_beyond()
            else:
                self._refuse(408, f"A request is sent within {client_timeout_s:g} s.")

        def _refuse_at_the_end(self) -> None:
            self._refuse(503, "The server ends, and the request is not whole. Send it again.", b"1")

        def _refuse_beyond(self) -> None:
            self._refuse(503, f"The server takes {most_connections} connections at a time. Try later.", b"1")

        def _refuse(self, status: int, message: str, retry_after_s: bytes | None = None) -> None:
            """Answers in the place of the application, unless that has begun to, and closes the connection."""
            if self._refused or self.transport is None or self.transport.is_closing():
                return
            self._stop_timer()
            self._refused = True
            leaving.add(self)
            is_between = self._in_head and self.cycle is not None and self.cycle.response_complete
            if is_between or self.cycle is None or not self.cycle.response_started:
                body = orjson.dumps({"error": message})
                head = STATUS_LINE[status] + b"content-type: application/json\r\n"
                head += b"" if retry_after_s is None else b"retry-after: %b\r\n" % retry_after_s
                head += b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
                self.transport.write(head + body)
            # What the client goes on to send is read and dropped for a while: were the connection closed with bytes
            # unread, the kernel would reset it, and the client might never see the answer.
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._timer = self.loop.call_later(_LINGER_S, self._close_silent)

    def _close_one(protocols: dict[LimitedProtocol, float], latest: float) -> None:
        """Closes the first that has no request, and had none since then."""
        while protocols:
            first, since = next(iter(protocols.items()))
            if since > latest:
                return
            del protocols[first]
            if first.is_without_request():
                leaving.add(first)
                first.transport.close()
                return

    return LimitedProtocol


def _unread_bytes(transport: Any) -> int:
    """Bytes that have come on a connection and were not read yet."""
    count = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, count)
    return count[0]


class HeadWithBody:
    """A transport that keeps the head of an answer until its body comes, and no longer than the event loop's next turn.

    Args:
        transport: what is written to.
        loop: the event loop.
        taken_s: the connection is broken off where its client takes nothing of what waits for it for as long.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop, taken_s: float) -> None:
        self._transport = transport
        self._loop = loop
        self._taken_s = taken_s
        self._head = b""
        self._watching: asyncio.TimerHandle | None = None

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
        """Closes the transport once all is written, or its client takes nothing more."""
        self._flush()
        self._transport.close()
        self.watch()

    def watch(self) -> None:
        """Breaks the connection off if what waits to be written does not grow less within `taken_s`."""
        if self._watching is None and (waiting := self._transport.get_write_buffer_size()):
            self._watching = self._loop.call_later(self._taken_s, self._look, waiting)

    def stop_watching(self) -> None:
        """Ends what `watch` began."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _look(self, before: int) -> None:
        self._watching = None
        if self._transport.get_write_buffer_size() >= before:
            self._transport.abort()
        else:
            self.watch()

    def __getattr__(self, name: str) -> Any:
        """Whatever else a transport does."""
        return getattr(self._transport, name)

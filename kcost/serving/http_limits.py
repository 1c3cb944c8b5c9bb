"""uvicorn's HTTP protocol with what it leaves out: limits on the head of a request, on slow clients and on connections.

Also, the head of an answer is written together with its body: uvicorn writes them one after the other, so that a client
is woken up twice. And a request that came whole can go another way than ASGI; see `Take`.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from functools import partial
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from kcost.serving.at_once import AT_ONCE, Exchange, Headers, RequestHead, Take, answer_cycle, whole_answer
from kcost.serving.head_with_body import HeadWithBody
from kcost.serving.known_heads import KnownHeads
from kcost.serving.status import unforeseen

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


def limited_protocol(
    client_timeout_s: float, most_connections: int, stop_s: float, take: Take | None = None
) -> type[HttpToolsProtocol]:
    """The protocol class of a server.

    Args:
        client_timeout_s: a request is there, head and body, this long after its first byte; else it is answered with
            408. A connection on which no request ever comes is closed after as long, and broken off where its client
            takes nothing of an answer for as long.
        most_connections: for one more, that which has been without a request for the longest is closed. Where each had
            one just now, predictions on the further ones are answered with 503, whatever is asked by GET is answered.
        stop_s: the server ends so long after `shutdown`. A request that is not whole shortly before is refused.
        take: is offered POST requests that came in one piece, each where the one before it was answered. What it does
            not take, and all others, go to the ASGI application.
    """
    without_request: dict[LimitedProtocol, float] = {}  # since when, that for the longest first
    leaving: set[LimitedProtocol] = set()  # about to be closed: they take nobody's place
    upload_s = max(stop_s / 2, stop_s - 2 * _LINGER_S)
    heads = KnownHeads[RequestHead]()  # of requests that were taken

    class LimitedProtocol(HttpToolsProtocol):
        _writing: HeadWithBody
        _exchange: Exchange
        _head_bytes = 0
        _in_head = True
        _timer: asyncio.TimerHandle | None = None
        _in_request = False
        _refused = False
        _is_beyond = False
        _is_last = False
        _end_s = float("inf")
        """A request is whole by then, by the clock of the event loop."""
        _held: list[bytes] | None = None
        """The body so far of a request that may be taken whole: uvicorn has nothing of it yet."""
        _piece = b""
        """What is being read, where a request begins with it."""
        _is_declined = False
        """Whether `take` was offered what is being read, and did not take it."""
        _upgrading = b""
        """The first line of a request that wishes to go over to another protocol, until its head was parsed again."""

        def connection_made(self, transport: Any) -> None:
            self._exchange = Exchange()
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
            if self.timeout_keep_alive_task is not None:  # uvicorn leaves it where the client reset the connection
                self.timeout_keep_alive_task.cancel()
                self.timeout_keep_alive_task = None
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
            if self._refused or self._is_known_and_taken(data):
                return
            if self._in_head:
                if not self._in_request:
                    self._begin_request()
                    self._piece = data
                self._head_bytes += len(data)
                # A head that comes whole in one piece is at most as long as the piece.
                if self._head_bytes > MOST_HEAD_BYTES and self._head_is_too_long(data):
                    return
            try:
                self._feed(data)
                if self._held is not None:
                    self._give_to_uvicorn()
            except (httptools.HttpParserError, UnicodeDecodeError):
                self.send_400_response("Invalid HTTP request received.")
            self._piece, self._is_declined = b"", False
            if self._in_request and self._timer is None and not self._refused:  # it came in pieces
                self._expect_the_rest()

        def _is_known_and_taken(self, data: bytes) -> bool:
            """Offers `take` a whole request whose head came before: the parser, which is between two, sees none of it.

            Returns:
                False where it is to be parsed: it is none of these, or was not taken.
            """
            if take is None or self._in_request or self._is_last or self._is_beyond or self.flow.write_paused:
                return False
            if self.cycle is not None and not self.cycle.response_complete:
                return False
            known = heads.split(data)
            if known is None:
                return False
            self._begin_request()
            self._in_request = self._in_head = False
            self._begin_exchange(keep_alive=True)
            try:
                is_taken = take(*known, self._answer)
            except Exception as error:
                self._refuse(500, unforeseen(error).message)
                is_taken = True
            self._in_head = True
            if not is_taken:
                self._is_declined = True
                self.cycle = None  # type: ignore[assignment]
            return is_taken

        def _begin_exchange(self, *, keep_alive: bool) -> None:
            exchange = self._exchange
            exchange.response_started = exchange.response_complete = False
            exchange.keep_alive = keep_alive
            self.cycle = exchange  # type: ignore[assignment]

        def _feed(self, data: bytes) -> None:
            rest = memoryview(data)
            while True:
                try:
                    self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as upgrade:
                    if not self._upgrading:  # it is CONNECT, behind which the parser reads no further request
                        if self.cycle is not None:
                            self.cycle.keep_alive = False
                        return
                    # There is nothing to go over to, and the parser takes what follows the head for another protocol:
                    # a new one gets the same head without the wish. Java's client has it in requests with a body, too.
                    rest = rest[upgrade.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                    self.parser.feed_data(self._head_without_upgrade())
                else:
                    return

        def _head_without_upgrade(self) -> bytes:
            lines, self._upgrading = [self._upgrading], b""
            for name, value in self.headers:
                if name == b"connection":
                    words = [word.strip() for word in value.split(b",")]
                    value = b", ".join(word for word in words if word.lower() not in (b"upgrade", b"http2-settings"))
                if name != b"upgrade" and (value or name != b"connection"):
                    lines.append(name + b": " + value)
            return b"\r\n".join([*lines, b"", b""])

        def on_message_begin(self) -> None:
            if not self._in_request:  # it came in one piece with the one before
                self._begin_request()
            if take is None:
                super().on_message_begin()
            else:  # what ASGI needs beyond these is made for requests that go that way
                self.url, self.headers, self.expect_100_continue = b"", [], False

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._in_head:  # what stands behind a body in chunks is none of the head
                super().on_header(name, value)

        def _begin_request(self) -> None:
            self._in_request = True
            without_request.pop(self, None)
            if self._timer is not None:
                self._stop_timer()

        def _head_is_too_long(self, data: bytes) -> bool:
            """Refuses a head that does not end within the limit."""
            left = MOST_HEAD_BYTES - (self._head_bytes - len(data))
            end = data.find(b"\r\n\r\n")
            if 0 <= end <= left:
                return False
            self._refuse(431, f"The first line and the headers have at most {MOST_HEAD_BYTES} bytes together.")
            return True

        def on_headers_complete(self) -> None:
            if self._refused:
                return
            if self.parser.should_upgrade() and (method := self.parser.get_method()) != b"CONNECT":
                self._upgrading = b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())
                return
            if self._is_beyond and self._stays_beyond() and self.parser.get_method() != b"GET":
                self._refuse_beyond()
                return
            if take is not None and self._may_be_taken():
                self._held, self._in_head = [], False
                self._begin_exchange(keep_alive=self.parser.should_keep_alive())
            else:
                self._begin_cycle()

        def _may_be_taken(self) -> bool:
            """Whether the request whose head is there goes to `take`, should its body come with it."""
            return (
                self.parser.get_method() == b"POST"
                and self.url.startswith(b"/")
                and self.url.isascii()
                and (self.cycle is None or self.cycle.response_complete)
                and not (self._is_last or self.expect_100_continue or self.flow.write_paused or self._is_declined)
                and self.parser.get_http_version() == "1.1"
            )

        def _begin_cycle(self) -> None:
            """Begins uvicorn's cycle of a request, with the ASGI application."""
            if take is not None:
                url, headers, expect_100_continue = self.url, self.headers, self.expect_100_continue
                super().on_message_begin()
                self.url, self.expect_100_continue = url, expect_100_continue
                self.headers += headers
            super().on_headers_complete()
            self._in_head = False
            if self._is_beyond or self._is_last:
                self.cycle.keep_alive = False
            self.scope[AT_ONCE] = partial(answer_cycle, self.cycle)  # type: ignore[literal-required]

        def _give_to_uvicorn(self) -> None:
            """Has a request that was held go by ASGI after all."""
            assert self._held is not None
            pieces, self._held, self._in_head = self._held, None, True
            self.cycle = None  # type: ignore[assignment]
            self._begin_cycle()
            for piece in pieces:
                super().on_body(piece)

        def on_body(self, body: bytes) -> None:
            if self._held is not None:
                self._held.append(body)
            elif not self._refused:
                super().on_body(body)

        def on_message_complete(self) -> None:
            if self._refused or self._upgrading:
                return
            if self._timer is not None:
                self._stop_timer()
            is_taken = self._held is not None and self._is_taken()
            self._in_head, self._in_request, self._head_bytes = True, False, 0
            if is_taken or self._refused:
                return
            super().on_message_complete()
            if self.cycle.response_complete and not self.transport.is_closing():  # answered before it was whole
                self._wait_for_request()

        def _is_taken(self) -> bool:
            """Offers the request that was held, which is whole, and has it go by ASGI where it is not taken."""
            assert take is not None
            assert self._held is not None
            head, body = RequestHead(self.url, self.headers), b"".join(self._held)
            keep_alive = self._exchange.keep_alive
            try:
                is_taken = take(head, body, self._answer)
            except Exception as error:  # the parser would make it a fault of the client
                self._held = None
                self._refuse(500, unforeseen(error).message)
                return False
            if is_taken:
                self._held = None
                if keep_alive and self._piece:
                    heads.keep(self._piece, len(body), head)
            else:
                self._give_to_uvicorn()
            return is_taken

        def _answer(self, status: int, headers: Headers, body: bytes) -> None:
            """Answers a request that was taken."""
            exchange = self._exchange
            headers = [*self.server_state.default_headers, *headers]
            answer = whole_answer(status, headers, body, keep_alive=exchange.keep_alive)
            exchange.response_started = exchange.response_complete = True
            if self._refused or self.transport.is_closing():
                return
            self._writing.write(answer)
            if not exchange.keep_alive:
                self.transport.close()
            self.on_response_complete()

        def on_response_complete(self) -> None:
            if self.pipeline or self.transport.is_closing():
                # At once: a request that is read meanwhile would begin, and be overtaken by the one that waits.
                super().on_response_complete()
            else:
                self.loop.call_soon(self._after_response)  # once what was written has left

        def _after_response(self) -> None:
            """In the place of uvicorn's own, which makes a timer for each request."""
            self.server_state.total_requests += 1
            if self.transport.is_closing():
                return
            if not self.pipeline:
                self.flow.resume_reading()
            self._wait_for_request()

        def _wait_for_request(self) -> None:
            """From here on the connection has no request, unless one is here already: its end comes here, too."""
            if self._is_answered_so_far():
                without_request[self] = self.loop.time()
                if self.timeout_keep_alive_task is None:
                    self._look_at_keep_alive(self.timeout_keep_alive)

        def _look_at_keep_alive(self, later_s: float) -> None:
            self.timeout_keep_alive_task = self.loop.call_later(later_s, self.timeout_keep_alive_handler)

        def timeout_keep_alive_handler(self) -> None:
            self.timeout_keep_alive_task = None
            if self.transport.is_closing() or not self.is_without_request():
                return
            now_s = self.loop.time()
            left_s = without_request.get(self, now_s) + self.timeout_keep_alive - now_s
            if left_s > 0:  # it had requests meanwhile
                self._look_at_keep_alive(left_s)
            else:
                self.transport.close()

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
            return self._is_answered_so_far() and (self.transport.is_closing() or not _unread_bytes(self.transport))

        def _is_answered_so_far(self) -> bool:
            """Whether all that was read of requests has its answer."""
            return not self._in_request and (self.cycle is None or self.cycle.response_complete)

        def _is_answered(self) -> bool:
            """Whether the request whose body is still coming has its answer."""
            return not self._in_head and self.cycle.response_complete

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, msg)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

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

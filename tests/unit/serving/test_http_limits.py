"""Answers in one write, and connections: when one is given up, how many there are, and who is refused."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import select
import socket
import struct
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kcost.core.errors import InputError
from kcost.serving import http_limits, http_server
from kcost.serving.at_once import respond
from kcost.serving.head_with_body import HeadWithBody
from kcost.serving.http_server import HttpServer, HttpSettings, allowed_connections

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class FakeTransport:
    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("close")

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> str:
        return f"its {name}"


def calls_of(*steps: bytes | str | None) -> list[bytes | str]:
    """What reaches the transport; a step is bytes to write, a method to call, or None for a turn of the loop."""

    async def run() -> list[bytes | str]:
        transport = FakeTransport()
        joined = HeadWithBody(transport, asyncio.get_running_loop(), 1.0)
        for step in steps:
            if step is None:
                await asyncio.sleep(0)
            elif isinstance(step, bytes):
                joined.write(step)
            else:
                getattr(joined, step)()
        return list(transport.calls)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("steps", "calls"),
    [
        ((HEAD, b"ok"), [HEAD + b"ok"]),
        ((HEAD, b"ok", None), [HEAD + b"ok"]),
        ((HEAD, b"o", b"k"), [HEAD + b"o", b"k"]),
        ((HEAD,), []),
        ((HEAD, None), [HEAD]),
        ((HEAD, None, b"ok"), [HEAD, b"ok"]),
        ((HEAD, b"ok", HEAD, b"ko"), [HEAD + b"ok", HEAD + b"ko"]),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", None, HEAD, b""), [b"HTTP/1.1 100 Continue\r\n\r\n", HEAD]),
        ((HEAD, "close"), [HEAD, "close"]),
        ((HEAD, "write_eof"), [HEAD, "write_eof"]),
        ((HEAD, b"ok", "close", None), [HEAD + b"ok", "close"]),
        ((b"ok",), [b"ok"]),
    ],
)
def test_head_and_body_are_one_write(steps: tuple[bytes | str | None, ...], calls: list[bytes | str]) -> None:
    assert calls_of(*steps) == calls


def test_whatever_else_a_transport_does() -> None:
    async def run() -> str:
        info: str = HeadWithBody(FakeTransport(), asyncio.get_running_loop(), 1.0).get_extra_info("name")
        return info

    assert asyncio.run(run()) == "its name"


ASKED = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
LOOKED = b"GET /v1/models/m HTTP/1.1\r\nhost: x\r\n\r\n"
BIG_BYTES = 40 << 20
Client = Callable[[int], None]
Loop = Callable[[], asyncio.AbstractEventLoop]
LOOPS: list[Loop] = [uvloop.new_event_loop, asyncio.new_event_loop]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[HttpServer]:
    """Those that the test makes."""
    made: list[HttpServer] = []
    make = HttpServer.__init__

    def remembered(self: HttpServer, *arguments: Any) -> None:
        made.append(self)
        make(self, *arguments)

    monkeypatch.setattr(HttpServer, "__init__", remembered)
    return made


def with_server(client: Client, loop: Loop, seen: list[str] | None = None, **settings: float) -> None:
    """Runs a client, in a thread, against a server on a port.

    Args:
        seen: takes the paths of what the application was asked.
    """

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope["path"]
        if seen is not None:
            seen.append(path)
        while path != "/early" and (await receive()).get("more_body", False):
            pass
        await respond(scope, send, 200, [], b"x" * BIG_BYTES if path == "/big" else path.encode())

    async def run() -> None:
        server = HttpServer(application, HttpSettings(port=0).model_copy(update=settings))
        serving = asyncio.create_task(server.serve())
        try:
            await asyncio.to_thread(client, int(server.url.rpartition(":")[2]))
        finally:
            server.stop()
            await serving

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def answered(connection: socket.socket, request: bytes) -> bytes:
    """What comes back until there is a body; a connection that is closed before gives less."""
    connection.sendall(request)
    came = b""
    while b"\r\n\r\n" not in came or came.endswith(b"\r\n\r\n"):
        piece = connection.recv(1 << 16)
        if not piece:
            break
        came += piece
    return came


@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_that_comes_as_its_connection_is_given_up_is_answered(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer is due while the server reads something else, and the request lies unread: it was reset, and lost."""
    monkeypatch.setattr(http_server, "KEEP_ALIVE_S", 1)
    on_url = HttpToolsProtocol.on_url

    def slow_on_url(self: HttpToolsProtocol, url: bytes) -> None:
        if url == b"/slow":
            time.sleep(0.6)
        on_url(self, url)

    monkeypatch.setattr(HttpToolsProtocol, "on_url", slow_on_url)

    def client(port: int) -> None:
        with connected(port) as kept, connected(port) as other:
            assert answered(kept, ASKED).startswith(b"HTTP/1.1 200")
            time.sleep(0.7)
            other.sendall(ASKED.replace(b"/x", b"/slow"))
            time.sleep(0.1)  # the server is reading it until the second of the other one is over
            assert answered(kept, ASKED).startswith(b"HTTP/1.1 200")
            assert kept.recv(100) == b""  # a second later it is given up after all

    with_server(client, loop)


def test_beyond_the_limit_predictions_are_refused_and_states_are_told() -> None:
    def client(port: int) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                half = stack.enter_context(connected(port))
                half.sendall(ASKED[:-1])  # at a request, so that none can be closed for another
            time.sleep(0.3)
            asking, looking, big = (stack.enter_context(connected(port)) for _ in range(3))
            refusal = answered(asking, ASKED)
            assert refusal.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"retry-after: 1\r\n" in refusal
            assert b'{"error":"The server takes 3 connections at a time. Try later."}' in refusal
            state = answered(looking, LOOKED)
            assert state.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"connection: close" in state  # it must not hold what is kept for others
            # A body that is still being sent is read to its end, so that its client sees why it was refused.
            length = 1 << 20
            head = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length
            assert answered(big, head + b"x" * length).startswith(b"HTTP/1.1 503")
            half.sendall(ASKED[-1:])
            assert answered(half, b"").startswith(b"HTTP/1.1 200")
            # One that had its answer just now may be sending again; after a second it makes room for a new one.
            assert answered(stack.enter_context(connected(port)), ASKED).startswith(b"HTTP/1.1 503")
            time.sleep(1.1)
            assert answered(stack.enter_context(connected(port)), ASKED).startswith(b"HTTP/1.1 200")
            assert half.recv(100) == b""

    with_server(client, uvloop.new_event_loop, connections=3)


def test_a_connection_beyond_the_limit_that_says_nothing_is_closed_soon() -> None:
    def client(port: int) -> None:
        with connected(port) as half, connected(port) as silent:
            half.sendall(ASKED[:-1])
            time.sleep(0.1)
            with connected(port) as beyond:
                begin_s = time.monotonic()
                assert beyond.recv(100) == b""
                assert time.monotonic() - begin_s < 10
            assert answered(silent, ASKED).startswith(b"HTTP/1.1 200")

    with_server(client, uvloop.new_event_loop, connections=2, client_timeout_s=20)


def test_where_even_the_reserved_connections_are_taken_the_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "RESERVED_CONNECTIONS", 1)

    def client(port: int) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(connected(port)).sendall(ASKED[:-1])
            time.sleep(0.1)
            assert answered(stack.enter_context(connected(port)), LOOKED).startswith(b"HTTP/1.1 503")

    with_server(client, uvloop.new_event_loop, connections=1)


def test_many_connections_are_served_and_reused() -> None:
    """More than a server took before, and more than `select` knows descriptors for."""

    def client(port: int) -> None:
        with contextlib.ExitStack() as stack:
            many = [stack.enter_context(connected(port)) for _ in range(1200)]
            for connection in (*many, *many):
                assert answered(connection, ASKED).startswith(b"HTTP/1.1 200")

    with_server(client, uvloop.new_event_loop, connections=allowed_connections(2500))


def test_an_end_answers_a_request_that_lies_unread(servers: list[HttpServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is replaced must not reset the connections of those who are sending."""
    shutdown = http_server._QuietServer.shutdown

    async def late(self: Any, sockets: Any = None) -> None:
        connection.sendall(ASKED)
        await shutdown(self, sockets)

    monkeypatch.setattr(http_server._QuietServer, "shutdown", late)

    def client(port: int) -> None:
        nonlocal connection
        connection = connected(port)
        assert answered(connection, ASKED).startswith(b"HTTP/1.1 200")
        servers[0].stop()
        answer = answered(connection, b"")
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
        assert connection.recv(100) == b""
        connection.close()

    connection: Any = None
    with_server(client, uvloop.new_event_loop)


EARLY = b"GET /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n"
"""Answered before its body is there."""


def alive(servers: list[HttpServer]) -> list[weakref.ref[Any]]:
    return [weakref.ref(connection) for connection in servers[0]._uvicorn.server_state.connections]


def wait_until(holds: Callable[[], bool], most_s: float = 15) -> None:
    end_s = time.monotonic() + most_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_body_that_comes_after_its_answer_leaves_a_connection_as_any_other(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "KEEP_ALIVE_S", 2)

    def client(port: int) -> None:
        with connected(port) as connection:
            for rest, answers in ((b"x" + EARLY + b"x", 1), (b"x" + ASKED, 1), (b"x", 0)):
                assert answered(connection, EARLY).startswith(b"HTTP/1.1 200")
                connection.sendall(rest)
                for _ in range(answers):
                    assert answered(connection, b"").startswith(b"HTTP/1.1 200")
            assert connection.recv(100) == b""  # two seconds later it is given up

    with_server(client, loop)


def test_a_connection_that_was_answered_early_makes_room() -> None:
    def client(port: int) -> None:
        with connected(port) as first:
            assert answered(first, EARLY).startswith(b"HTTP/1.1 200")
            first.sendall(b"x")
            time.sleep(1.2)
            with connected(port) as second:
                assert answered(second, ASKED).startswith(b"HTTP/1.1 200")
            assert first.recv(100) == b""

    with_server(client, uvloop.new_event_loop, connections=1)


def test_a_body_that_never_comes_after_its_answer_gets_no_second_one() -> None:
    def client(port: int) -> None:
        with connected(port) as connection:
            assert answered(connection, EARLY).startswith(b"HTTP/1.1 200")
            assert connection.recv(100) == b""

    with_server(client, uvloop.new_event_loop, client_timeout_s=1)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("request_", [EARLY, ASKED])
def test_nothing_is_left_of_a_connection_that_its_client_resets(
    loop: Loop, request_: bytes, servers: list[HttpServer]
) -> None:
    """Timers of a dead connection kept it in memory, for ten minutes or for ever."""

    def client(port: int) -> None:
        with connected(port) as connection:
            assert answered(connection, request_).startswith(b"HTTP/1.1 200")
            left = alive(servers)
            assert len(left) == 1
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def is_gone() -> bool:
            gc.collect()
            return left[0]() is None

        wait_until(is_gone)

    with_server(client, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", ["keep-alive", "close", "half-closed"])
def test_a_client_that_takes_nothing_of_its_answer_is_given_up(loop: Loop, how: str, servers: list[HttpServer]) -> None:
    def client(port: int) -> None:
        with connected(port) as connection:
            said = b"connection: close\r\n" if how == "close" else b""
            connection.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\n" + said + b"\r\n")
            wait_until(lambda: select.select([connection], [], [], 0)[0] != [])
            if how == "half-closed":
                connection.shutdown(socket.SHUT_WR)
            assert len(alive(servers)) == 1
            wait_until(lambda: not servers[0]._uvicorn.server_state.connections)

    with_server(client, loop, client_timeout_s=1)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_takes_its_answer_slowly_gets_it_whole(loop: Loop) -> None:
    def client(port: int) -> None:
        with connected(port) as connection:
            connection.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            came, begin_s = 0, time.monotonic()
            while piece := connection.recv(4 << 20, socket.MSG_WAITALL):
                came += len(piece)
                time.sleep(0.25)
            assert time.monotonic() - begin_s > 2  # longer than one that takes nothing has
            assert came > BIG_BYTES

    with_server(client, loop, client_timeout_s=1)


def test_connections_that_never_asked_anything_make_room() -> None:
    def client(port: int) -> None:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(connected(port)) for _ in range(2)]
            time.sleep(1.2)
            begin_s = time.monotonic()
            third = stack.enter_context(connected(port))
            assert silent[0].recv(100) == b""
            time.sleep(1.5)  # one that room was made for has as long as any other
            answer = answered(third, ASKED)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close" not in answer
            assert answered(silent[1], ASKED).startswith(b"HTTP/1.1 200")
            assert time.monotonic() - begin_s < 15  # none of it waited for the timeout of clients

    with_server(client, uvloop.new_event_loop, connections=2, client_timeout_s=20)


def test_a_connection_beyond_the_limit_that_is_slow_is_refused_soon() -> None:
    def client(port: int) -> None:
        with connected(port) as half:
            half.sendall(ASKED[:-1])
            time.sleep(0.1)
            with connected(port) as slow:
                begin_s = time.monotonic()
                assert answered(slow, LOOKED[:-1]).startswith(b"HTTP/1.1 503")
                assert time.monotonic() - begin_s < 10

    with_server(client, uvloop.new_event_loop, connections=1, client_timeout_s=20)


def test_what_comes_behind_a_refusal_is_not_taken() -> None:
    seen: list[str] = []

    def client(port: int) -> None:
        with connected(port) as half, connected(port) as refused:
            half.sendall(ASKED[:-1])
            time.sleep(0.1)
            refused.sendall(ASKED + LOOKED)
            came = b""
            while piece := refused.recv(1 << 16):
                came += piece
            assert came.startswith(b"HTTP/1.1 503")
            assert came.count(b"HTTP/1.1") == 1
        assert seen == ["/x"]  # the half one

    with_server(client, uvloop.new_event_loop, seen, connections=1)


def test_an_end_leaves_uploads_time_and_refuses_what_does_not_come(servers: list[HttpServer]) -> None:
    def client(port: int) -> None:
        with connected(port) as slow, connected(port) as stuck, connected(port) as early:
            slow.sendall(ASKED[:-1])
            stuck.sendall(ASKED[:-1])
            assert answered(early, EARLY).startswith(b"HTTP/1.1 200")
            servers[0].stop()
            assert early.recv(100) == b""  # it has its answer
            time.sleep(1.5)
            answer = answered(slow, ASKED[-1:])
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in answer
            refusal = answered(stuck, b"")
            assert refusal.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1\r\n" in refusal
            assert b"the request is not whole" in refusal

    with_server(client, uvloop.new_event_loop, stop_s=6)


@pytest.mark.parametrize(
    ("limits", "requested", "files_each", "allowed", "raised_to"),
    [
        ((1024, 1 << 20), None, 1, 16_384, 16_384 + 128 + 256),
        ((1 << 20, 1 << 20), None, 1, 16_384, None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 50_000, 1, 50_000, None),
        ((1024, resource.RLIM_INFINITY), 2000, 2, 2000, 2 * 2128 + 256),
        ((1024, 4096), None, 1, 4096 - 256 - 128, 4096),
        ((1024, 4096), None, 2, 1920 - 128, 4096),
        ((1024, 1024), 10, 1, 10, None),
    ],
)
def test_connections_follow_the_limit_of_open_files(
    limits: tuple[int, int],
    requested: int | None,
    files_each: int,
    allowed: int,
    raised_to: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: raised.append(both))
    assert allowed_connections(requested, files_each) == allowed
    assert raised == ([] if raised_to is None else [(raised_to, limits[1])])


@pytest.mark.parametrize(("requested", "message"), [(0, "at least 1"), (4000, "ulimit -n"), (None, "ulimit -n")])
def test_connections_that_the_limit_of_open_files_does_not_leave(
    requested: int | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256 if requested is None else 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(InputError, match=message):
        allowed_connections(requested)

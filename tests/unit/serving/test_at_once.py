"""Whole answers and whole requests: no client can tell which way its request went."""

from __future__ import annotations

import asyncio
import gc
import itertools
import queue
import re
import socket
import struct
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings, strategies as st

from kcost.serving import http_server
from kcost.serving.at_once import RequestHead, Respond, respond
from kcost.serving.http_server import HttpServer, HttpSettings


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (b"GET /ab HTTP/1.1\r\n\r\n", [b"/ab"]),
        (b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", [b"/a", b"/b"]),
        (b"POST /a HTTP/1.1\r\ncontent-length: 1\r\n\r\n?GET /b HTTP/1.1\r\n\r\n", [b"/a", b"/b"]),
        (b"GET /a HTTP/1.0\r\n\r\n", [b"/a"]),
        (b"GET /close HTTP/1.1\r\n\r\n", [b"/close"]),
        (b"HEAD /a HTTP/1.1\r\n\r\n", [b""]),
    ],
)
def test_an_answer_at_once_is_that_of_two_messages(sent: bytes, answers: list[bytes]) -> None:
    """The same bytes, but for the date, whichever way the server takes."""

    async def came(*, at_once: bool) -> list[bytes]:
        async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if not at_once:
                scope = {"path": scope["path"]}
            closes = [(b"connection", b"close")] if scope["path"] == "/close" else []
            await respond(scope, send, 200, [(b"x-a", b"1"), *closes], scope["path"].encode())

        server = HttpServer(application, HttpSettings(port=0))
        serving = asyncio.create_task(server.serve())
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(sent)
        bodies = []
        for body in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            head = re.sub(rb"date: .*\r\n", b"", head)
            bodies.append(head + await reader.readexactly(len(body)))
        closing = b"connection: close" in bodies[-1]
        assert not closing or await reader.read() == b""
        writer.close()
        server.stop()
        await serving
        return bodies

    whole = asyncio.run(came(at_once=True))
    assert [text.partition(b"\r\n\r\n")[2] for text in whole] == answers
    assert whole == asyncio.run(came(at_once=False))
    assert (b"connection: close" in whole[-1]) == (b"1.0" in sent or b"close" in sent)


class Taker:
    """Takes requests, but those below /asgi; gives the answer that the application gives.

    Args:
        later_s: when; 0 for at once, None for the event loop's next turn.
    """

    def __init__(self, later_s: float | None = None) -> None:
        self.taken: list[bytes] = []
        self._later_s = later_s

    def take(self, head: RequestHead, body: bytes, respond: Respond) -> bool:
        target, headers = head.target, head.headers
        if target.startswith(b"/asgi"):
            return False
        self.taken.append(target)
        names = b" ".join(name for name, _ in headers)
        answer = ([(b"x-names", names)], target.partition(b"?")[0] + b" " + body)
        loop = asyncio.get_running_loop()
        if self._later_s == 0:
            respond(200, *answer)
        elif self._later_s is None:
            loop.call_soon(respond, 200, *answer)
        else:
            loop.call_later(self._later_s, respond, 200, *answer)
        return True


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    names = b" ".join(name for name, _ in scope["headers"])
    await respond(scope, send, 200, [(b"x-names", names)], scope["raw_path"] + b" " + body)


Client = Callable[[int, HttpServer], Awaitable[None]]


def with_server(client: Client, take: Any, **changes: Any) -> None:
    async def run() -> None:
        server = HttpServer(application, HttpSettings(port=0).model_copy(update=changes), take)
        serving = asyncio.create_task(server.serve())
        try:
            await client(int(server.url.rpartition(":")[2]), server)
        finally:
            server.stop()
            await serving
            server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


REQUESTS = [
    b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc",
    b"POST /b?q=1 HTTP/1.1\r\nHost: x\r\ncontent-length: 0\r\n\r\n",
    b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nx-trailer: 1\r\n\r\n",
    b"POST /d HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nd",
    b"POST /asgi HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
    b"GET /e HTTP/1.1\r\nhost: x\r\n\r\n",
    b"PUT /f HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nf",
    b"\r\nPOST /g HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n" + b"g" * 20,
    # Java's client, which would rather speak HTTP/2
    b"POST /u HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 5\r\nHost: x\r\n"
    b"HTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\n\r\nGET /",
]
LAST = [
    b"POST /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\nz",
    b"POST /last HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nz",
    b"POST /asgi HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
]
WRONG = [
    b"POST http:// HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nz",
    b"POST /\xc3\xa9 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nz",
    b"POST /bad HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /bad HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"no HTTP at all\r\n\r\n",
]


LATER_S = (0.0, None, 0.004)


def all_that_comes(pieces: list[bytes], port: int, *, one_by_one: bool = False) -> bytes:
    """What a server answers to the pieces until it closes the connection; without dates.

    Args:
        one_by_one: a piece, which is a request, is sent when the one before has its answer.
    """
    came = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, piece in enumerate(pieces):
            while one_by_one and came.count(b"HTTP/1.1 200 OK") < number:
                more = connection.recv(1 << 16)
                assert more, came
                came += more
            connection.sendall(piece)
            time.sleep(0.002)  # so that most pieces are read one by one; nothing hangs on it
        while more := connection.recv(1 << 16):
            came += more
    return re.sub(rb"date: .*\r\n", b"", came)


def what_comes(pieces: list[bytes], take: Any) -> bytes:
    """The same of a server that is there for this alone."""
    came = b""

    async def client(port: int, _: HttpServer) -> None:
        nonlocal came
        came = await asyncio.to_thread(all_that_comes, pieces, port, one_by_one=True)

    with_server(client, take)
    return came


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[float | str | None, int]]:
    """Of servers that take requests and answer at once, at the loop's next turn, or later; and one that takes none."""
    takers: dict[float | str | None, Any] = {
        **{later_s: Taker(later_s).take for later_s in LATER_S},
        "takes none": None,
    }
    ports: queue.Queue[tuple[float | str | None, int]] = queue.Queue()
    over: list[Callable[[], Any]] = []

    async def serve() -> None:
        servers = {name: HttpServer(application, HttpSettings(port=0), take) for name, take in takers.items()}
        loop = asyncio.get_running_loop()
        over.append(lambda: [loop.call_soon_threadsafe(server.stop) for server in servers.values()])
        for name, server in servers.items():
            ports.put((name, int(server.url.rpartition(":")[2])))
        await asyncio.gather(*(server.serve() for server in servers.values()))
        for server in servers.values():
            server.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    yield dict(ports.get(timeout=20) for _ in takers)
    over[0]()
    thread.join()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(REQUESTS), max_size=4),
    st.sampled_from([*LAST, *WRONG]),
    st.lists(st.integers(0, 400), max_size=3),
    st.sampled_from(LATER_S),
)
def test_no_client_can_tell_which_way_its_request_went(
    ports: dict[float | str | None, int],
    requests: list[bytes],
    last: bytes,
    cuts: list[int],
    later_s: float | None,
) -> None:
    """Whatever comes in whichever pieces, also behind a request that has no answer yet."""
    pieces = [*requests, last]
    one_by_one = last in WRONG  # a refusal takes the place of an answer that is not there yet
    if cuts and not one_by_one:
        sent = b"".join(pieces)
        ends = sorted({min(cut, len(sent)) for cut in cuts} | {0, len(sent)})
        pieces = [sent[begin:end] for begin, end in itertools.pairwise(ends)]
    taken = all_that_comes(pieces, ports[later_s], one_by_one=one_by_one)
    assert taken == all_that_comes(pieces, ports["takes none"], one_by_one=one_by_one)


def test_requests_that_come_whole_are_taken() -> None:
    taker = Taker()
    came = what_comes([*REQUESTS, LAST[0]], taker.take)
    assert taker.taken == [b"/a", b"/b?q=1", b"/c", b"/g", b"/u", b"/last"]
    assert came.count(b"HTTP/1.1 200 OK\r\n") == 10
    assert came.count(b"connection: close\r\n") == 1


@pytest.mark.parametrize("take", [Taker().take, None])
def test_a_wish_for_another_protocol_costs_no_body(take: Any) -> None:
    came = what_comes([REQUESTS[-1], LAST[0]], take)
    assert b"x-names: content-length host http2-settings\r\ncontent-length: 8\r\n\r\n/u GET /HTTP" in came


@pytest.mark.parametrize("take", [Taker().take, None])
@pytest.mark.parametrize(("target", "status"), [(b"x:443", b"400 Bad Request"), (b"/x", b"200 OK")])
def test_a_wish_for_a_tunnel_ends_the_connection(take: Any, target: bytes, status: bytes) -> None:
    came = what_comes([REQUESTS[0], b"CONNECT %b HTTP/1.1\r\nhost: x\r\n\r\n" % target], take)
    _, first, second = came.split(b"HTTP/1.1 ")
    assert first.endswith(b"/a abc")
    assert second.startswith(status)
    assert second.count(b"connection: close\r\n") == 1


@pytest.mark.parametrize("take", [Taker().take, None])
def test_many_wishes_in_one_piece(take: Any) -> None:
    """Also where the connection is closed behind the first of them."""
    came = what_comes([REQUESTS[-1] * 1500 + LAST[0]], take)
    assert came.count(b"HTTP/1.1 200 OK\r\n") == 1501
    closing = REQUESTS[-1].replace(b"HTTP2-Settings\r\nC", b"close\r\nC")
    came = what_comes([closing + LAST[0]], take)
    assert came.count(b"HTTP/1.1") == 1
    assert came.startswith(b"HTTP/1.1 200 OK\r\n")


def test_no_answer_overtakes_another() -> None:
    """Also where requests are read between an answer and what follows it."""
    waiting: list[Respond] = []

    def take(head: RequestHead, body: bytes, respond: Respond) -> bool:
        if not head.target.startswith(b"/taken"):
            return False
        waiting.append(respond)
        return True

    async def until(holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)

    async def client(port: int, server: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUESTS[0].replace(b"/a", b"/taken-1"))
        await until(lambda: waiting)
        (protocol,) = server._uvicorn.server_state.connections
        waiting[0](200, [], b"first")
        # What a client sent at that moment is read before the loop's next turn.
        protocol.data_received(REQUESTS[0].replace(b"/a", b"/taken-2") + b"GET /third HTTP/1.1\r\n\r\n")  # type: ignore[union-attr]
        await until(lambda: len(waiting) == 2)
        await asyncio.sleep(0.05)
        waiting[1](200, [], b"second")
        async with asyncio.timeout(20):
            bodies = [(await reader.readuntil(end))[-len(end) :] for end in (b"first", b"second", b"/third ")]
        assert bodies == [b"first", b"second", b"/third "]
        writer.close()

    with_server(client, take)


def test_a_head_that_came_before_is_not_parsed() -> None:
    taker = Taker()
    twice = REQUESTS[0].replace(b"abc", b"xyz")

    async def client(port: int, server: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        protocol: Any = None
        for request, body in ((REQUESTS[0], b"/a abc"), (twice, b"/a xyz"), (REQUESTS[0], b"/a abc")):
            writer.write(request)
            async with asyncio.timeout(20):
                answer = await reader.readuntil(body)
            assert answer.endswith(b"x-names: host content-length\r\ncontent-length: 6\r\n\r\n" + body)
            if protocol is None:
                (protocol,) = server._uvicorn.server_state.connections
                parser, protocol.parser = protocol.parser, None
        protocol.parser = parser
        writer.write(REQUESTS[5])
        async with asyncio.timeout(20):
            await reader.readuntil(b"/e ")
        writer.close()

    with_server(client, taker.take)
    assert taker.taken == [b"/a"] * 3


def test_a_request_that_is_not_taken_is_offered_once_though_its_head_came_before() -> None:
    offered: list[RequestHead] = []

    def take(head: RequestHead, body: bytes, respond: Respond) -> bool:
        offered.append(head)
        if len(offered) == 2:
            return False
        respond(200, [], b"taken " + body)
        return True

    came = what_comes([REQUESTS[0]] * 3 + [LAST[0]], take)
    assert re.findall(rb"\r\n\r\n(.*?)(?=HTTP/1.1|$)", came) == [b"taken abc", b"/a abc", b"taken abc", b"taken z"]
    assert len(offered) == 4
    assert offered[0] is offered[1] is offered[2]


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("has_answered", [False, True])
def test_a_taker_that_fails_gives_one_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_known: bool, has_answered: bool
) -> None:
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path))
    bodies: list[bytes] = []

    def take(head: RequestHead, body: bytes, respond: Respond) -> bool:
        bodies.append(body)
        is_last = len(bodies) == 1 + is_known
        if has_answered or not is_last:
            respond(200, [], b"answered")
        if is_last:
            raise KeyError("what nobody foresaw")
        return True

    came = what_comes([REQUESTS[0]] * (1 + is_known), take)
    assert re.findall(rb"HTTP/1.1 (\d+) ", came) == [b"200"] * is_known + [b"200" if has_answered else b"500"]


def test_a_fault_of_the_taker_is_no_fault_of_the_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path))

    def take(*_: Any) -> bool:
        raise KeyError("what nobody foresaw")

    came = what_comes([REQUESTS[0]], take)
    assert came.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"kcost did not foresee this" in came
    assert "what nobody foresaw" in next(tmp_path.glob("*.log")).read_text()


def test_an_end_answers_what_was_taken() -> None:
    taker = Taker(0.5)

    async def client(port: int, server: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUESTS[0])
        while not taker.taken:
            await asyncio.sleep(0.01)
        server.stop()
        came = await asyncio.wait_for(reader.read(), 20)
        assert came.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close\r\n" in came
        writer.close()

    with_server(client, taker.take)


@pytest.mark.parametrize("is_known", [False, True])
def test_a_connection_beyond_the_limit_takes_nothing(*, is_known: bool) -> None:
    taker = Taker()

    async def client(port: int, server: HttpServer) -> None:
        async with asyncio.timeout(20):
            if is_known:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(REQUESTS[0])
                await reader.readuntil(b"/a abc")
                writer.close()
                while server._uvicorn.server_state.connections:
                    await asyncio.sleep(0.01)
                taker.taken.clear()
            _, half = await asyncio.open_connection("127.0.0.1", port)
            half.write(REQUESTS[0][:-1])
            await asyncio.sleep(0.1)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUESTS[0])
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            assert not taker.taken
            writer.close()
            half.close()

    with_server(client, taker.take, connections=1)


def test_nothing_is_left_of_a_client_that_went_before_its_answer() -> None:
    taker = Taker(0.2)

    async def client(port: int, server: HttpServer) -> None:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(REQUESTS[0])
        while not taker.taken:
            await asyncio.sleep(0.01)
        left = [weakref.ref(protocol) for protocol in server._uvicorn.server_state.connections]
        assert len(left) == 1
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        async with asyncio.timeout(20):
            while left[0]() is not None:
                await asyncio.sleep(0.05)
                gc.collect()

    with_server(client, taker.take)


class Shifted:
    """An event loop whose clock goes on when the test says."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.later_s = 0.0

    def time(self) -> float:
        return self._loop.time() + self.later_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@pytest.mark.parametrize("target", [b"/a", b"/asgi"])
def test_a_connection_is_given_up_so_long_after_its_last_request(target: bytes) -> None:
    """Not after its first: one timer goes on from request to request."""
    request = REQUESTS[0].replace(b"/a", target)

    async def client(port: int, server: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def ask() -> None:
            writer.write(request)
            await asyncio.wait_for(reader.readuntil(target + b" abc"), 20)
            await asyncio.sleep(0.01)

        await ask()
        protocol: Any = next(iter(server._uvicorn.server_state.connections))
        timer = protocol.timeout_keep_alive_task
        protocol.loop = clock = Shifted(protocol.loop)
        clock.later_s = http_server.KEEP_ALIVE_S - 10
        await ask()
        assert protocol.timeout_keep_alive_task is timer, "a request makes no timer of its own"
        for later_s, is_over in (
            (1.0, False),
            (http_server.KEEP_ALIVE_S - 15, False),
            (http_server.KEEP_ALIVE_S, True),
        ):
            clock.later_s = http_server.KEEP_ALIVE_S - 10 + later_s
            protocol.timeout_keep_alive_handler()
            assert protocol.transport.is_closing() == is_over
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()

    with_server(client, Taker().take)

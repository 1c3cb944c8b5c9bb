"""The proxy: what goes through it is untouched, and what it bills adds up."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import kcost
import kcost.serving.bodies as bodies_module
from kcost.core.errors import InputError
from kcost.serving.at_once import AT_ONCE, RequestHead
from kcost.serving.bodies import Bodies
from kcost.serving.http_client import read_url
from kcost.serving.http_server import HttpServer, HttpSettings
from kcost.serving.monitor.monitor import Monitor
from kcost.serving.monitor.settings import CanarySettings, MonitorSettings, ShadowSettings
from kcost.serving.proxy import OTHERS, Proxy
from tests.unit.serving.fakes import ask
from tests.unit.serving.proxied import ask_whole, reply, with_proxy

PREDICT = "/v1/models/m/versions/3:predict"


def test_requests_and_answers_go_through_untouched() -> None:
    seen: list[tuple[bytes, bytes]] = []

    def echo(head: bytes, body: bytes) -> bytes:
        seen.append((head, body))
        return reply("418 Odd", b"\x00\xff" + body, "x-a: 1\r\nconnection: keep-alive\r\n")

    async def steps(proxy: Proxy) -> None:
        sent: list[dict[str, Any]] = []
        headers = [(b"host", b"x"), (b"x-team", b"blue"), (b"content-encoding", b"gzip"), (b"connection", b"close")]
        scope = {"method": "POST", "raw_path": PREDICT.encode(), "query_string": b"q=1%20", "headers": headers}
        messages = [{"type": "http.request", "body": b"\x1f\x8b", "more_body": True}]
        messages.append({"type": "http.request", "body": b"body"})

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await proxy(scope, receive, send)
        assert sent[0]["status"] == 418
        assert sent[0]["headers"] == [(b"x-a", b"1"), (b"content-length", b"8")]
        assert sent[1]["body"] == b"\x00\xff\x1f\x8bbody"
        head, body = seen[0]
        assert head.startswith(b"POST /v1/models/m/versions/3:predict?q=1%20 HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"content-encoding: gzip\r\n" in head
        assert b"connection: close" not in head
        assert body == b"\x1f\x8bbody"

    with_proxy(echo, steps)


async def ask_by_asgi(proxy: Proxy, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    return await ask(proxy, "POST", path, body, **headers)


Post = Callable[..., Awaitable[tuple[int, bytes]]]
both_ways = pytest.mark.parametrize("post", [ask_by_asgi, ask_whole])


@both_ways
def test_the_invoice_is_by_model_version_and_caller(post: Post) -> None:
    def answer(head: bytes, body: bytes) -> bytes:
        return reply("400 Bad", b"{}") if b"wrong" in body else reply("200 OK", b"{}")

    async def steps(proxy: Proxy) -> None:
        assert (await post(proxy, PREDICT, b"{}", x_team="blue"))[0] == 200  # leaves a connection open behind it
        requests = [post(proxy, PREDICT, b"{}", x_team=team) for team in ("red", "blue")]
        requests.append(post(proxy, "/v1/models/n/labels/stable:predict", b"wrong"))
        requests.append(ask(proxy, "GET", "/v1/models/m", content_length="0"))
        requests.append(post(proxy, "/v2/models/o/versions/2/infer", b"{}"))
        requests.append(ask(proxy, "GET", "/v2/models/o/ready", content_length="0"))
        assert [status for status, _ in await asyncio.gather(*requests)] == [200, 200, 400, 200, 200, 200]
        assert (await post(proxy, "/v1/models/n/labels/stable:predict", b"wrong"))[0] == 400
        await asyncio.sleep(0.05)
        _, body = await ask(proxy, "GET", "/kcost/invoice")
        bill = json.loads(body)
        lines = {(x["model"], x["version"], x["caller"]): (x["requests"], x["failed"]) for x in bill["lines"]}
        assert lines == {
            ("m", "3", "blue"): (2, 0),
            ("m", "3", "red"): (1, 0),
            ("n", "stable", ""): (2, 2),
            ("o", "2", ""): (1, 0),
            (OTHERS, "", ""): (2, 0),
        }
        assert bill["idle_usd"] >= 0.5 * 0.05 / 3600
        assert all(line["usd"] > 0 for line in bill["lines"])

    with_proxy(answer, steps)


@both_ways
def test_a_kept_connection_that_was_closed_is_replaced(post: Post) -> None:
    answers = iter([reply("200 OK", b"1"), b"", reply("200 OK", b"2"), b""])

    async def steps(proxy: Proxy) -> None:
        assert await post(proxy, PREDICT, b"{}") == (200, b"1")
        assert await post(proxy, PREDICT, b"{}") == (200, b"2")

    with_proxy(lambda *_: next(answers), steps)


@both_ways
def test_an_upstream_that_fails(post: Post) -> None:
    async def steps(proxy: Proxy) -> None:
        assert (await post(proxy, PREDICT, b"1"))[0] == 200
        for _ in range(2):
            status, body = await post(proxy, PREDICT, b"{}")
            assert status == 503
            assert "closed the connection" in json.loads(body)["error"]
        assert (await post(proxy, PREDICT, b" " * 1001))[0] == 413
        assert (await ask(proxy, "HEAD", PREDICT))[0] == 501
        assert [(x.requests, x.failed) for x in proxy.invoice().lines] == [(1, 1), (4, 3)]

    async def late(proxy: Proxy) -> None:
        assert (await post(proxy, PREDICT, b"1"))[0] == 200
        for _ in range(2):
            status, body = await post(proxy, PREDICT, b"never")
            assert status == 504
            assert "no answer within 0.1 s" in json.loads(body)["error"]
            assert (await post(proxy, PREDICT, b"1")) == (200, b"1"), "the late answer is not taken for this one's"
        assert seen == [b"1", b"never", b"1", b"never", b"1"], "what was given up is not asked again"

    def slow(head: bytes, body: bytes) -> bytes:
        seen.append(body)
        return reply("200 OK", body) if body == b"1" else b"never"

    seen: list[bytes] = []
    with_proxy(lambda _, body: reply("200 OK", body) if body == b"1" else b"", steps)
    with_proxy(slow, late, timeout_s=0.1)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def test_requests_of_which_there_is_more_to_do_are_not_taken() -> None:
    """Those of models with a new version beside the old one, of no model, and those that no connection is open for."""

    def takes(proxy: Proxy, target: str, body: bytes = b"{}") -> bool:
        return proxy.take(RequestHead(target.encode(), []), body, lambda *_: None)

    async def steps(proxy: Proxy) -> None:
        assert not takes(proxy, PREDICT)
        assert (await ask(proxy, "POST", PREDICT, b"{}"))[0] == 200  # leaves a connection open behind it
        for target in ("/v1/models/new:predict", "/v1/models/beside:predict", "/v1/models/m", "/kcost/labels", "/"):
            assert not takes(proxy, target)
        assert not takes(proxy, "/v1/models/m#a:predict"), "the path ends before what this seems to ask for"
        assert not takes(proxy, PREDICT, b" " * 1001)
        assert takes(proxy, f"{PREDICT}?q=1")
        assert not takes(proxy, PREDICT), "its connection has a request"
        await until(lambda: proxy.invoice().under_way == 0)
        assert takes(proxy, PREDICT)
        await until(lambda: proxy.invoice().under_way == 0)

    settings = MonitorSettings(
        canary={"new": CanarySettings(version=2, stable=1)}, shadow={"beside": ShadowSettings(version=2)}
    )
    with_proxy(lambda *_: reply("200 OK", b"{}"), steps, monitor=Monitor("http://x", settings, {}))


def test_an_end_tells_those_who_wait() -> None:
    """Behind the time that a server leaves them; what was on its way is on the bill."""

    async def steps(proxy: Proxy) -> None:
        assert (await ask_whole(proxy, PREDICT, b"1"))[0] == 200
        waiting = asyncio.create_task(ask_whole(proxy, PREDICT, b"never"))
        await until(lambda: proxy.invoice().under_way == 1)
        await proxy.close()
        status, body = await waiting
        assert (status, json.loads(body)["error"]) == (503, "The proxy ends. Send the request again.")
        assert [(x.requests, x.failed) for x in proxy.invoice().lines] == [(2, 1)]

    with_proxy(lambda _, body: reply("200 OK", body) if body == b"1" else b"never", steps)


def test_a_request_that_was_sent_twice_ends_with_the_proxy() -> None:
    """The connection that it was sent on was closed over it, and the new one has no answer."""
    answers = [reply("200 OK", b"1"), b"", b"never"]

    async def steps(proxy: Proxy) -> None:
        assert (await ask_whole(proxy, PREDICT, b"1"))[0] == 200
        waiting = asyncio.create_task(ask_whole(proxy, PREDICT, b"2"))
        await until(lambda: not answers)
        await proxy.close()
        status, body = await waiting
        assert (status, json.loads(body)["error"]) == (503, "The proxy ends. Send the request again.")
        assert [(x.requests, x.failed) for x in proxy.invoice().lines] == [(2, 1)]

    with_proxy(lambda *_: answers.pop(0), steps)


@both_ways
def test_odd_answers_of_an_upstream(post: Post) -> None:
    """A status that has no name; hints before the answer, which is that of this request all the same."""
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    kinds = {b"hints": hints + hints + reply("200 OK", b"after hints"), b"odd": reply("799 Odd", b"odd")}
    kinds[b"other"] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"

    async def steps(proxy: Proxy) -> None:
        for _ in range(2):
            assert await post(proxy, PREDICT, b"hints") == (200, b"after hints")
            assert await post(proxy, PREDICT, b"odd") == (799, b"odd")
            assert (await post(proxy, PREDICT, b"other"))[0] == 503

    with_proxy(lambda _, body: kinds[body], steps)


def test_a_status_without_a_name_reaches_a_client() -> None:
    async def steps(proxy: Proxy) -> None:
        assert (await ask(proxy, "POST", PREDICT, b"{}"))[0] == 799
        server = HttpServer(proxy, HttpSettings(port=0), proxy.take)
        serving = asyncio.create_task(server.serve())
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(
            f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}".encode()
        )
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 799 \r\n")
        writer.close()
        server.stop()
        await serving
        server.close()

    with_proxy(lambda *_: reply("799 Odd", b"{}"), steps)


def test_what_nobody_foresaw_is_told_and_booked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path))
    bodies = Bodies(1000)

    async def steps(proxy: Proxy) -> None:
        assert (await ask_whole(proxy, PREDICT, b"1"))[0] == 200
        monkeypatch.setattr(proxy.monitor, "named", lambda *_: 1 / 0)
        status, body = await ask_whole(proxy, PREDICT, b"2")
        assert status == 500
        assert "kcost did not foresee this: ZeroDivisionError" in json.loads(body)["error"]
        await until(lambda: proxy.invoice().under_way == 0)
        assert [(x.requests, x.failed) for x in proxy.invoice().lines] == [(2, 1)]
        assert bodies.held_bytes == 0

    with_proxy(lambda *_: reply("200 OK", b"{}"), steps, bodies=bodies)


@both_ways
def test_a_connection_that_is_kept_keeps_nothing_else(post: Post) -> None:
    """Bodies are counted until their request is answered: what a connection held beyond that, nobody would count."""

    async def steps(proxy: Proxy) -> None:
        assert (await post(proxy, PREDICT, b"a"))[0] == 200
        assert (await post(proxy, PREDICT, b"sent"))[0] == 200
        (connection,) = proxy._upstream.free
        assert not [value for value in vars(connection).values() if isinstance(value, bytes | list) and value]
        connection.close()
        await until(lambda: not proxy._upstream.free)

    with_proxy(lambda *_: reply("200 OK", b"answered"), steps)


def test_an_end_is_told_to_those_who_wait_by_asgi() -> None:
    async def steps(proxy: Proxy) -> None:
        answers: list[tuple[int, bytes]] = []

        async def send(message: dict[str, Any]) -> None:
            raise AssertionError(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"never"}

        def at_once(status: int, headers: Any, body: bytes) -> bool:
            answers.append((status, body))
            return True

        scope = {"type": "http", "method": "POST", "raw_path": PREDICT.encode(), "headers": [], AT_ONCE: at_once}
        waiting = asyncio.ensure_future(proxy(scope, receive, send))
        await until(lambda: bool(proxy._upstream.under_way))
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not proxy._upstream.under_way
        await proxy.close()
        assert answers == [(503, b'{"error":"The proxy ends. Send the request again."}')]
        assert [(x.requests, x.failed) for x in proxy.invoice().lines] == [(1, 1)]

    with_proxy(lambda *_: b"never", steps)


def test_whole_requests_go_through_untouched_on_a_port() -> None:
    """On a server, beside requests that go by ASGI: each has its own answer, and all are on the bill."""
    seen: list[bytes] = []

    def echo(head: bytes, body: bytes) -> bytes:
        seen.append(head)
        return reply(
            "418 Odd" if b"odd" in body else "200 OK", b"\x00\xff" + body, "X-A: 1\r\nConnection: keep-alive\r\n"
        )

    async def client(port: int, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in range(20):
            body = b"%d %d%s" % (number, i, b" odd" if i % 3 == 0 else b"")
            head = f"POST {PREDICT}?q=1%20 HTTP/1.1\r\nHost: x\r\nX-Team: t{number}\r\nContent-Encoding: gzip\r\n"
            message = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
            if i % 4 == 1:  # not whole at first
                writer.write(message[:-1])
                await asyncio.sleep(0.01)
                message = message[-1:]
            writer.write(message)
            came = await reader.readuntil(b"\r\n\r\n")
            assert came.startswith(b"HTTP/1.1 418 " if b"odd" in body else b"HTTP/1.1 200 ")
            assert b"\r\nX-A: 1\r\n" in came
            assert b"onnection" not in came
            length = int(came.split(b"content-length: ")[1].split(b"\r\n")[0])
            assert await reader.readexactly(length) == b"\x00\xff" + body
        writer.close()

    async def steps(proxy: Proxy) -> None:
        taken = []

        def take(*arguments: Any) -> bool:
            taken.append(proxy.take(*arguments))
            return taken[-1]

        server = HttpServer(proxy, HttpSettings(port=0), take)
        serving = asyncio.create_task(server.serve())
        port = int(server.url.rpartition(":")[2])
        await asyncio.gather(*(client(port, number) for number in range(5)))
        server.stop()
        await serving
        server.close()
        assert taken.count(True) > 50
        assert len(taken) == 5 * 15, "those that came in pieces were not offered"
        assert len(seen) == 100
        for head in seen:
            assert head.startswith(b"POST /v1/models/m/versions/3:predict?q=1%20 HTTP/1.1\r\nhost: 127.0.0.1:")
            assert b"\r\ncontent-encoding: gzip\r\n" in head
        assert {(x.caller, x.requests, x.failed) for x in proxy.invoice().lines} == {(f"t{i}", 20, 7) for i in range(5)}

    with_proxy(echo, steps)


def test_the_bodies_of_all_requests_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many clients that send much, slowly, would fill the memory before one of their requests is whole."""
    monkeypatch.setattr(bodies_module, "MOST_BODIES_BYTES", 1000)
    bodies = Bodies(600)
    passed_on: list[bytes] = []

    def answer(head: bytes, body: bytes) -> bytes:
        passed_on.append(body)
        return b"" if b"fail" in body else reply("200 OK", b"{}")

    async def steps(proxy: Proxy) -> None:
        rest: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        def begin() -> asyncio.Task[None]:
            rest.put_nowait({"type": "http.request", "body": b"a" * 599, "more_body": True})
            scope = {"type": "http", "method": "POST", "raw_path": PREDICT.encode(), "headers": []}
            return asyncio.create_task(proxy(scope, rest.get, send))

        first = begin()
        await asyncio.sleep(0)
        assert bodies.held_bytes == 599
        for path in (PREDICT, "/kcost/labels"):
            status, text = await ask(proxy, "POST", path, b"b" * 200, b"b" * 202)
            assert (status, "at most 1000 bytes together. Try later" in json.loads(text)["error"]) == (503, True)
            assert bodies.held_bytes == 599
        assert (await ask(proxy, "POST", PREDICT, b"b" * 401))[0] == 200
        status, text = await ask_whole(proxy, PREDICT, b"b" * 402)
        assert (status, "at most 1000 bytes together" in json.loads(text)["error"]) == (503, True)
        assert bodies.held_bytes == 599
        assert (await ask_whole(proxy, PREDICT, b"c" * 401))[0] == 200
        assert (await ask(proxy, "GET", "/kcost/invoice"))[0] == 200
        rest.put_nowait({"type": "http.request", "body": b"a"})
        await first
        assert sent[0]["status"] == 200
        assert passed_on == [b"b" * 401, b"c" * 401, b"a" * 600], (
            "what was accepted goes on untouched, what was refused does not"
        )
        assert bodies.held_bytes == 0
        assert (await ask(proxy, "POST", PREDICT, b"fail"))[0] == 503
        assert (await ask_whole(proxy, PREDICT, b"c"))[0] == 200
        assert (await ask_whole(proxy, PREDICT, b"fail"))[0] == 503
        assert (await ask(proxy, "POST", PREDICT, b"", content_length="601"))[0] == 413
        gone = begin()
        rest.put_nowait({"type": "http.disconnect"})
        await gone
        assert bodies.held_bytes == 0

    with_proxy(answer, steps, bodies=bodies)


def test_a_refusal_for_want_of_room_says_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module, "MOST_BODIES_BYTES", 1000)
    bodies = Bodies(600)
    assert bodies.hold(999)

    async def steps(proxy: Proxy) -> None:
        server = HttpServer(proxy, HttpSettings(port=0))
        serving = asyncio.create_task(server.serve())
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 600\r\n\r\n".encode() + b"a" * 600)
        answer = await asyncio.wait_for(reader.read(), 20)  # to its end: the connection is closed
        writer.close()
        server.stop()
        await serving
        server.close()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert b"\r\nconnection: close\r\n" in answer

    with_proxy(lambda *_: b"", steps, bodies=bodies)


def test_an_upstream_that_is_not_there() -> None:
    async def run() -> None:
        proxy = Proxy(read_url("http://127.0.0.1:9", remote=False), 0.5, None, 5, Bodies(1000))
        status, body = await ask(proxy, "POST", PREDICT, b"{}")
        assert status == 503
        assert "is not there" in json.loads(body)["error"]

    asyncio.run(run())


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_proxy_before_itself_is_refused(host: str) -> None:
    """It would pass a request on until there is no file left; TensorFlow Serving's port is the default of both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match="to another server than itself"):
        kcost.serve_proxy(f"http://localhost:{port}", usd_per_hour=1.0, port=port, host=host)


def test_a_client_cannot_fill_the_memory_with_names() -> None:
    async def steps(proxy: Proxy) -> None:
        for i in range(1200):
            await ask(proxy, "POST", f"/v1/models/m{i}:predict", b"{}")
        bill = proxy.invoice()
        assert len(bill.lines) == 1001
        assert sum(line.requests for line in bill.lines) == 1200

    with_proxy(lambda *_: reply("404 None", b"{}"), steps)


def test_a_server_on_another_machine_is_looked_up_again_for_each_connection() -> None:
    """A container that is made anew has the old name and another address."""

    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply("200 OK", b"{}"))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            gone = read_url(f"http://127.0.0.1:{port}", remote=True)._replace(host="localhost", address="127.0.0.9")
            here = Proxy(gone, 0.5, None, 5, Bodies(1000), remote=True)
            assert (await ask(here, "POST", PREDICT, b"{}"))[0] == 200
            assert (await ask(Proxy(gone, 0.5, None, 5, Bodies(1000)), "POST", PREDICT, b"{}"))[0] == 503

    asyncio.run(run())

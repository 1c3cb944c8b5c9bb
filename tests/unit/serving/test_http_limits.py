"""Head and body of an answer in one write: the transport that joins them, and answers that are given at once."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from kcost.serving.http_limits import HeadWithBody, respond
from kcost.serving.http_server import HttpServer, HttpSettings

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

    def get_extra_info(self, name: str) -> str:
        return f"its {name}"


def calls_of(*steps: bytes | str | None) -> list[bytes | str]:
    """What reaches the transport; a step is bytes to write, a method to call, or None for a turn of the loop."""

    async def run() -> list[bytes | str]:
        transport = FakeTransport()
        joined = HeadWithBody(transport, asyncio.get_running_loop())
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
        info: str = HeadWithBody(FakeTransport(), asyncio.get_running_loop()).get_extra_info("name")
        return info

    assert asyncio.run(run()) == "its name"


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

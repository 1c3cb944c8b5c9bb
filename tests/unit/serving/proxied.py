"""A proxy before a server of a few lines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kcost.serving.at_once import RequestHead
from kcost.serving.bodies import Bodies
from kcost.serving.http_client import read_url
from kcost.serving.monitor.rollouts import TimedAnswer
from kcost.serving.proxy import Proxy
from tests.unit.serving.fakes import ask

Answer = Callable[[bytes, bytes], bytes]
"""Head and body of a request -> the bytes of the answer; empty closes the connection."""


def with_proxy(answer: Answer, steps: Callable[[Proxy], Awaitable[None]], **options: Any) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                text = answer(head, body)
                if text == b"never":
                    await asyncio.sleep(30)
                if not text:
                    return
                writer.write(text)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            target = read_url(f"http://127.0.0.1:{port}", remote=False)
            settings = {"caller_header": "X-Team", "timeout_s": 5.0, "bodies": Bodies(1000), **options}
            proxy = Proxy(target, 0.5, **settings)
            await steps(proxy)
            bill = proxy.invoice()
            parts = bill.requests_usd + bill.overhead_usd + bill.idle_usd
            assert parts == pytest.approx(bill.total_usd, rel=1e-9)
            assert bill.under_way == 0

    asyncio.run(run())


async def ask_whole(proxy: Proxy, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    """Offers a request to `take`, as a server does; what is not taken goes by ASGI."""
    came: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    def respond(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        came.set_result((status, body))

    if proxy.take(RequestHead(path.encode(), named), body, respond):
        return await came
    return await ask(proxy, "POST", path, body, **headers)


def reply(status: str, body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def timed(status: int = 200, latency_ns: int = 1_000_000, machine_ns: float = 1e6) -> TimedAnswer:
    """An answer of a version, without a body."""
    return TimedAnswer(status, [], b"", latency_ns, machine_ns)

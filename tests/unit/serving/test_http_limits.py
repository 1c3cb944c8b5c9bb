"""The transport that writes the head of an answer together with its body, on an event loop that the test turns."""

from __future__ import annotations

import asyncio

import pytest

from kcost.serving.http_limits import HeadWithBody

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

"""A transport that writes the head of an answer together with its body, and gives up who takes nothing of it."""

from __future__ import annotations

import asyncio
from typing import Any


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

    def is_closing(self) -> bool:
        """Whether it is closed, or will be. Here, since whatever goes through `__getattr__` takes longer."""
        closing: bool = self._transport.is_closing()
        return closing

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

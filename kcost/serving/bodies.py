"""The bodies of requests in memory: how long one may be, and how many bytes all of them may have together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from kcost.serving.status import Code, RequestError

MOST_BODIES_BYTES = 1 << 30
"""Of all requests together until they are answered. Those of HTTP count from their first byte on, since a queue counts
requests only once they are whole; messages of gRPC once they are whole, since it gives them to nobody before."""

_DISCARD_S = 1.0
_CLOSE = (b"connection", b"close")
"""The rest of a body that is refused is not read."""

Body = bytes | bytearray
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Bodies:
    """Reads bodies within bounds. Who was given one releases its bytes when the request is answered.

    Args:
        most_bytes: of one body; of all together, too, where that is more than MOST_BODIES_BYTES.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        """Of all bodies that are in memory now."""
        self._most_together = max(MOST_BODIES_BYTES, most_bytes)

    def hold(self, count: int) -> bool:
        """Counts bytes that are in memory from now on; False where there is no room, and none are counted."""
        if self.held_bytes + count > self._most_together:
            return False
        self.held_bytes += count
        return True

    def release(self, count: int) -> None:
        """Bytes that were held are gone."""
        self.held_bytes -= count

    async def read(self, scope: dict[str, Any], receive: Receive) -> Body:
        """A whole body as it was sent. Its bytes are held from here on.

        Raises:
            RequestError: it is too long (413), there is no room for it now (503), or the client went.
        """
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self.most_bytes:
                await _discard(receive)
                raise self.too_long()
        body: Body = b""
        counted, more = 0, True
        try:
            while more:
                message = await receive()
                piece, more = message.get("body", b""), message.get("more_body", False)
                is_too_long = counted + len(piece) > self.most_bytes
                if is_too_long or not self.hold(len(piece)):
                    body = b""
                    self.release(counted)
                    counted = 0
                    if more:
                        await _discard(receive)
                    raise self.too_long() if is_too_long else self.no_room()
                counted += len(piece)
                if not body:
                    body = piece
                else:
                    body = bytearray(body) if isinstance(body, bytes) else body
                    body += piece
            if message["type"] == "http.disconnect":
                raise RequestError(Code.CANCELLED, "The client went before its request was whole.")
        except BaseException:
            self.release(counted)
            raise
        return body

    def too_long(self) -> RequestError:
        """What a body is refused with that is too long."""
        text = f"The body of a request has at most {self.most_bytes} bytes."
        return RequestError(Code.INVALID_ARGUMENT, text, http_status=413, headers=(_CLOSE,))

    def no_room(self) -> RequestError:
        """What a body is refused with that all others leave no room for."""
        text = f"The bodies of all requests have at most {self._most_together} bytes together. Try later."
        return RequestError(Code.UNAVAILABLE, text, headers=((b"retry-after", b"1"), _CLOSE))


async def _discard(receive: Receive) -> None:
    """Reads the rest of a body that is refused, for a second at most.

    A connection that is closed with bytes unread is reset, and its client may never see why.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while (await receive()).get("more_body", False):
                pass

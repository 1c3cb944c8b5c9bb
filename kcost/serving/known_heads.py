"""Heads of HTTP messages that came before, by their bytes: what is known is not parsed again.

The heads of a client's requests are mostly the same to the last byte, and so are those of a server's answers.
"""

from __future__ import annotations

from typing import Generic, TypeVar

H = TypeVar("H")

_END = b"\r\n\r\n"
_MOST_HEADS = 512
"""The oldest makes room for one more: a client can make up any."""

_LONGEST = 2048
"""Bytes of a head that is kept: so all of them together take tens of megabytes at most, where each is made to."""


class KnownHeads(Generic[H]):
    """What was read of heads, with how long the body behind each is.

    Examples:
        >>> heads = KnownHeads[str]()
        >>> heads.keep(b"POST / HTTP/1.1\\r\\ncontent-length: 2\\r\\n\\r\\nab", 2, "what was read of it")
        >>> heads.split(b"POST / HTTP/1.1\\r\\ncontent-length: 2\\r\\n\\r\\ncd")
        ('what was read of it', b'cd')
        >>> heads.split(b"POST / HTTP/1.1\\r\\ncontent-length: 2\\r\\n\\r\\nc") is None
        True
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[H, int]] = {}

    def split(self, piece: bytes) -> tuple[H, bytes] | None:
        """What is known of a head, and its body, where a piece is one whole message and no more; else None."""
        end = piece.find(_END, 0, _LONGEST) + len(_END)
        known = self._known.get(piece[:end])
        if known is None or len(piece) != end + known[1]:
            return None
        return known[0], piece[end:]

    def keep(self, piece: bytes, body_bytes: int, head: H) -> None:
        """Keeps what was read of a head.

        It is left out where the piece is something else than that head and its body, as in chunks.

        Args:
            piece: that the whole message came in, and nothing else.
            body_bytes: length of the body that was read.
            head: what was read.
        """
        end = len(piece) - body_bytes
        if end > _LONGEST or piece.find(_END, 0, end) != end - len(_END):
            return
        key = piece[:end]
        if key not in self._known and len(self._known) >= _MOST_HEADS:
            del self._known[next(iter(self._known))]
        self._known[key] = head, body_bytes

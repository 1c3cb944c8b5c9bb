"""Connections of a load generator: one request at a time on each, bytes out, the status in."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, MutableSequence
from typing import NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import httptools

from kcost.core.errors import InputError
from kcost.serving.known_heads import KnownHeads

C = TypeVar("C", bound="Connection")
Answer = Callable[[int | None], None]
"""Called with the status of an answer; None where the connection broke before it was whole."""


class Target(NamedTuple):
    """Where requests go."""

    host: str
    address: str
    port: int
    path: str

    def request(self, body: bytes, method: str = "POST", path: str | None = None) -> bytes:
        """A whole HTTP/1.1 request."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        head = f"{method} {path or self.path} HTTP/1.1\r\nhost: {host}:{self.port}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        return head.encode("ascii") + body


def read_url(url: str, *, remote: bool) -> Target:
    """Where a URL points.

    Args:
        url: http://HOST:PORT/v1/models/NAME:predict
        remote: whether hosts other than this machine are allowed: a load test of a stranger's server is an attack.

    Raises:
        InputError: the URL is of another form, its host has no address, or is not this machine.
    """
    rule = "The URL of a server is such as http://127.0.0.1:8501 or http://127.0.0.1:8501/v1/models/NAME:predict"
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise InputError(rule, received=url) from error
    if parts.scheme != "http" or not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(rule, received=url, remedy="https is not spoken: name the server behind what speaks it.")
    try:
        entries = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError("The host of a URL has an address.", received=f"{parts.hostname}: {error}") from error
    addresses = [str(entry[4][0]) for entry in entries]
    # localhost is ::1 first on many machines, where most servers listen on 127.0.0.1 alone.
    address = next((known for known in addresses if known.startswith("127.")), addresses[0])
    if not remote and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise InputError(
            "kcost loads, and stands before, servers on this machine alone, unless it is told.",
            received=f"{parts.hostname}, which is {address}",
            remedy="Say --remote if that server is yours.",
        )
    query = f"?{parts.query}" if parts.query else ""
    return Target(parts.hostname, address, port, f"{parts.path or '/'}{query}")


AnswerHeaders = list[tuple[bytes, bytes]]


class Connection(asyncio.Protocol):
    """A connection that is kept open between requests.

    Args:
        on_close: told when it is closed.
        heads: of answers of the same server with status 200, which are not parsed again; None parses each.
    """

    def __init__(self, on_close: Callable[[Connection], None], heads: KnownHeads[AnswerHeaders] | None = None) -> None:
        self.uses = 0
        """Requests that were sent on it."""
        self.end = "it is open"
        """How it ended."""
        self.body = b""
        self.headers: AnswerHeaders = []
        """Of the answer. Nobody changes the list: it may be that of other answers, too."""
        self._heads = heads
        self._on_close = on_close
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: Answer | None = None
        self._is_broken = False
        self._pieces: list[bytes] = []
        self._piece = b""
        """What is being read, where an answer begins with it."""

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, answer: Answer) -> None:
        """Sends a request; `answer` is called once."""
        assert self._transport is not None
        self.uses += 1
        self._answer = answer
        self._transport.write(request)

    def close(self) -> None:
        """Closes it; what waits for an answer is told that there is none."""
        if self._transport is not None:
            self._transport.abort()

    def _break(self, end: str) -> None:
        self._is_broken, self.end = True, end
        self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        if self._answer is None:
            self._break("it sent what nobody had asked for")
            return
        if self._parser is None:
            known = None if self._heads is None else self._heads.split(data)
            if known is not None:
                self.headers, self.body = known
                self._give_answer(200)
                return
            self.headers, self._pieces = [], []
            self._piece = data
            self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"it sent what is no HTTP: {error}")
        self._piece = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        assert self._parser is not None
        status, keep = self._parser.get_status_code(), self._parser.should_keep_alive()
        if 100 <= status < 200:  # the answer is still to come
            self.headers, self._pieces = [], []
            return
        self._parser = None
        self.body, self._pieces = b"".join(self._pieces), []
        if not keep:
            self.close()
        elif status == 200 and self._heads is not None and self._piece:
            self._heads.keep(self._piece, len(self.body), self.headers)
        self._give_answer(status)

    def _give_answer(self, status: int | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(status)

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed, by whichever side."""
        if not self._is_broken:
            how = "closed" if error is None else f"broken ({error})"
            self.end = f"it was {how} {'before' if self._parser is None else 'in the middle of'} an answer"
        self._transport = None
        self._on_close(self)
        self._give_answer(None)


def take_open(free: MutableSequence[C]) -> C | None:
    """Takes the connection that was used last of those that are still open; closed ones are dropped."""
    while free:
        connection = free.pop()
        if connection.is_open:
            return connection
    return None

"""Heads that came before: a message is read as it was, in whichever pieces it comes."""

from __future__ import annotations

import itertools
from typing import Any

import httptools
import pytest
from hypothesis import given, strategies as st

from kcost.serving.http_client import AnswerHeaders, Connection
from kcost.serving.known_heads import KnownHeads

HEAD = b"POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\n"


@pytest.mark.parametrize(
    "piece",
    [
        HEAD,
        HEAD + b"ab",
        HEAD + b"abcd",
        HEAD + b"abc" + HEAD + b"abc",
        b"\r\n" + HEAD + b"abc",
        HEAD.replace(b"/a", b"/b") + b"abc",
        HEAD.lower() + b"abc",
        HEAD[:-2] + b"x: y\r\n\r\nabc",
        b"",
        b"\r\n\r\n",
    ],
)
def test_what_is_not_one_whole_message_with_that_head_is_not_known(piece: bytes) -> None:
    heads = KnownHeads[str]()
    heads.keep(HEAD + b"abc", 3, "read")
    assert heads.split(HEAD + b"\r\n\r") == ("read", b"\r\n\r")
    assert heads.split(piece) is None


@pytest.mark.parametrize(
    ("piece", "body_bytes"),
    [
        (b"POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 3),
        (b"POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 0),
        (HEAD + b"abc" + HEAD, 3),
        (HEAD + b"ab", 3),  # whose other byte came in another piece
        (HEAD[:-2], 0),
        (b"ab", 3),
        (b"", 0),
        (HEAD[:-2] + b"x: " + b"y" * 2048 + b"\r\n\r\nabc", 3),
    ],
)
def test_what_is_no_head_with_its_body_is_not_kept(piece: bytes, body_bytes: int) -> None:
    heads = KnownHeads[str]()
    heads.keep(piece, body_bytes, "read")
    assert not heads._known


def test_the_oldest_head_makes_room() -> None:
    heads = KnownHeads[int]()
    pieces = [f"GET /{number} HTTP/1.1\r\n\r\n".encode() for number in range(600)]
    for number, piece in enumerate(pieces):
        heads.keep(piece, 0, number)
    assert [heads.split(piece) for piece in pieces] == [None] * 88 + [(n, b"") for n in range(88, 600)]


class Written:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        assert data == b"request"

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 3\r\n\r\ndef",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 3\r\n\r\nghi",
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabc",
    b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n",
    b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
    b"no HTTP\r\n\r\n",
]


def exchange(answers: list[tuple[bytes, int]], heads: KnownHeads[AnswerHeaders] | None) -> list[Any]:
    """What a connection says of answers that come in two pieces each, one connection for as many as it takes."""
    events: list[Any] = []
    connection = Connection(lambda _: None, heads)
    transport: Any = Written()
    connection.connection_made(transport)
    for answer, cut in answers:
        if not connection.is_open:
            connection = Connection(lambda _: None, heads)
            transport = Written()
            connection.connection_made(transport)
        connection.send(b"request", lambda status: events.append((status, list(connection.headers), connection.body)))  # noqa: B023
        cuts = [0, min(cut, len(answer)), len(answer)]
        for begin, end in itertools.pairwise(cuts):
            if end > begin:
                connection.data_received(answer[begin:end])
        events.append(connection.is_open)
        if transport.is_aborted:
            connection.connection_lost(None)
            events.append(connection.end)
    return events


@given(st.lists(st.tuples(st.sampled_from(ANSWERS), st.integers(0, 200)), max_size=8))
def test_answers_are_read_alike_whether_their_heads_are_known_or_not(answers: list[tuple[bytes, int]]) -> None:
    assert exchange(answers, KnownHeads()) == exchange(answers, None)


def test_an_answer_with_a_known_head_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = KnownHeads[AnswerHeaders]()
    exchange([(ANSWERS[0], 0)], heads)
    monkeypatch.setattr(httptools, "HttpResponseParser", None)
    assert exchange([(ANSWERS[1], 0)], heads) == [(200, [(b"X-A", b"1"), (b"Content-Length", b"3")], b"def"), True]

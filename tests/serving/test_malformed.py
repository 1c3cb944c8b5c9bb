"""Requests that no client should send: the right 4xx each, no crash, no hang, and the server goes on."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import random
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings, strategies as st

from tests.serving.conftest import RunningServer

PREDICT = b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nhost: x\r\n"
GOOD = b'{"instances": [1.0]}'


@pytest.fixture(autouse=True)
def _goes_on(server: RunningServer) -> Iterator[None]:
    """After each test the same processes serve."""
    before = server.workers()
    yield
    assert server.predict(GOOD).json == {"predictions": [3.5]}
    assert server.workers() == before


def test_a_wrong_rank_does_not_end_the_process(server: RunningServer) -> None:
    """libtensorflow aborts on an image without its batch axis."""
    for body in ({"inputs": [[[1.0]] * 8] * 8}, {"instances": [[[1.0] * 8] * 8]}, {"inputs": 1.0}, {"inputs": []}):
        answer = server.predict(body, "images")
        assert answer.status == 400
        assert "has the shape [?,8,8,1] in the signature" in answer.error


@pytest.mark.parametrize("depth", [65, 1000, 1100, 100_000])
def test_deep_nesting(server: RunningServer, depth: int) -> None:
    for text in ("[" * depth + "]" * depth, "[" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth + "NaN"):
        for body in (text, f'{{"instances": {text}}}', f'{{"inputs": {text}}}'):
            answer = server.predict(body.encode())
            assert answer.status == 400, body[:80]
            assert len(answer.body) < 1000


@pytest.mark.parametrize(
    "number", ["1e400", "-1e400", "1" * 5000, "9" * 400 + ".5", "1e39", str(2**64), "0x10", "1_000", "+1", "01"]
)
def test_numbers_of_no_dtype(server: RunningServer, number: str) -> None:
    for tail in ("", ", NaN"):
        body = f'{{"signature_name": "kinds", "inputs": {{"bool": [true], "uint8": [{number}{tail}]}}}}'
        assert server.predict(body.encode()).status == 400
        if number != str(2**64):  # which a float holds
            assert server.predict(f'{{"inputs": [{number}{tail}]}}'.encode()).status == 400


def test_whole_numbers_outside_their_dtype(server: RunningServer) -> None:
    row = {"bool": True, "uint8": 1, "int64": 1, "uint64": 1, "float64": 1}
    wrong = (("uint8", 256), ("uint8", -1), ("int64", 2**63), ("uint64", -1), ("uint64", 2**64), ("bool", 1))
    for name, value in wrong:
        answer = server.predict({"signature_name": "kinds", "instances": [{**row, name: value}]})
        assert answer.status == 400
        assert "not of expected type" in answer.error


@pytest.mark.parametrize("text", ["?", "a", "a===", "aGk=\u0000", "äöü", "=" * 9, "aGk\n k"])
def test_bad_base64(server: RunningServer, text: str) -> None:
    answer = server.predict({"signature_name": "text", "instances": [{"b64": text}]})
    assert answer.status == 400
    assert answer.error.endswith("Unable to base64 decode")


def test_text_that_is_no_utf8(server: RunningServer) -> None:
    for body in (b"\xff", b'{"instances": ["\xff"]}', b'{"instances": [NaN, "\xc3"]}', b"\xef\xbb\xbf{}"):
        assert server.predict(body).status == 400


def test_compressed_bodies_that_are_none(server: RunningServer) -> None:
    def ask(body: bytes, encoding: str = "gzip") -> int:
        return server.ask("POST", "/v1/models/half_plus_two:predict", body, content_encoding=encoding).status

    whole = gzip.compress(GOOD)
    assert ask(whole) == 200
    assert ask(GOOD) == 400
    assert ask(whole[:-9]) == 400
    assert ask(whole, "br") == 415
    assert ask(gzip.compress(b" " * (64 << 20))) == 413


def test_a_body_is_bounded(server: RunningServer) -> None:
    length = 2 << 20
    head = PREDICT + f"content-length: {length}\r\n\r\n".encode()
    assert b" 413 " in server.raw(head).split(b"\r\n")[0]
    chunk = b"40000\r\n" + b" " * 0x40000 + b"\r\n"
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(PREDICT + b"transfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(6):
                connection.sendall(chunk)
        assert b" 413 " in connection.recv(1 << 16).split(b"\r\n")[0]


def test_headers_are_bounded(server: RunningServer) -> None:
    long_value = PREDICT + b"x: " + b"a" * 70_000 + b"\r\n\r\n"
    many = PREDICT + b"".join(b"x%d: a\r\n" % i for i in range(20_000)) + b"\r\n"
    long_path = b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"
    for content in (long_value, many, long_path):
        assert server.raw(content).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        PREDICT + b"content-length: -1\r\n\r\n",
        PREDICT + b"content-length: 1e3\r\n\r\n",
        PREDICT + b"content-length: 99999999999999999999999999\r\n\r\n",
        PREDICT + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        PREDICT + b"transfer-encoding: chunked\r\n\r\nZZ\r\n",
        PREDICT + b"no colon\r\n\r\n",
    ],
)
def test_what_is_no_http(server: RunningServer, content: bytes) -> None:
    assert server.raw(content, end=True)[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")


def test_clients_that_send_slowly_or_never_end(server: RunningServer) -> None:
    """The server of these tests waits two seconds for a request."""
    assert server.raw(b"POST /v1/mod").startswith(b"HTTP/1.1 408 ")
    assert server.raw(PREDICT + b"content-length: 20\r\n\r\n{").startswith(b"HTTP/1.1 408 ")
    assert server.raw(b"") == b""


def test_clients_that_go(server: RunningServer) -> None:
    head = PREDICT + b"content-length: 20\r\n\r\n"
    for content in (b"POST /v1/mod", head + b"{", head + GOOD):
        with socket.create_connection(server.address) as connection:
            connection.sendall(content)


def test_methods_and_paths_of_no_interface(server: RunningServer) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert server.ask(method, "/v1/models/half_plus_two:predict", b"").status == 400
    for path in ("/", "/v2/models", "/favicon.ico", "/v1", "//v1/models/x", "/%00"):
        assert server.get(path).status == 404
    assert server.raw(b"GET /v1/models/%ff%00%2f..%2f HTTP/1.1\r\nconnection: close\r\n\r\n").startswith(b"HTTP/1.1 40")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "a", "b", "b64", "é"]), inner),
    max_leaves=12,
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "instances": JSON,
        "inputs": JSON,
        "examples": JSON,
        "context": JSON,
        "signature_name": st.sampled_from(["two", "text", "scalar", "kinds", "regress", "classify"]) | JSON,
    },
)


@settings(max_examples=100)
@given(DOCUMENTS, st.sampled_from(["predict", "classify", "regress"]))
def test_documents_of_any_kind(server: RunningServer, document: object, method: str) -> None:
    answer = server.post(f"/v1/models/half_plus_two:{method}", document)
    assert answer.status in (200, 400)
    assert answer.json.keys() <= {"predictions", "outputs", "results", "error"}


PIECES = [b"", b"[", b"]", b"{", b'"', b",", b"9" * 30, b"\xff"]


@pytest.mark.parametrize("count", [1000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_bytes_changed_at_random(server: RunningServer, count: int) -> None:
    """Over one connection, as fast as it goes; the memory of the server stays as it is."""
    import psutil

    chance = random.Random(count)
    seeds = [
        json.dumps({"instances": [[1, 2.5e3, -0.0], "text", {"b64": "aGVsbG8="}]}).encode(),
        json.dumps({"signature_name": "two", "instances": [{"a": [1, 2], "b": 3}]}).encode(),
        b'{"inputs": {"x": [NaN, Infinity, 1e10]}}',
    ]
    process = psutil.Process(server.process.pid)
    early = 0
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    for number in range(count):
        body = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(body))
            body[place : place + chance.randrange(2)] = chance.choice(PIECES)
        connection.request("POST", "/v1/models/half_plus_two:predict", bytes(body))
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (200, 400), bytes(body)
        if number == count // 2:
            early = process.memory_info().rss
    connection.close()
    assert process.memory_info().rss - early < 8 << 20

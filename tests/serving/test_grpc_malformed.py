"""gRPC calls that no client should make: the right code each, no crash, no hang, and the server goes on."""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf.message import DecodeError

from kcost.runtimes.protobuf import encode
from kcost.serving.messages import message_class
from testing.damaged_bytes import bytes_changed
from tests.serving.conftest import RunningServer
from tests.serving.grpc_client import (
    FLOAT_VAL,
    HEALTH,
    PREDICTION,
    STRING_VAL,
    GrpcClient,
    predict_request,
    refused,
    tensor_head,
)

Code = grpc.StatusCode
GOOD = predict_request({"x": np.ones(2, np.float32)})
REFUSED = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> GrpcClient:
    return GrpcClient(server.started["grpc_address"])


@pytest.fixture(autouse=True)
def _goes_on(server: RunningServer, client: GrpcClient) -> Iterator[None]:
    """After each test the same processes serve."""
    before = server.workers()
    yield
    assert client.predict({"x": np.ones(1, np.float32)})["y"].tolist() == [3.5]
    assert server.workers() == before


@pytest.mark.parametrize("count", [400, pytest.param(50_000, marks=pytest.mark.slow)])
def test_damaged_requests(client: GrpcClient, count: int) -> None:
    """A valid request with a few bytes changed, cut or put in. INTERNAL where it is no message any more."""
    chooser = random.Random(17)
    parse = message_class("PredictRequest").FromString
    codes = []
    for _ in range(count):
        body = bytes_changed(chooser, GOOD)
        codes.append(client.code(body))
        try:
            parse(body)
        except DecodeError:
            assert codes[-1] == Code.INTERNAL
        else:
            assert codes[-1] in REFUSED | {Code.OK}
    assert {Code.OK, Code.INTERNAL, Code.INVALID_ARGUMENT, Code.NOT_FOUND} <= set(codes)


def test_random_bytes(client: GrpcClient) -> None:
    chooser = random.Random(18)
    for length in range(60):
        assert client.code(chooser.randbytes(length)) in {Code.INTERNAL, Code.INVALID_ARGUMENT, Code.NOT_FOUND}


@pytest.mark.parametrize(
    ("tensor", "code"),
    [
        (tensor_head("float32", (2**40,)) + encode(FLOAT_VAL, struct.pack("<f", 1)), Code.RESOURCE_EXHAUSTED),
        (tensor_head("float32", (2**62,)), Code.RESOURCE_EXHAUSTED),
        (tensor_head("float32", (2**63 - 1,) * 60), Code.INVALID_ARGUMENT),
        (tensor_head("float32", (1,)) + encode(4, b"\x00" * 5), Code.INVALID_ARGUMENT),
        (encode(1, 999) + encode(2, encode(2, encode(1, 1))), Code.INVALID_ARGUMENT),
        (encode(1, -1) + encode(2, encode(2, encode(1, 1))), Code.INVALID_ARGUMENT),
        (b"", Code.INVALID_ARGUMENT),
    ],
)
def test_tensors_that_are_none(client: GrpcClient, tensor: bytes, code: grpc.StatusCode) -> None:
    assert client.code(predict_request({"x": tensor})) == code


def test_one_string_does_not_stand_for_gigabytes(client: GrpcClient) -> None:
    tensor = tensor_head("object", (100_000,)) + encode(STRING_VAL, b"a" * 100_000)
    assert client.code(predict_request({"image_bytes": tensor}, signature="text")) == Code.RESOURCE_EXHAUSTED
    tensor = tensor_head("object", (1,)) + encode(4, b"\x01a")
    assert client.code(predict_request({"image_bytes": tensor}, signature="text")) == Code.INVALID_ARGUMENT


def test_narrow_integers_outside_their_dtype(client: GrpcClient) -> None:
    others = {
        "bool": np.array([True]),
        "int64": np.array([1]),
        "uint64": np.array([1], np.uint64),
        "float64": np.ones(1),
    }
    for value in (256, -1):
        inputs = {**others, "uint8": tensor_head("uint8", (1,)) + encode(7, value)}
        assert client.code(predict_request(inputs, signature="kinds")) == Code.INVALID_ARGUMENT


def test_a_wrong_rank_does_not_end_the_process(client: GrpcClient) -> None:
    for shape in ((8, 8, 1), (1, 8, 8), (1, 8, 8, 2), ()):
        request = predict_request({"images": np.ones(shape, np.float32)}, model="images")
        assert client.code(request) == Code.INVALID_ARGUMENT


def test_a_message_is_bounded(server: RunningServer, client: GrpcClient) -> None:
    """By 1 MiB in these tests, also what it unpacks to, and without the memory for it being taken."""
    long_request = predict_request({"x": np.zeros(1 << 19, np.float32)})
    assert client.code(long_request) == Code.RESOURCE_EXHAUSTED
    before = psutil.Process(server.process.pid).memory_info().rss
    assert client.code(b"\x00" * (100 << 20), compression=grpc.Compression.Gzip) == Code.RESOURCE_EXHAUSTED
    assert psutil.Process(server.process.pid).memory_info().rss < before + (50 << 20)


def test_long_names_come_back_cut(client: GrpcClient) -> None:
    for letter in ("a", "ä", "\U0001f600"):
        with refused(Code.NOT_FOUND, f"Servable not found for request: Latest({letter * 3}"):
            client.call(PREDICTION, "Predict", predict_request({}, model=letter * 100_000))


def test_a_client_that_sends_nothing_is_not_waited_for(client: GrpcClient) -> None:
    """The server of these tests waits two seconds for a request."""
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(30)
        yield from ()

    call = client.channel.stream_unary(f"/{PREDICTION}/Predict")
    with refused(Code.DEADLINE_EXCEEDED, "A request is sent within 2 s."):
        call(nothing(), timeout=20)
    over.set()
    with refused(Code.UNIMPLEMENTED, "A unary call has one message"):
        call(iter(()), timeout=20)


def test_health(client: GrpcClient) -> None:
    for service in ("", PREDICTION, "tensorflow.serving.ModelService"):
        assert client.call(HEALTH, "Check", encode(1, service.encode())) == encode(1, 1)
    with refused(Code.NOT_FOUND, "none"):
        client.call(HEALTH, "Check", encode(1, b"none"))
    with refused(Code.INTERNAL):
        client.call(HEALTH, "Check", b"\xff")
    watch = client.channel.unary_stream(f"/{HEALTH}/Watch")
    for service, status in ((b"", 1), (b"none", 3)):
        stream = watch(encode(1, service), timeout=20)
        assert next(stream) == encode(1, status)
        stream.cancel()
    with refused(Code.INTERNAL):
        next(watch(b"\xff", timeout=20))

"""The Open Inference Protocol over HTTP, as KServe's page on it and its extension for binary tensors have it.

What takes `inferring` is of the protocol alone, and runs against the server that KCOST_OIP_URL names: see conftest.py.
What takes `server` is kcost's own: its name, its messages, its signatures.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import struct
from typing import Any

import numpy as np
import pytest

from kcost.core.errors import InputError
from kcost.serving.http_client import read_url
from kcost.serving.made_up import made_up_body
from tests.serving.conftest import Client, Response, RunningServer

INFER = "/v2/models/half_plus_two/infer"
X = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}


def infer(server: Client, document: Any, path: str = INFER) -> Response:
    return server.post(path, document)


def outputs(response: Response) -> dict[str, Any]:
    assert response.status == 200, response.body
    return {output.pop("name"): output for output in response.json["outputs"]}


def test_the_server(server: RunningServer) -> None:
    document = server.get("/v2").json
    assert document["name"] == "kcost"
    assert document["version"]
    assert document["extensions"] == ["binary_tensor_data"]
    assert server.get("/v2/").json == document


def test_health(inferring: Client) -> None:
    for path, answer in (
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/images/ready", {"name": "images", "ready": True}),
        ("/v2/models/half_plus_two/versions/1/ready", {"name": "half_plus_two", "ready": True}),
    ):
        assert (inferring.get(path).status, inferring.get(path).json) == (200, answer)


def test_metadata_of_a_model(server: RunningServer) -> None:
    document = server.get("/v2/models/half_plus_two").json
    assert document == {
        "name": "half_plus_two",
        "versions": ["1", "2"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    }
    assert server.get("/v2/models/half_plus_two/versions/1").json == document
    assert server.get("/v2/models/images").json["inputs"][0]["shape"] == [-1, 8, 8, 1]


def test_inference(inferring: Client) -> None:
    answer = infer(inferring, {"id": "42", "inputs": [X]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "model_name": "half_plus_two",
        "model_version": "2",
        "id": "42",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [3.5, 4.0]}],
    }
    answer = infer(inferring, {"inputs": [X]}, "/v2/models/half_plus_two/versions/1/infer")
    assert "id" not in answer.json
    assert answer.json["model_version"] == "1"
    assert outputs(answer)["y"]["data"] == [2.5, 3.0]


def test_data_is_flat_or_nested(inferring: Client) -> None:
    image = np.arange(128, dtype=np.float32).reshape(2, 8, 8, 1)
    expected = None
    for data in (image.ravel().tolist(), image.tolist()):
        entry = {"name": "images", "shape": [2, 8, 8, 1], "datatype": "FP32", "data": data}
        output = outputs(infer(inferring, {"inputs": [entry]}, "/v2/models/images/infer"))["sums"]
        assert output["shape"] == [2, 2]
        assert expected in (None, output["data"])
        expected = output["data"]
    assert expected is not None
    assert len(expected) == 4


def test_every_datatype(server: RunningServer) -> None:
    values = {
        "bool": ("BOOL", [True, False]),
        "uint8": ("UINT8", [0, 255]),
        "int64": ("INT64", [-(2**63), 2**63 - 1]),
        "uint64": ("UINT64", [0, 2**64 - 1]),
        "float64": ("FP64", [0.1, -1e300]),
    }
    inputs = [{"name": n, "shape": [2], "datatype": t, "data": data} for n, (t, data) in values.items()]
    answer = infer(server, {"inputs": inputs, "parameters": {"signature_name": "kinds"}})
    assert outputs(answer) == {n: {"datatype": t, "shape": [2], "data": data} for n, (t, data) in values.items()}


def test_strings_and_scalars(server: RunningServer) -> None:
    entry = {"name": "image_bytes", "shape": [2], "datatype": "BYTES", "data": ["ä", ""]}
    answer = outputs(infer(server, {"inputs": [entry], "parameters": {"signature_name": "text"}}))
    assert answer["copy_bytes"] == {"datatype": "BYTES", "shape": [2], "data": ["ä", ""]}
    assert answer["length"] == {"datatype": "INT32", "shape": [2], "data": [2, 0]}
    for data in ([1.5], 1.5):
        entry = {"name": "s", "shape": [], "datatype": "FP32", "data": data}
        answer = outputs(infer(server, {"inputs": [entry], "parameters": {"signature_name": "scalar"}}))
        assert answer["t"] == {"datatype": "FP32", "shape": [], "data": [3.0]}


def test_chosen_outputs_come_in_their_order(server: RunningServer) -> None:
    inputs = [
        {"name": "b", "shape": [1], "datatype": "INT32", "data": [4]},
        {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
    ]
    document = {"inputs": inputs, "parameters": {"signature_name": "two"}}
    assert list(outputs(infer(server, document))) == ["ratio", "sum"]
    assert list(outputs(infer(server, {**document, "outputs": [{"name": "sum"}]}))) == ["sum"]
    both = [{"name": "sum"}, {"name": "ratio"}]
    assert outputs(infer(server, {**document, "outputs": both}))["ratio"]["data"] == [0.25, 0.5]


def test_parameters_that_nobody_knows_are_left_alone(inferring: Client) -> None:
    document = {
        "id": None,
        "parameters": {"priority": 3, "sequence_id": "a"},
        "inputs": [{**X, "parameters": {"content_type": "np"}}],
        "outputs": [{"name": "y", "parameters": {"classification": 2}}],
        "more": [1],
    }
    assert outputs(infer(inferring, document))["y"]["data"] == [3.5, 4.0]
    document = {"parameters": None, "outputs": None, "inputs": [{**X, "parameters": None}]}
    assert outputs(infer(inferring, document))["y"]["data"] == [3.5, 4.0]


def test_what_is_not_finite_is_null(server: RunningServer) -> None:
    answer = infer(
        server, b'{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [NaN, -Infinity, 1]}]}'
    )
    assert outputs(answer)["y"]["data"] == [None, None, 3.5]


def binary(document: dict[str, Any], *blobs: bytes) -> tuple[bytes, dict[str, str]]:
    text = json.dumps(document).encode()
    return b"".join((text, *blobs)), {"inference_header_content_length": str(len(text))}


def test_tensors_as_bytes(inferring: Client) -> None:
    array = np.array([1, 2, np.nan], np.float32)
    entry = {"name": "x", "shape": [3], "datatype": "FP32", "parameters": {"binary_data_size": array.nbytes}}
    for document in (
        {"inputs": [entry], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
        {"inputs": [entry], "parameters": {"binary_data_output": True}},
    ):
        body, headers = binary(document, array.tobytes())
        answer = inferring.ask("POST", INFER, body, **headers)
        assert answer.headers["content-type"] == "application/octet-stream"
        length = int(answer.headers["inference-header-content-length"])
        (output,) = json.loads(answer.body[:length])["outputs"]
        assert output == {"name": "y", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": 12}}
        np.testing.assert_array_equal(np.frombuffer(answer.body[length:], np.float32), array * 0.5 + 3)
    body, headers = binary({"inputs": [entry]}, array.tobytes())
    assert outputs(inferring.ask("POST", INFER, body, **headers))["y"]["data"] == [3.5, 4.0, None]


def test_strings_as_bytes(server: RunningServer) -> None:
    values = [bytes(range(256)), b"", b"abc"]
    blob = b"".join(struct.pack("<I", len(value)) + value for value in values)
    size = {"binary_data_size": len(blob)}
    entry = {"name": "image_bytes", "shape": [3], "datatype": "BYTES", "parameters": size}
    wanted = [{"name": "length"}, {"name": "copy_bytes", "parameters": {"binary_data": True}}]
    document = {"inputs": [entry], "outputs": wanted, "parameters": {"signature_name": "text"}}
    body, headers = binary(document, blob)
    answer = server.ask("POST", INFER, gzip.compress(body), content_encoding="gzip", **headers)
    length = int(answer.headers["inference-header-content-length"])
    lengths, copy = json.loads(answer.body[:length])["outputs"]
    assert lengths["data"] == [256, 0, 3]
    assert (copy["parameters"], answer.body[length:]) == (size, blob)
    body, headers = binary({**document, "outputs": [{"name": "copy_bytes"}]}, blob)
    refused = server.ask("POST", INFER, body, **headers)
    assert refused.status == 400
    assert "no UTF-8" in refused.error


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/health", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("GET", "/v2/models/half_plus_two/versions/99", 404),
        ("GET", "/v2/models/half_plus_two/versions/99/ready", 404),
        ("GET", "/v2/models/half_plus_two/versions/one", 400),
        ("GET", f"/v2/models/half_plus_two/versions/{2**63}", 400),
        ("GET", "/v2/models/half_plus_two/labels/stable", 404),
        ("GET", "/v2/models/half_plus_two/unready", 404),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
        ("POST", "/v2/models/half_plus_two", 405),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/half_plus_two/versions/99/infer", 404),
        ("GET", "/v2x", 404),
    ],
)
def test_paths_that_ask_for_nothing(server: RunningServer, method: str, path: str, status: int) -> None:
    answer = server.ask(method, path, json.dumps({"inputs": [X]}).encode() if method == "POST" else None)
    assert answer.status == status
    assert answer.error
    assert answer.headers.get("allow") == ({"GET": "POST", "POST": "GET"}[method] if status == 405 else None)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "JSON Parse error"),
        (b"[]", "Is not object"),
        ({}, "Missing 'inputs'"),
        ({"inputs": {}}, "'inputs' is a list of objects"),
        ({"inputs": []}, "The inputs of the signature serving_default are: x. Received: []"),
        ({"inputs": [1]}, "a list of objects with a name each"),
        ({"inputs": [{"name": 1}]}, "a list of objects with a name each"),
        ({"inputs": [{**X, "name": "z"}]}, 'are: x. Received: ["z"]'),
        ({"inputs": [X, X]}, "'inputs' has each name once"),
        ({"inputs": [{**X, "datatype": "FP64"}]}, "The input 'x' has the datatype FP32. Received: \"FP64\""),
        ({"inputs": [{**X, "datatype": None}]}, "has the datatype FP32"),
        ({"inputs": [{**X, "shape": 2}]}, "a list of whole numbers as 'shape'"),
        ({"inputs": [{**X, "shape": [-1]}]}, "a list of whole numbers as 'shape'"),
        ({"inputs": [{**X, "shape": [True]}]}, "a list of whole numbers as 'shape'"),
        ({"inputs": [{**X, "shape": [1, 2]}]}, "has the shape [?] in the signature, but got: [1,2]"),
        ({"inputs": [{**X, "shape": [3]}]}, "has the shape [3], 3 values. Received: data of the shape [2]"),
        ({"inputs": [{**X, "shape": [2**62]}]}, "4611686018427387904 values"),
        ({"inputs": [{**X, "data": [[1, 2]]}]}, "Received: data of the shape [1, 2]"),
        ({"inputs": [{**X, "data": [1, "2"]}]}, "The input 'x': JSON Value: \"2\""),
        ({"inputs": [{**X, "data": [1, True]}]}, "is not of expected type: float"),
        ({"inputs": [{**X, "data": [1, None]}]}, "is not of expected type: float"),
        ({"inputs": [{**X, "data": [1e39, 1]}]}, "without loss of precision"),
        ({"inputs": [{**X, "data": None}]}, "The input 'x' has no 'data'"),
        ({"inputs": [X], "id": 1}, "'id' is a string"),
        ({"inputs": [X], "parameters": []}, "has an object as 'parameters'"),
        ({"inputs": [X], "parameters": {"signature_name": "none"}}, "not found in signature def"),
        ({"inputs": [X], "parameters": {"binary_data_output": 1}}, "'binary_data_output' is true or false"),
        ({"inputs": [X], "outputs": [{"name": "z"}]}, 'are: y. Received: "z"'),
        ({"inputs": [X], "outputs": [{"name": "y"}, {"name": "y"}]}, "'outputs' has each name once"),
        ({"inputs": [X], "outputs": [{"name": "y", "parameters": 1}]}, "The output 'y' has an object"),
        ({"inputs": [{**X, "parameters": {"binary_data_size": 8}}]}, "Received: both"),
    ],
)
def test_requests_that_are_refused(server: RunningServer, document: Any, message: str) -> None:
    answer = infer(server, document)
    assert answer.status == 400
    assert message in answer.error


@pytest.mark.parametrize("model", ["half_plus_two", "images"])
@pytest.mark.parametrize("path", ["/v1/models/{}:predict", "/v2/models/{}/infer", "/v2/models/{}/versions/1/infer"])
def test_a_request_that_a_load_test_makes_up_is_answered(server: RunningServer, model: str, path: str) -> None:
    target = read_url(server.url + path.format(model), remote=False)
    bodies = [asyncio.run(made_up_body(target, seed)) for seed in (0, 0, 1)]
    assert bodies[0] == bodies[1] != bodies[2]
    assert server.post(target.path, bodies[0]).status == 200


def test_what_cannot_be_made_up_is_refused(server: RunningServer) -> None:
    for path, message in (
        ("/v1/models/half_plus_two", "Name a model and what is asked of it"),
        ("/v2/models/none/infer", "/v2/models/none: status 404"),
        ("/v1/models/none:predict", "/v1/models/none/metadata: status 404"),
    ):
        with pytest.raises(InputError, match=message):
            asyncio.run(made_up_body(read_url(server.url + path, remote=False), 0))


def test_bytes_that_do_not_fit_their_tensors(server: RunningServer) -> None:
    def status(size: object, blob: bytes, length: str | None = None) -> int:
        entry = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": size}}
        body, headers = binary({"inputs": [entry]}, blob)
        if length is not None:
            headers["inference_header_content_length"] = length
        return server.ask("POST", INFER, body, **headers).status

    assert status(8, bytes(8)) == 200
    for size, blob in ((8, bytes(7)), (8, bytes(9)), (7, bytes(7)), (4, bytes(8)), (-8, bytes(8)), ("8", bytes(8))):
        assert status(size, blob) == 400
    for length in ("0", "5", "100000", "-1", "1e2", "9" * 30, "x"):
        assert status(8, bytes(8), length) == 400
    text = {"name": "image_bytes", "shape": [2], "datatype": "BYTES"}
    for blob in (b"", bytes(4), bytes(12), b"\xff" * 8, struct.pack("<I", 5) + b"abcd"):
        entry = {**text, "parameters": {"binary_data_size": len(blob)}}
        body, headers = binary({"inputs": [entry], "parameters": {"signature_name": "text"}}, blob)
        assert server.ask("POST", INFER, body, **headers).status == 400


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_requests(server: RunningServer, count: int) -> None:
    """A valid request with a few bytes changed, cut or put in: an answer or a 400, and the same processes go on."""
    workers = server.workers()
    chooser = random.Random(17)
    whole = json.dumps({"id": "a", "inputs": [X], "outputs": [{"name": "y"}]}).encode()
    statuses = []
    for _ in range(count):
        body = bytearray(whole)
        for _ in range(chooser.randint(1, 3)):
            at = chooser.randrange(len(body))
            part = chooser.choice(
                (b"", b'"', b"[", b"}", b"9", b"null", b"true", b"NaN", b"1e999", bytes([chooser.randrange(256)]))
            )
            body[at : at + chooser.randint(0, 4)] = part
        statuses.append(infer(server, bytes(body)).status)
    assert set(statuses) <= {200, 400}
    assert statuses.count(400) > count / 2
    assert outputs(infer(server, {"inputs": [X]}))["y"]["data"] == [3.5, 4.0]
    assert server.workers() == workers

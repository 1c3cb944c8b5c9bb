"""TensorFlow Serving's REST interface, as its page on it (g3doc/api_rest.md) and its own tests of the handler have it.

Set KCOST_TFS_URL to run these against a real server: see conftest.py. What kcost answers otherwise than TensorFlow
Serving does is tested elsewhere, and told in docs/serving.md.
"""

from __future__ import annotations

import base64
import gzip
import json
import math

import pytest

from tests.serving.conftest import Client

PREDICT = "/v1/models/half_plus_two:predict"


def test_rows_of_one_input(serving: Client) -> None:
    answer = serving.predict({"instances": [1.0, 2.0, 5.0]})
    assert answer.status == 200
    assert answer.headers["content-type" if "content-type" in answer.headers else "Content-Type"] == "application/json"
    assert answer.json == {"predictions": [3.5, 4.0, 5.5]}


def test_columns_of_one_input(serving: Client) -> None:
    assert serving.predict({"inputs": [1.0, 2.0]}).json == {"outputs": [3.5, 4.0]}
    assert serving.predict({"inputs": {"x": [1.0, 2.0]}}).json == {"outputs": [3.5, 4.0]}


def test_rows_and_columns_of_several_inputs(serving: Client) -> None:
    rows = {"signature_name": "two", "instances": [{"a": [1, 2], "b": 4}, {"a": [3.0, 5.0], "b": 1}]}
    assert serving.predict(rows).json == {
        "predictions": [{"ratio": [0.25, 0.5], "sum": 7.0}, {"ratio": [3.0, 5.0], "sum": 9.0}]
    }
    columns = {"signature_name": "two", "inputs": {"a": [[1, 2], [3, 5]], "b": [4, 1]}}
    assert serving.predict(columns).json == {"outputs": {"ratio": [[0.25, 0.5], [3.0, 5.0]], "sum": [7.0, 9.0]}}


def test_one_named_input_may_be_named_in_rows(serving: Client) -> None:
    assert serving.predict({"instances": [{"x": 1.0}, {"x": 2.0}]}).json == {"predictions": [3.5, 4.0]}


def test_a_scalar_in_columns(serving: Client) -> None:
    assert serving.predict({"signature_name": "scalar", "inputs": 1.5}).json == {"outputs": 3.0}


def test_images_have_their_axes(serving: Client) -> None:
    image = [[[1.0]] * 8] * 8
    assert serving.predict({"instances": [image, image]}, "images").json == {"predictions": [[324.0, 324.0]] * 2}


def test_the_latest_version_a_version_and_a_label(serving: Client) -> None:
    body = {"instances": [2.0]}
    expected = {"": 4.0, "/versions/1": 3.0, "/versions/2": 4.0, "/labels/stable": 3.0, "/labels/canary": 4.0}
    for spec, value in expected.items():
        path = f"/v1/models/half_plus_two{spec}:predict"
        assert serving.post(path, body).json == {"predictions": [value]}, spec


def test_paths_are_read_without_case_and_decoded(serving: Client) -> None:
    assert serving.post("/V1/Models/half%5Fplus_two:PREDICT", {"instances": [2.0]}).status in (200, 400)
    assert serving.post("/v1/models/half%5Fplus_two:predict", {"instances": [2.0]}).json == {"predictions": [4.0]}


def test_binary_values(serving: Client) -> None:
    content = bytes(range(256))
    encoded = {"b64": base64.b64encode(content).decode()}
    answer = serving.predict({"signature_name": "text", "instances": [encoded, "héllo"]})
    rows = answer.json["predictions"]
    assert [row["length"] for row in rows] == [256, 6]
    assert [base64.b64decode(row["copy_bytes"]["b64"]) for row in rows] == [content, "héllo".encode()]
    columns = serving.predict({"signature_name": "text", "inputs": {"image_bytes": [encoded]}}).json
    assert columns["outputs"]["length"] == [256]


def test_tokens_that_are_no_json(serving: Client) -> None:
    answer = serving.predict(b'{"instances": [NaN, Infinity, -Infinity, 1e2]}')
    assert answer.status == 200
    nan, up, down, number = answer.json["predictions"]
    assert math.isnan(nan)
    assert (up, down, number) == (math.inf, -math.inf, 53.0)
    assert b"NaN" in answer.body
    assert b"-Infinity" in answer.body


def test_every_kind_of_number(serving: Client) -> None:
    row = {"bool": True, "uint8": 255, "int64": -(2**63), "uint64": 2**64 - 1, "float64": 0.1}
    answer = serving.predict({"signature_name": "kinds", "instances": [row]})
    assert answer.json == {"predictions": [row]}


def test_floats_have_few_digits_and_a_point(serving: Client) -> None:
    answer = serving.predict({"instances": [-5.6, -2.0, 2e9]})
    assert b"0.2" in answer.body
    assert b"0.20000000" not in answer.body
    assert [type(value) for value in answer.json["predictions"]] == [float] * 3


def test_classify(serving: Client) -> None:
    body = {"signature_name": "classify", "examples": [{"x": 0.25}, {"x": [0.5]}]}
    answer = serving.post("/v1/models/half_plus_two:classify", body)
    assert answer.json == {"results": [[["low", 0.75], ["high", 0.25]], [["low", 0.5], ["high", 0.5]]]}


def test_regress(serving: Client) -> None:
    body = {"signature_name": "regress", "examples": [{"x": 1.0}, {"x": 2.0}]}
    assert serving.post("/v1/models/half_plus_two:regress", body).json == {"results": [3.5, 4.0]}


def test_a_context_is_of_all_examples(serving: Client) -> None:
    body = {"signature_name": "regress", "context": {"x": 4.0}, "examples": [{"y": 1}, {"y": 2}]}
    assert serving.post("/v1/models/half_plus_two:regress", body).json == {"results": [5.0, 5.0]}


def test_status_of_a_model_and_of_a_version(serving: Client) -> None:
    status = {"error_code": "OK", "error_message": ""}
    states = [{"version": str(number), "state": "AVAILABLE", "status": status} for number in (2, 1)]
    answer = serving.get("/v1/models/half_plus_two")
    assert answer.json == {"model_version_status": states}
    assert serving.get("/v1/models/half_plus_two/versions/1").json == {"model_version_status": states[1:]}
    assert serving.get("/v1/models/half_plus_two/labels/stable").json["model_version_status"]


def test_metadata(serving: Client) -> None:
    document = serving.get("/v1/models/half_plus_two/versions/1/metadata").json
    assert document["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "1"}
    signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert signature["inputs"] == {"x": {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": "serving_default_x:0"}}
    assert signature["outputs"].keys() == {"y"}


def test_a_body_may_be_compressed(serving: Client) -> None:
    body = gzip.compress(json.dumps({"instances": [1.0]}).encode())
    assert serving.ask("POST", PREDICT, body, content_encoding="gzip").json == {"predictions": [3.5]}


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/foo", 400, "Malformed request"),
        ("POST", "/v1/foo", 400, "Malformed request"),
        ("GET", "/v1/models", 400, "Missing model name"),
        ("GET", "/v1/models/debug/model_name", 400, "Malformed request"),
        ("POST", "/v1/models", 400, "Malformed request"),
        ("GET", "/v1/models/foo:predict", 400, "Malformed request"),
        ("POST", "/v1/models/foo/version/50:regress", 400, "Malformed request"),
        ("POST", "/v1/models/foo/versions/HELLO:regress", 400, "Malformed request"),
        ("POST", f"/v1/models/foo/versions/{2**64 - 1}:regress", 400, "Failed to convert version"),
        ("POST", "/v1/models/foo/metadata", 400, "Malformed request"),
        ("POST", "/v1/models/foo/label/some_label:regress", 400, "Malformed request"),
        ("POST", "/v1/models/foo/versions/50/labels/some_label:regress", 400, "Malformed request"),
        ("POST", "/v1/models/foo:predict", 404, "Servable not found for request: Latest(foo)"),
        ("POST", "/v1/models/foo/versions/50:predict", 404, "Servable not found for request: Specific(foo, 50)"),
        ("POST", "/v1/models/half_plus_two/versions/99:predict", 404, "Specific(half_plus_two, 99)"),
        ("POST", "/v1/models/half_plus_two/labels/none:predict", 400, "Unrecognized servable version label"),
        ("GET", "/v1/models/foo", 404, "Could not find any versions of model foo"),
        ("GET", "/v1/models/half_plus_two/versions/99", 404, "Could not find version 99 of model half_plus_two"),
        ("GET", "/v1/models/foo/metadata", 404, "Servable not found"),
    ],
)
def test_paths_that_ask_for_nothing(serving: Client, method: str, path: str, status: int, message: str) -> None:
    answer = serving.ask(method, path, b'{"instances": [1.0]}' if method == "POST" else None)
    assert answer.status == status
    assert message in answer.error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"instances = [1, 2]", "JSON Parse error: Invalid value"),
        (b'{"instances": [1, 2', "JSON Parse error"),
        (b"[1, 2]", "Is not object"),
        (b'{"signature_name": 100}', "'signature_name' key must be a string value."),
        (b'{"signature_name": "none", "instances": [1]}', 'Serving signature name: "none" not found'),
        (b'{"instances": ["x", "y"]}', "not of expected type: float"),
        (b'{"instances": [1, true]}', "not of expected type: float"),
        (b'{"instances": [null]}', "not of expected type: float"),
        (b'{"instances": [{"b64": "aGk="}]}', "not of expected type: float"),
        (b'{"instances": []}', "No values in 'instances' array"),
        (b'{"instances": 1}', "Excepting 'instances' to be an list/array"),
        (b'{"instances": [1], "inputs": [1]}', "only one of 'inputs' or 'instances'"),
        (b'{"examples": [1]}', "Missing 'inputs' or 'instances' key"),
        (b'{"instances": [1, [2]]}', "Failed to process element: 1 of 'instances' list"),
        (b'{"instances": [{"x": 1}, 2]}', "Expecting object but got list at item 1"),
        (b'{"instances": [1, {"x": 2}]}', "Expecting value/list but got object at item 1"),
        (b'{"instances": [{"z": 1}]}', "keys must be equal to: x"),
        (b'{"inputs": {"z": [1]}}', "Missing named input: x in 'inputs' object."),
        (b'{"inputs": [[1, 2], [3]]}', "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        (b'{"inputs": [1, [3]]}', "Encountered list at unexpected level"),
        (b'{"inputs": [[1], 3]}', "found at incorrect level"),
        (b'{"inputs": [16777217]}', "Cannot convert JSON value: 16777217 to float without loss of precision."),
        (b'{"inputs": [1e39]}', "to float without loss of precision."),
        (b'{"inputs": [1e400]}', "JSON Parse error"),
        (b'{"signature_name": "two", "instances": [1, 2]}', "expecting list of objects as multiple input tensors"),
        (b'{"signature_name": "two", "inputs": [1, 2]}', "expecting an object as multiple input tensors"),
        (b'{"signature_name": "two", "instances": [{"a": [1, 2], "b": 1.0}]}', "not of expected type: int32"),
        (b'{"signature_name": "text", "instances": [{"b64": "?"}]}', "Unable to base64 decode"),
        (b'{"signature_name": "text", "instances": [1]}', "not of expected type: string"),
        (b'{"signature_name": "text", "inputs": {"image_bytes": [{"b": "aGk="}]}}', "base64"),
    ],
)
def test_bodies_of_predict_that_are_refused(serving: Client, body: bytes, message: str) -> None:
    answer = serving.predict(body)
    assert answer.status == 400
    assert message in answer.error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"signature_name": "regress"}, "key 'examples' is expected and was not found"),
        ({"signature_name": "regress", "examples": 1}, "Expecting 'examples' value to be an list/array"),
        ({"signature_name": "regress", "examples": []}, "'examples' value is an empty array"),
        ({"signature_name": "regress", "examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"signature_name": "regress", "examples": [{"x": [1.0, "a"]}]}, "Unexpected element type in feature: x"),
        ({"signature_name": "regress", "examples": [{"x": None}]}, "unexpected JSON type: Null"),
        ({"signature_name": "regress", "examples": [{"x": {"b64": "?"}}]}, "Unable to base64 decode"),
        ({"examples": [{"x": 1.0}]}, "tensorflow/serving/regress"),
    ],
)
def test_bodies_of_regress_that_are_refused(serving: Client, body: object, message: str) -> None:
    answer = serving.post("/v1/models/half_plus_two:regress", body)
    assert answer.status == 400
    assert message in answer.error

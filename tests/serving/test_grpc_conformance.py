"""TensorFlow Serving's gRPC, as its .proto files and the sources behind them have it.

Set KCOST_TFS_GRPC to run these against a real server: see conftest.py.
"""

from __future__ import annotations

import math
import struct

import grpc
import numpy as np
import pytest

from kcost.runtimes.protobuf import encode, fields, signed
from tests.serving.grpc_client import (
    BOOL_VAL,
    DOUBLE_VAL,
    FLOAT_VAL,
    INT64_VAL,
    INT_VAL,
    MODELS,
    PREDICTION,
    STRING_VAL,
    UINT64_VAL,
    GrpcClient,
    entries,
    model_spec,
    predict_request,
    refused,
    tensor_head,
)

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_predict(grpc_serving: GrpcClient) -> None:
    outputs = grpc_serving.predict({"x": floats(1, 2, 5)})
    assert outputs.keys() == {"y"}
    np.testing.assert_array_equal(outputs["y"], floats(3.5, 4, 5.5), strict=True)


def test_the_answer_says_what_answered(grpc_serving: GrpcClient) -> None:
    answer = grpc_serving.call(PREDICTION, "Predict", predict_request({"x": floats(1)}))
    spec = dict(fields(dict(fields(answer))[2]))
    assert bytes(spec[1]) == b"half_plus_two"
    assert dict(fields(spec[2])) == {1: 2}
    assert bytes(spec[3]) == b"serving_default"


def test_the_latest_version_a_version_and_a_label(grpc_serving: GrpcClient) -> None:
    specs = (
        ({}, 4.0),
        ({"version": 1}, 3.0),
        ({"version": 2}, 4.0),
        ({"label": "stable"}, 3.0),
        ({"label": "canary"}, 4.0),
    )
    for spec, value in specs:
        assert grpc_serving.predict({"x": floats(2)}, **spec)["y"].tolist() == [value], spec


def test_several_inputs_and_chosen_outputs(grpc_serving: GrpcClient) -> None:
    inputs = {"a": np.array([[1, 2], [3, 5]], np.float32), "b": np.array([4, 1], np.int32)}
    outputs = grpc_serving.predict(inputs, signature="two")
    np.testing.assert_array_equal(outputs["sum"], floats(7, 9), strict=True)
    np.testing.assert_array_equal(outputs["ratio"], np.array([[0.25, 0.5], [3, 5]], np.float32), strict=True)
    assert grpc_serving.predict(inputs, signature="two", outputs=("sum",)).keys() == {"sum"}


def test_every_dtype_there_and_back(grpc_serving: GrpcClient) -> None:
    inputs = {
        "bool": np.array([True, False]),
        "uint8": np.array([0, 255], np.uint8),
        "int64": np.array([-(2**63), 2**63 - 1]),
        "uint64": np.array([0, 2**64 - 1], np.uint64),
        "float64": np.array([math.nan, -math.inf]),
    }
    outputs = grpc_serving.predict(inputs, signature="kinds")
    for name, array in inputs.items():
        np.testing.assert_array_equal(outputs[name], array, strict=True)


def test_values_in_typed_fields(grpc_serving: GrpcClient) -> None:
    """One by one, packed or not; the last one stands for those that are missing, and 0 for all where there is none."""
    inputs = {
        "bool": tensor_head("bool", (3,)) + encode(BOOL_VAL, b"\x01\x00"),
        "uint8": tensor_head("uint8", (3,)) + encode(INT_VAL, 1) + encode(INT_VAL, 200),
        "int64": tensor_head("int64", (3,)) + encode(INT64_VAL, -5),
        "uint64": tensor_head("uint64", (3,)) + encode(UINT64_VAL, b"\x01\x02\x03"),
        "float64": tensor_head("float64", (3,)) + encode(DOUBLE_VAL, struct.pack("<2d", 0.5, 1.5)),
    }
    outputs = grpc_serving.predict(inputs, signature="kinds")
    assert {name: array.tolist() for name, array in outputs.items()} == {
        "bool": [True, False, False],
        "uint8": [1, 200, 200],
        "int64": [-5, -5, -5],
        "uint64": [1, 2, 3],
        "float64": [0.5, 1.5, 1.5],
    }
    nothing = grpc_serving.predict({"x": tensor_head("float32", (2,))})
    assert nothing["y"].tolist() == [3.0, 3.0]
    too_many = tensor_head("float32", (1,)) + encode(FLOAT_VAL, struct.pack("<2f", 1, 2))
    assert grpc_serving.predict({"x": too_many})["y"].tolist() == [3.5]


def test_strings(grpc_serving: GrpcClient) -> None:
    values = np.array([bytes(range(256)), b"", "ä".encode()], object)
    outputs = grpc_serving.predict({"image_bytes": values}, signature="text")
    assert outputs["copy_bytes"].tolist() == values.tolist()
    assert outputs["length"].tolist() == [256, 0, 2]
    one = tensor_head("object", (2,)) + encode(STRING_VAL, b"abc")
    assert grpc_serving.predict({"image_bytes": one}, signature="text")["copy_bytes"].tolist() == [b"abc", b"abc"]


def test_scalars_and_images(grpc_serving: GrpcClient) -> None:
    scalar = grpc_serving.predict({"s": np.array(1.5, np.float32)}, signature="scalar")["t"]
    np.testing.assert_array_equal(scalar, np.array(3, np.float32), strict=True)
    images = np.ones((2, 8, 8, 1), np.float32)
    assert grpc_serving.predict({"images": images}, model="images")["sums"].tolist() == [[324.0, 324.0]] * 2


def test_examples_as_strings(grpc_serving: GrpcClient) -> None:
    """Predict runs signatures of the other methods, too: tf.Example messages in, here feature x with 1.0."""
    feature = encode(2, encode(1, struct.pack("<f", 1.0)))
    example = encode(1, encode(1, encode(1, b"x") + encode(2, feature)))
    outputs = grpc_serving.predict({"inputs": np.array([example], object)}, signature="regress")
    assert outputs["outputs"].ravel().tolist() == [3.5]


def test_model_metadata(grpc_serving: GrpcClient) -> None:
    request = encode(1, model_spec(version=1)) + encode(2, b"signature_def")
    answer = grpc_serving.call(PREDICTION, "GetModelMetadata", request)
    spec = dict(fields(dict(fields(answer))[1]))
    assert (bytes(spec[1]), dict(fields(spec[2]))) == (b"half_plus_two", {1: 1})
    ((key, packed),) = entries(answer, 2)
    assert key == b"signature_def"
    any_ = dict(fields(packed))
    assert bytes(any_[1]) == b"type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = dict(entries(any_[2], 1))
    assert {b"serving_default", b"two", b"text", b"regress", b"classify"} <= signatures.keys()
    default = signatures[b"serving_default"]
    assert bytes(dict(fields(default))[3]) == b"tensorflow/serving/predict"
    ((name, info),) = entries(default, 1)
    described = dict(fields(info))
    assert (name, bytes(described[1]), described[2]) == (b"x", b"serving_default_x:0", 1)
    axes = [signed(dict(fields(axis))[1]) for number, axis in fields(described[3]) if number == 2]
    assert axes == [-1]


def test_model_status(grpc_serving: GrpcClient) -> None:
    answer = grpc_serving.call(MODELS, "GetModelStatus", encode(1, model_spec()))
    states = {dict(fields(status))[1]: dict(fields(status))[2] for _, status in fields(answer)}
    assert states == {1: 30, 2: 30}
    answer = grpc_serving.call(MODELS, "GetModelStatus", encode(1, model_spec(version=1)))
    assert [dict(fields(status))[1] for _, status in fields(answer)] == [1]


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        ({"model": "foo"}, NOT_FOUND, "Servable not found for request: Latest(foo)"),
        ({"model": "foo", "version": 50}, NOT_FOUND, "Servable not found for request: Specific(foo, 50)"),
        ({"version": 99}, NOT_FOUND, "Specific(half_plus_two, 99)"),
        ({"version": -1}, NOT_FOUND, "Specific(half_plus_two, -1)"),
        ({"label": "none"}, INVALID, "Unrecognized servable version label: none"),
        ({"label": ""}, INVALID, "Unrecognized servable version label: "),
        ({"model": ""}, INVALID, "ModelSpec has no name specified."),
        ({"signature": "none"}, grpc.StatusCode.FAILED_PRECONDITION, 'Serving signature key "none" not found.'),
    ],
)
def test_models_that_are_not_there(
    grpc_serving: GrpcClient, spec: dict[str, object], code: grpc.StatusCode, message: str
) -> None:
    with refused(code, message):
        grpc_serving.predict({"x": floats(1)}, **spec)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (
            {},
            (),
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        ({"x": floats(1), "z": floats(1)}, (), "Sent extra: {z}. Missing but required: {}."),
        ({"z": floats(1)}, (), "z"),
        ({"x": floats(1)}, ("none",), "output tensor alias not found in signature: none"),
        ({"x": floats(1)}, ("y", "y"), "duplicate output tensor alias: y"),
        ({"x": np.array([1.0])}, (), "to be float but double is provided"),
        ({"x": encode(2, encode(2, encode(1, 1)))}, (), ""),
        ({"x": encode(1, 1) + encode(2, encode(2, encode(1, -1)))}, (), ""),
        ({"x": encode(1, 1) + encode(2, encode(3, 1))}, (), ""),
        ({"x": tensor_head("float32", (2,)) + encode(4, b"\x00" * 7)}, (), ""),
    ],
)
def test_inputs_that_are_refused(
    grpc_serving: GrpcClient, inputs: dict[str, object], outputs: tuple[str, ...], message: str
) -> None:
    with refused(INVALID, message):
        grpc_serving.predict(inputs, outputs=outputs)


def test_a_wrong_rank_is_refused(grpc_serving: GrpcClient) -> None:
    with refused(INVALID):
        grpc_serving.predict({"images": np.ones((8, 8, 1), np.float32)}, model="images")
    assert grpc_serving.predict({"images": np.ones((1, 8, 8, 1), np.float32)}, model="images")["sums"].shape == (1, 2)


def test_requests_without_their_fields(grpc_serving: GrpcClient) -> None:
    spec = encode(1, model_spec())
    for service, method, request, message in (
        (PREDICTION, "Predict", b"", "Missing ModelSpec"),
        (PREDICTION, "GetModelMetadata", b"", "Missing ModelSpec"),
        (MODELS, "GetModelStatus", b"", "Missing ModelSpec"),
        (PREDICTION, "GetModelMetadata", spec, "must specify at least one metadata_field"),
        (PREDICTION, "GetModelMetadata", spec + encode(2, b"weights"), "is not supported"),
    ):
        with refused(INVALID, message):
            grpc_serving.call(service, method, request)
    for request, message in (
        (model_spec("foo"), "Could not find any versions of model foo"),
        (model_spec(""), "Could not find any versions of model "),
        (model_spec(version=99), "Could not find version 99 of model half_plus_two"),
    ):
        with refused(NOT_FOUND, message):
            grpc_serving.call(MODELS, "GetModelStatus", encode(1, request))


def test_bytes_that_are_no_message(grpc_serving: GrpcClient) -> None:
    """INTERNAL, by the table of grpc/doc/statuscodes.md: "Error parsing request proto"."""
    for request in (b"\xff", encode(1, b"\xff\xff"), predict_request({"x": floats(1)})[:-1]):
        with refused(grpc.StatusCode.INTERNAL):
            grpc_serving.call(PREDICTION, "Predict", request)


def test_methods_that_are_not_there(grpc_serving: GrpcClient) -> None:
    for service, method in ((PREDICTION, "Forget"), ("tensorflow.serving.NoService", "Predict")):
        with refused(grpc.StatusCode.UNIMPLEMENTED):
            grpc_serving.call(service, method, b"")


def test_a_deadline_is_kept(grpc_serving: GrpcClient) -> None:
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        grpc_serving.predict({"milliseconds": floats(500)}, timeout_s=0.1, signature="slow")
    assert grpc_serving.predict({"milliseconds": floats(1)}, signature="slow")["steps"].tolist() == [1.0]


def test_requests_may_be_compressed(grpc_serving: GrpcClient) -> None:
    request = predict_request({"x": np.zeros(5000, np.float32)})
    answer = grpc_serving.call(PREDICTION, "Predict", request, compression=grpc.Compression.Gzip)
    assert len(answer) > 20_000

"""JSON to arrays and back: against values looked at one by one, for whatever hypothesis thinks of."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays_of

from kcost.core import frames
from kcost.core.frames import Kind
from kcost.serving.documents import parse
from kcost.serving.examples import _serialized, read_examples
from kcost.serving.messages import message_class
from kcost.serving.predict_answer import as_json, predict_answer
from kcost.serving.status import RequestError
from kcost.serving.tensors import _one_by_one, as_tensor
from tests.unit.serving.fakes import signature, tensor

FLOATS, INTEGERS = ("float16", "float32", "float64"), ("int8", "uint8", "int16", "int32", "int64", "uint32", "uint64")
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.just("1") | st.just({"b64": "aGk="})
VALUES = LEAVES | st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=8)


def outcome(read: Any) -> Any:
    try:
        array = read()
    except RequestError as error:
        return error.message
    return array.dtype, array.shape, array.tobytes() if array.dtype != object else array.tolist()


@given(VALUES, st.sampled_from([*FLOATS, *INTEGERS, "bool", "string"]))
def test_numpy_at_once_is_the_same_as_one_by_one(value: Any, dtype: str) -> None:
    words = any(word in json.dumps(value) for word in ("true", "false", "null"))
    at_once = outcome(lambda: as_tensor(value, tensor("x", None, dtype), words=words))
    assert at_once == outcome(lambda: _one_by_one(value, dtype))


@given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), max_size=4))
def test_lists_of_floats_are_taken_as_they_are(value: list[list[float]]) -> None:
    array = as_tensor(value, tensor("x", None), words=False)
    np.testing.assert_array_equal(array, np.array(value, np.float32).reshape(array.shape))


@given(
    st.one_of(
        arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3))
        for dtype in (*FLOATS, *INTEGERS, "bool")
    )
)
def test_what_is_written_is_read_as_the_same_numbers(array: np.ndarray) -> None:
    text = as_json(array)
    np.testing.assert_array_equal(np.array(json.loads(text), array.dtype).reshape(array.shape), array)
    if array.dtype != np.float64 and array.dtype.kind == "f" and array.size == 1 and np.isfinite(array).all():
        assert len(text.strip(b"[]")) <= 16  # as few digits as give the same float32, not those of a float64


def test_tokens_are_where_they_belong() -> None:
    array = np.array([[np.nan, 1.0], [-np.inf, np.inf]], np.float32)
    assert as_json(array) == b"[[NaN,1.0],[-Infinity,Infinity]]"
    assert as_json(np.array(-np.inf)) == b"-Infinity"


def test_strings_are_text_or_base64_by_their_name() -> None:
    array = np.array([[b"null", b"\xff"], [b"", b"a"]], object)
    assert orjson.loads(as_json(array, "text")) == [["null", "\ufffd"], ["", "a"]]
    assert orjson.loads(as_json(array, "text_bytes"))[0] == [{"b64": "bnVsbA=="}, {"b64": "/w=="}]
    assert as_json(np.empty((2, 0), object)) == b"[[],[]]"


def test_outputs_whose_rows_differ_have_no_rows() -> None:
    outputs = (tensor("a", (None,)), tensor("b", (None,)))
    two, three = np.zeros(2, np.float32), np.zeros(3, np.float32)
    assert predict_answer([two, three], outputs, in_rows=False) == b'{"outputs":{"a":[0.0,0.0],"b":[0.0,0.0,0.0]}}'
    with pytest.raises(RequestError, match="inconsistent batch size: 3 expecting: 2"):
        predict_answer([two, three], outputs, in_rows=True)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode) | st.text('[]{}:,NaInfity0e"').map(str.encode))
def test_bodies_of_any_bytes(body: bytes) -> None:
    status = 200
    try:
        parse(body)
    except RequestError as error:
        status = error.http_status
    assert status in (200, 400)


def test_numbers_that_no_double_holds() -> None:
    for number in ("1e400", "-1e999", "1" * 5000):
        for tail in ("", ",NaN"):
            with pytest.raises(RequestError, match=r"JSON Parse error|precision"):
                as_tensor(parse(f'{{"x":[{number}{tail}]}}'.encode())["x"], tensor("x", None), words=False)


STRINGS = arrays_of.arrays(object, arrays_of.array_shapes(min_side=0, max_dims=2), elements=st.binary(max_size=9))


@given(
    st.lists(STRINGS | arrays_of.arrays(st.sampled_from(["float32", "int64", "bool"]), (2, 3)), max_size=3),
    st.lists(st.integers(0, 200), max_size=4),
)
def test_arrays_cross_the_socket(arrays: list[np.ndarray], cuts: list[int]) -> None:
    first = b"".join(frames.encode(7, Kind.RUN, frames.encode_arrays(arrays)))
    stream = first + b"".join(frames.encode(8, Kind.ERROR, [b"\x03why"])) + b"beg"
    ends = sorted({0, len(first), len(stream)} | {min(cut, len(stream)) for cut in cuts})
    reader, messages = frames.MessageReader(), []
    for begin, end in itertools.pairwise(ends if cuts else [0, len(stream)]):
        messages += reader.read(stream[begin:end])
    assert [(m.number, m.kind) for m in messages] == [(7, Kind.RUN), (8, Kind.ERROR)]
    assert reader._rest == b"beg"
    for array, came in zip(arrays, frames.decode_arrays(messages[0].body), strict=True):
        assert came.dtype == array.dtype
        np.testing.assert_array_equal(came, array)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_arrays(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        frames.decode_arrays(memoryview(content))


def test_features_are_stored_as_tensorflow_serving_stores_them() -> None:
    body = {"context": {"c": 1}, "examples": [{"i": [1, True], "f": [1.5, float("nan")], "s": ["é", {"b64": "aGk="}]}]}
    method = signature("regress", (tensor("inputs", (None,), "string"),), (), "regress")
    request = read_examples(json.dumps(body).encode(), "regress", lambda _: method)
    example = message_class("Example").FromString(request.arrays[0][0])
    features = {entry.key: entry.value for entry in example.features.feature}
    assert list(features["i"].int64_list.value) == [1, 1]
    assert features["f"].float_list.value[0] == 1.5
    assert math.isnan(features["f"].float_list.value[1])
    assert list(features["s"].bytes_list.value) == ["é".encode(), b"hi"]
    assert list(features["c"].int64_list.value) == [1]
    # Field numbers of example.proto and feature.proto: features 1, the map's entry 1 (key 1, value 2), int64_list 3.
    assert _serialized({"a": {"int64_list": [5]}}) == bytes.fromhex("0a0c0a0a0a0161120 51a030a0105".replace(" ", ""))


@pytest.mark.parametrize("size", [4096, 4097])
def test_arrays_of_any_size_cross_as_they_lie(size: int) -> None:
    array = np.arange(2.0 * size, dtype=np.float32).reshape(size, 2)[:, :1]  # not contiguous
    (message,) = frames.MessageReader().read(b"".join(frames.encode(1, Kind.RUN, frames.encode_arrays([array]))))
    np.testing.assert_array_equal(frames.decode_arrays(message.body)[0], array)

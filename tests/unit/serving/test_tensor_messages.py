"""Arrays as TensorProto messages and back, for whatever hypothesis thinks of."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays_of

from kcost.serving.messages import message_class
from kcost.serving.status import Code, RequestError
from kcost.serving.tensor_messages import _FIELDS, DATA_TYPES, as_array, fill
from tests.unit.serving.fakes import tensor

DTYPES = tuple(name for name in DATA_TYPES if name not in ("string", "bfloat16"))
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
MOST = 1 << 20

numbers = st.sampled_from(DTYPES).flatmap(lambda name: arrays_of.arrays(name, SHAPES))


def message_of(array: np.ndarray) -> Any:
    message = message_class("TensorProto")()
    fill(message, array)
    return message_class("TensorProto").FromString(message.SerializeToString())


def code_of(
    message: Any, shape: tuple[int | None, ...] | None = None, dtype: str = "float32", most: int = MOST
) -> Code:
    with pytest.raises(RequestError) as caught:
        as_array(message, tensor("x", shape, dtype), most)
    return caught.value.code


@given(numbers)
def test_numbers_there_and_back(array: np.ndarray) -> None:
    message = message_of(array)
    again = as_array(message, tensor("x", None, array.dtype.name), MOST)
    np.testing.assert_array_equal(again, array, strict=True)
    for field in (
        "float_val",
        "double_val",
        "int_val",
        "int64_val",
        "bool_val",
        "half_val",
        "uint32_val",
        "uint64_val",
    ):
        message.ClearField(field)
    message.tensor_content = array.tobytes()
    again = as_array(message, tensor("x", None, array.dtype.name), MOST)
    np.testing.assert_array_equal(again, array, strict=True)


@given(SHAPES.flatmap(lambda shape: arrays_of.arrays(object, shape, elements=st.binary(max_size=5))))
def test_strings_there_and_back(array: np.ndarray) -> None:
    again = as_array(message_of(array), tensor("x", None, "string"), MOST)
    assert (again.shape, again.tolist()) == (array.shape, array.tolist())


AXES = st.lists(st.integers(-1, 3) | st.sampled_from([2**31, 2**62, -(2**63)]), max_size=5)


@given(st.sampled_from([*DTYPES, "string"]), AXES, st.binary(max_size=9), st.lists(st.integers(-1, 300), max_size=4))
def test_any_message_gives_an_array_or_an_error_of_the_client(
    dtype: str, axes: list[int], content: bytes, values: list[int]
) -> None:
    message = message_class("TensorProto")(dtype=DATA_TYPES[dtype], tensor_content=content)
    for size in axes:
        message.tensor_shape.dim.add(size=size)
    signed = [value for value in values if value >= 0 or not dtype.startswith("u")]
    getattr(message, _FIELDS[dtype]).extend([b"a"] * len(values) if dtype == "string" else signed)
    code = Code.OK
    try:
        array = as_array(message, tensor("x", None, dtype), MOST)
    except RequestError as error:
        code = error.code
    else:
        assert array.shape == tuple(axes)
        assert array.dtype == (object if dtype == "string" else dtype)
        assert array.nbytes <= MOST
    assert code in (Code.OK, Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED)


def test_the_last_value_stands_for_those_that_are_missing() -> None:
    message = message_class("TensorProto")(dtype=1, float_val=[1, 2])
    message.tensor_shape.dim.add(size=2)
    message.tensor_shape.dim.add(size=2)
    assert as_array(message, tensor("x", None), MOST).tolist() == [[1, 2], [2, 2]]
    message.ClearField("float_val")
    assert as_array(message, tensor("x", None), MOST).tolist() == [[0, 0], [0, 0]]
    message.float_val.extend(range(9))
    assert as_array(message, tensor("x", None), MOST).tolist() == [[0, 1], [2, 3]]


def test_a_half_is_its_bits() -> None:
    message = message_class("TensorProto")(dtype=19, half_val=[0x3C00, 0xFC00])
    message.tensor_shape.dim.add(size=2)
    assert as_array(message, tensor("x", None, "float16"), MOST).tolist() == [1.0, -np.inf]


def test_bytes_of_bool_are_false_or_true() -> None:
    message = message_class("TensorProto")(dtype=10, tensor_content=b"\x00\x01\x02")
    message.tensor_shape.dim.add(size=3)
    assert as_array(message, tensor("x", None, "bool"), MOST).tolist() == [False, True, True]


def test_what_an_array_may_take_is_bounded() -> None:
    message = message_class("TensorProto")(dtype=1, float_val=[1])
    message.tensor_shape.dim.add(size=1000)
    assert code_of(message, most=3999) == Code.RESOURCE_EXHAUSTED
    assert len(as_array(message, tensor("x", None), 4000)) == 1000
    message = message_class("TensorProto")(dtype=7, string_val=[b"a" * 100])
    message.tensor_shape.dim.add(size=10)
    assert code_of(message, dtype="string", most=999) == Code.RESOURCE_EXHAUSTED
    assert as_array(message, tensor("x", None, "string"), 1000).tolist() == [b"a" * 100] * 10


def test_what_is_refused() -> None:
    message = message_class("TensorProto")(dtype=1, float_val=[1])
    assert code_of(message, (None,)) == Code.INVALID_ARGUMENT  # a scalar for a vector
    assert code_of(message, (), "float64") == Code.INVALID_ARGUMENT
    assert code_of(message, (), "bfloat16") == Code.UNIMPLEMENTED
    message.tensor_shape.unknown_rank = True
    assert code_of(message) == Code.INVALID_ARGUMENT
    narrow = message_class("TensorProto")(dtype=6, int_val=[128])
    assert code_of(narrow, (), "int8") == Code.INVALID_ARGUMENT
    empty = message_class("TensorProto")(dtype=1)
    for size in (0, 2**62, 2**62):  # no element, and still too large for numpy
        empty.tensor_shape.dim.add(size=size)
    assert code_of(empty) == Code.INVALID_ARGUMENT


# Without tensorflow/__init__.py, which takes seconds: its generated messages need nothing of it.
COMPARE = """
import sys, types
from google.protobuf import descriptor_pool
module = sys.modules["tensorflow"] = types.ModuleType("tensorflow")
module.__path__ = [sys.argv[1]]
import tensorflow.core.example.example_pb2, tensorflow.core.protobuf.meta_graph_pb2
from kcost.serving.messages import message_class
others = {"Dim": "TensorShapeProto.Dim", "TensorInfoEntry": "SignatureDef.InputsEntry"}
others["FeatureEntry"] = "Features.FeatureEntry"
names = "TensorProto TensorShapeProto Dim TensorInfo TensorInfoEntry SignatureDef Example Features FeatureEntry Feature"
for name in (names + " BytesList FloatList Int64List").split():
    real = descriptor_pool.Default().FindMessageTypeByName(f"tensorflow.{others.get(name, name)}")
    for field in message_class(name).DESCRIPTOR.fields:
        its = real.fields_by_name[field.name]
        kind = 5 if its.type == 14 else its.type  # an enum as an int32
        assert (field.number, field.type, field.is_repeated) == (its.number, kind, its.is_repeated), (name, field.name)
        print(name, field.name)
"""


def test_the_messages_are_those_of_tensorflow() -> None:
    spec = find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("tensorflow is not installed; install kcost[tensorflow]")
    command = [sys.executable, "-c", COMPARE, spec.submodule_search_locations[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 30

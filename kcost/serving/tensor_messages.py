"""TensorProto messages as arrays, and arrays as messages, by the rules of TensorFlow.

Source: Tensor::FromProto and AsProtoField in tensorflow/core/framework/tensor.cc, and types.proto beside it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kcost.core.serving import ServedTensor
from kcost.serving.status import Code, RequestError, invalid
from kcost.serving.tensors import refuse_shape, tensorflow_name

DATA_TYPES = {
    **{"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "string": 7, "int64": 9, "bool": 10},
    **{"bfloat16": 14, "uint16": 17, "float16": 19, "uint32": 22, "uint64": 23},
}
"""A dtype as numpy calls it -> tensorflow.DataType."""

_NAMES = {number: name for name, number in DATA_TYPES.items()}
_FIELDS = {
    **{"float32": "float_val", "float64": "double_val", "string": "string_val", "int64": "int64_val"},
    **{"bool": "bool_val", "float16": "half_val", "uint32": "uint32_val", "uint64": "uint64_val"},
    **dict.fromkeys(("int32", "uint8", "int16", "int8", "uint16"), "int_val"),
}
"""A dtype -> the field that holds its values one by one."""

_NARROW = ("uint8", "int16", "int8", "uint16")

_AS_IN_MEMORY = {"float32": 5, "float64": 6, "bool": 11}
"""Dtypes whose packed field has the bytes that an array has in memory -> the number of that field."""

_LENGTH_DELIMITED = 2


def as_array(message: Any, tensor: ServedTensor, most_bytes: int) -> np.ndarray:
    """The array of a TensorProto.

    Args:
        message: a TensorProto.
        tensor: what it is for.
        most_bytes: of the array: one value may stand for a whole array of them.

    Returns:
        An array of the input's dtype and of the message's shape, which fits the input; `bytes` objects for strings. It
        may be a view of the message.

    Raises:
        RequestError: the dtype or the shape is not the input's, or the values do not fill the shape: INVALID_ARGUMENT;
            the array would be too large: RESOURCE_EXHAUSTED; the dtype is one that is not served: UNIMPLEMENTED.
    """
    name = tensor.dtype
    if name not in _FIELDS:
        raise RequestError(Code.UNIMPLEMENTED, f"The input '{tensor.name}' is of a type that is not served: {name}")
    if message.dtype != DATA_TYPES[name]:
        received = _NAMES.get(message.dtype)
        shown = f"type {message.dtype}" if received is None else tensorflow_name(received)
        raise invalid(f"Expects the input '{tensor.name}' to be {tensorflow_name(name)} but {shown} is provided")
    shape = _shape(message, tensor)
    refuse_shape(shape, tensor)
    count = math.prod(shape)
    size = 8 if name == "string" else np.dtype(name).itemsize
    if count * size > most_bytes:
        raise _too_large(tensor, count, most_bytes)
    try:
        if content := message.tensor_content:
            return _from_content(content, tensor, count).reshape(shape)
        return _from_values(getattr(message, _FIELDS[name]), tensor, count, most_bytes).reshape(shape)
    except ValueError as error:  # axes that numpy does not take, such as one of 2**62 beside one of 0
        raise invalid(f"Tensor parsing error: {tensor.name}: {error}") from error


def _shape(message: Any, tensor: ServedTensor) -> tuple[int, ...]:
    described = message.tensor_shape
    shape = tuple([axis.size for axis in described.dim])
    if described.unknown_rank or any(size < 0 for size in shape):
        raise invalid(f"Tensor parsing error: {tensor.name}: its shape is not known")
    return shape


def _from_content(content: bytes, tensor: ServedTensor, count: int) -> np.ndarray:
    name = tensor.dtype
    if name == "string":
        raise invalid(f"Tensor parsing error: {tensor.name}: strings come in string_val, not in tensor_content")
    if len(content) != count * np.dtype(name).itemsize:
        raise invalid(
            f"Tensor parsing error: {tensor.name}: tensor_content has {len(content)} bytes for {count} values of "
            f"{tensorflow_name(name)}"
        )
    if name == "bool":
        return np.frombuffer(content, np.uint8).astype(bool)  # any other byte than 0 and 1 is no bool to numpy
    return np.frombuffer(content, name)


def _from_values(values: Any, tensor: ServedTensor, count: int, most_bytes: int) -> np.ndarray:
    """Values one by one. The last one stands for those that are missing; what is too much is left out."""
    name = tensor.dtype
    listed = values[:count]
    if name == "string":
        given = np.empty(len(listed), object)
        given[:] = listed
        if sum(map(len, listed)) + (count - len(listed)) * (len(listed[-1]) if listed else 0) > most_bytes:
            raise _too_large(tensor, count, most_bytes)
    elif name == "float16":
        given = np.array(listed, np.int64).astype(np.uint16).view(np.float16)  # its bits, in the low half of an int32
    elif name in _NARROW:
        wide = np.array(listed, np.int64)
        given = wide.astype(name)
        if (given != wide).any():
            raise invalid(f"Tensor parsing error: {tensor.name}: a value of int_val is no {name}")
    else:
        given = np.array(listed, name)
    if len(given) == count:
        return given
    array = np.empty(count, given.dtype)
    array[: len(given)] = given
    array[len(given) :] = given[-1] if len(given) else b"" if name == "string" else 0
    return array


def _too_large(tensor: ServedTensor, count: int, most_bytes: int) -> RequestError:
    text = f"The input '{tensor.name}' has {count} values, which take more than the {most_bytes} bytes of a request."
    return RequestError(Code.RESOURCE_EXHAUSTED, text)


def fill(message: Any, array: np.ndarray) -> None:
    """Fills an empty TensorProto with an array: its values one by one, as TensorFlow Serving answers.

    Args:
        message: a TensorProto.
        array: of any dtype that a model's process answers with; `bytes` objects for strings.
    """
    name = "string" if array.dtype == object else array.dtype.name
    message.dtype = DATA_TYPES[name]
    message.tensor_shape.SetInParent()  # a scalar has one, too
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    if not array.size:
        return
    if name in _AS_IN_MEMORY:
        # The field as it is on the wire, without a Python object for each value.
        content = array.tobytes()
        message.MergeFromString(_key(_AS_IN_MEMORY[name]) + _varint(len(content)) + content)
    elif name == "float16":
        message.half_val.extend(array.view(np.uint16).ravel().tolist())
    else:
        getattr(message, _FIELDS[name]).extend(array.ravel().tolist())


def _key(number: int) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)

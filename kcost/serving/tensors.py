"""JSON values as the arrays of a signature, by the rules of TensorFlow Serving (util/json_tensor.cc).

A list of numbers goes through numpy at once. Where that could hide something, a true among numbers or an integer that a
float does not hold, each value is looked at by itself; so is whatever numpy refuses, to say which value is wrong.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

import numpy as np

from kcost.core.serving import ServedTensor
from kcost.serving.documents import DEEPEST, kind, shown
from kcost.serving.status import Code, RequestError, invalid

TENSORFLOW_NAMES = {"float32": "float", "float64": "double", "float16": "half"}
"""numpy's name of a dtype -> TensorFlow's, where they differ."""

_FLOATS = ("float16", "float32", "float64")
_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_RANGES = {name: (int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in _INTEGERS}
_SERVED = frozenset((*_FLOATS, *_INTEGERS, "bool", "string"))
_MANTISSA_BITS = {"float16": 11, "float32": 24, "float64": 53}


def as_tensor(value: Any, tensor: ServedTensor, *, words: bool) -> np.ndarray:
    """An array for one input.

    Args:
        value: a JSON value: a scalar, or lists in lists.
        tensor: what it is for.
        words: whether `true`, `false` or `null` may be among the values.

    Returns:
        An array of the input's dtype, of the shape that the value has; `bytes` objects for strings.

    Raises:
        RequestError: a value does not fit the dtype, or the lists are no array: status 400.
    """
    if tensor.dtype not in _SERVED:
        raise RequestError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {shown(value)} to type: {tensorflow_name(tensor.dtype)}"
        )
    if tensor.dtype != "string" and not words:
        array = _at_once(value, tensor.dtype)
        if array is not None:
            return array
    return _one_by_one(value, tensor.dtype)


def tensorflow_name(dtype: str) -> str:
    """A dtype as TensorFlow calls it."""
    return TENSORFLOW_NAMES.get(dtype, dtype)


def _at_once(value: Any, dtype: str) -> np.ndarray | None:
    """The whole array by numpy; None where each value has to be looked at."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # lists of several lengths
        return None
    if array.ndim > DEEPEST or (array.dtype.kind not in "iuf" and array.size):
        return None
    if dtype in _INTEGERS:
        least, most = _RANGES[dtype]
        fits = array.size == 0 or (
            array.dtype.kind in "iu"
            and np.minimum.reduce(array, None) >= least
            and np.maximum.reduce(array, None) <= most
        )
        return array.astype(dtype) if fits else None
    if dtype in _FLOATS:
        if array.size:
            exact = (1 << _MANTISSA_BITS[dtype]) - 1
            # NaN compares false, and so goes the long way too.
            if not (np.maximum.reduce(array, None) <= exact and np.minimum.reduce(array, None) >= -exact):
                return None
        return array.astype(dtype)
    return array.astype(bool) if array.size == 0 else None


def _one_by_one(value: Any, dtype: str) -> np.ndarray:
    shape = _shape(value)
    leaves: list[Any] = []
    _collect(value, 0, shape, dtype, leaves)
    if dtype == "string":
        array = np.empty(len(leaves), object)
        array[:] = leaves
    else:
        array = np.array(leaves, dtype)
    return array.reshape(shape)


def _shape(value: Any) -> tuple[int, ...]:
    """The axes of the first element of each list, which all others must have."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) > DEEPEST:
            raise invalid(f"Encountered list at unexpected level: {DEEPEST} expected < {DEEPEST}")
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _collect(value: Any, level: int, shape: tuple[int, ...], dtype: str, leaves: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        leaves.append(_leaf(value, dtype))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for element in value:
        _collect(element, level + 1, shape, dtype, leaves)


def _leaf(value: Any, dtype: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype == "string":
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict):
            return decode_base64(value)
    elif dtype == "bool":
        if isinstance(value, bool):
            return value
    elif dtype in _INTEGERS:
        least, most = _RANGES[dtype]
        if number and isinstance(value, int) and least <= value <= most:
            return value
    elif number:
        return _float(value, dtype)
    raise invalid(f"JSON Value: {shown(value)} Type: {kind(value)} is not of expected type: {tensorflow_name(dtype)}")


def _float(value: float, dtype: str) -> float:
    name = tensorflow_name(dtype)
    if isinstance(value, int):
        lossless = abs(value) < 1 << _MANTISSA_BITS[dtype]
    else:
        lossless = not math.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    if not lossless:
        raise invalid(f"Cannot convert JSON value: {shown(value)} to {name} without loss of precision.")
    return value


def is_base64(value: Any) -> bool:
    """Whether a value is an object that stands for bytes: `{"b64": "..."}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: dict[str, Any]) -> bytes:
    """The bytes of such an object, with or without the padding at its end.

    Raises:
        RequestError: the object is another, or its text no base64: status 400.
    """
    if not is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text = value["b64"].strip()
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def refuse_shape(shape: tuple[int, ...], tensor: ServedTensor) -> None:
    """Refuses an array that does not fit its input; libtensorflow may end the process on one.

    Args:
        shape: of the array.
        tensor: the input.

    Raises:
        RequestError: status 400.
    """
    wanted = tensor.shape
    if wanted is None:
        return
    if len(wanted) == len(shape):
        for size, received_size in zip(wanted, shape, strict=True):
            if size is not None and size != received_size:
                break
        else:
            return
    expected = ",".join("?" if size is None else str(size) for size in wanted)
    received = ",".join(map(str, shape))
    raise invalid(f"The input '{tensor.name}' has the shape [{expected}] in the signature, but got: [{received}]")

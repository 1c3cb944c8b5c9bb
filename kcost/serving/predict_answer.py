"""Outputs of a model as the JSON that TensorFlow Serving answers.

Numbers have the shortest decimals that give the same float32 or float64 again. NaN and Infinity are tokens, as in
TensorFlow Serving: a client needs a JSON parser that knows them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from kcost.core.serving import ServedTensor
from kcost.serving.status import invalid

_NULL = re.compile(rb"null")


def predict_answer(arrays: list[np.ndarray], tensors: tuple[ServedTensor, ...], *, in_rows: bool) -> bytes:
    """The body of an answer.

    Args:
        arrays: the outputs, in the order of `tensors`.
        tensors: the outputs of the signature.
        in_rows: `predictions`, an element a row; else `outputs`.

    Raises:
        RequestError: rows are wanted of outputs that have no batch axis in common: status 400.
    """
    if not in_rows:
        if len(arrays) == 1:
            return b'{"outputs":' + as_json(arrays[0], tensors[0].name) + b"}"
        return b'{"outputs":' + _object(zip(tensors, arrays, strict=True)) + b"}"
    rows = _common_rows(arrays, tensors)
    if len(arrays) == 1:
        return b'{"predictions":' + as_json(arrays[0], tensors[0].name) + b"}"
    objects = []
    for i in range(rows):
        of_row = [array[i : i + 1].reshape(array.shape[1:]) for array in arrays]
        objects.append(_object(zip(tensors, of_row, strict=True)))
    return b'{"predictions":[' + b",".join(objects) + b"]}"


def as_json(array: np.ndarray, name: str = "", *, tokens: bool = True) -> bytes:
    """An array of any rank as JSON.

    Args:
        array: numbers, or `bytes` objects.
        name: of the output; strings of one whose name ends in `_bytes` are base64.
        tokens: whether what is not finite is NaN, Infinity or -Infinity; null else.
    """
    if array.dtype == object:
        return orjson.dumps(_strings(array, name.endswith("_bytes")))
    if array.ndim == 0:
        return as_json(array.reshape(1), tokens=tokens)[1:-1]
    text = orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)
    if tokens and b"null" in text:
        # orjson writes it for what is not finite, and there is no other null in an array of numbers.
        words = iter(_tokens(array))
        text = _NULL.sub(lambda _: next(words), text)
    return text


def _tokens(array: np.ndarray) -> Iterator[bytes]:
    for number in array[~np.isfinite(array)].tolist():
        yield b"NaN" if number != number else b"Infinity" if number > 0 else b"-Infinity"


def _strings(array: np.ndarray, as_bytes: bool) -> Any:
    def one(value: bytes) -> Any:
        if as_bytes:
            return {"b64": base64.b64encode(value).decode()}
        return value.decode("utf-8", errors="replace")

    def nested(values: Any) -> Any:
        return [nested(value) for value in values] if isinstance(values, list) else one(values)

    return nested(array.tolist())


def _object(named: Any) -> bytes:
    return b"{" + b",".join(orjson.dumps(t.name) + b":" + as_json(array, t.name) for t, array in named) + b"}"


def _common_rows(arrays: list[np.ndarray], tensors: tuple[ServedTensor, ...]) -> int:
    rows = -1
    for array, tensor in zip(arrays, tensors, strict=True):
        if array.ndim == 0:
            raise invalid(f"Tensor name: {tensor.name} has no shape information ")
        if rows not in (-1, len(array)):
            raise invalid(f"Tensor name: {tensor.name} has inconsistent batch size: {len(array)} expecting: {rows}")
        rows = len(array)
    return rows

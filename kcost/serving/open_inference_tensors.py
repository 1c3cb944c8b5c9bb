"""Requests and answers of the Open Inference Protocol: tensors in JSON, or as bytes behind it.

Sources: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, and for the bytes
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import orjson

from kcost.core.serving import ServedSignature, ServedTensor
from kcost.serving.documents import parse, shown
from kcost.serving.predict_answer import as_json
from kcost.serving.status import RequestError, invalid
from kcost.serving.tensors import as_tensor, refuse_shape

DATATYPES = {
    **{"bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64"},
    **{"int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64"},
    **{"float16": "FP16", "float32": "FP32", "float64": "FP64", "bfloat16": "BF16", "string": "BYTES"},
}
"""A dtype as numpy calls it -> as the protocol does."""

JSON_BYTES_HEADER = b"inference-header-content-length"
"""The header that says how long the JSON at the front of a body is, where bytes follow it."""

_LENGTH = struct.Struct("<I")


class InferRequest(NamedTuple):
    """A request as the model takes it."""

    signature: ServedSignature
    arrays: list[np.ndarray]
    """In the order of the signature's inputs."""
    id: str | None
    """What the answer repeats."""
    binary: dict[str, bool]
    """The outputs that are wanted, in order, and whether each is wanted as bytes."""


def read_infer(
    content: bytes | bytearray, json_bytes: int | None, signature_named: Callable[[str], ServedSignature]
) -> InferRequest:
    """Reads the body of an inference request.

    Parameters that kcost does not know are left alone. Of a request it knows `signature_name` and `binary_data_output`;
    of an input `binary_data_size`; of an output `binary_data`.

    Args:
        content: as it came, decompressed.
        json_bytes: how long the JSON at its front is; all of it where it is None.
        signature_named: gives a signature of the model, for an empty name the default one, or raises RequestError.

    Raises:
        RequestError: status 400, with what is wrong.
    """
    if json_bytes is None:
        text, rest = content, memoryview(b"")
    elif json_bytes > len(content):
        raise invalid(f"The JSON has {json_bytes} bytes by its header. Received: {len(content)} bytes in all")
    else:
        text, rest = content[:json_bytes], memoryview(content)[json_bytes:]
    document = parse(text)
    parameters = _object(document, "parameters", "The request")
    signature = signature_named(_string(parameters, "signature_name") or "")
    id_ = _string(document, "id")
    wanted = _wanted_outputs(document, signature, binary=_flag(parameters, "binary_data_output"))
    given = _named(document, "inputs")
    if given is None:
        raise invalid("Missing 'inputs': a list of tensors with name, shape, datatype and data")
    names = {tensor.name: tensor for tensor in signature.inputs}
    if given.keys() != names.keys():
        expected, received = ", ".join(sorted(names)), shown(sorted(given))
        raise invalid(f"The inputs of the signature {signature.name} are: {expected}. Received: {received}")
    words = b"true" in text or b"false" in text
    arrays = {}
    for name, entry in given.items():  # in the order of the request, which is that of the bytes
        arrays[name], rest = _array(entry, names[name], rest, words=words)
    if len(rest):
        raise invalid(f"{len(rest)} bytes are behind those that the inputs have by their 'binary_data_size'")
    return InferRequest(signature, [arrays[name] for name in names], id_, wanted)


def _object(document: dict[str, Any], key: str, whose: str) -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"{whose} has an object as '{key}', or none. Received: {shown(value)}")
    return value


def _string(document: dict[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise invalid(f"'{key}' is a string. Received: {shown(value)}")
    return value


def _flag(parameters: dict[str, Any], key: str, default: bool = False) -> bool:
    value = parameters.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise invalid(f"'{key}' is true or false. Received: {shown(value)}")
    return value


def _named(document: dict[str, Any], key: str) -> dict[str, dict[str, Any]] | None:
    """A list of objects with names, by name; None where there is none."""
    entries = document.get(key)
    if entries is None:
        return None
    if not isinstance(entries, list):
        raise invalid(f"'{key}' is a list of objects. Received: {shown(entries)}")
    by_name: dict[str, dict[str, Any]] = {}
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise invalid(f"'{key}' is a list of objects with a name each. Received, at {place}: {shown(entry)}")
        if entry["name"] in by_name:
            raise invalid(f"'{key}' has each name once. Received twice: {shown(entry['name'])}")
        by_name[entry["name"]] = entry
    return by_name


def _wanted_outputs(document: dict[str, Any], signature: ServedSignature, *, binary: bool) -> dict[str, bool]:
    names = [tensor.name for tensor in signature.outputs]
    entries = _named(document, "outputs")
    if not entries:
        return dict.fromkeys(names, binary)
    for name in entries:
        if name not in names:
            raise invalid(
                f"The outputs of the signature {signature.name} are: {', '.join(names)}. Received: {shown(name)}"
            )
    return {
        name: _flag(_object(entry, "parameters", f"The output '{name}'"), "binary_data", binary)
        for name, entry in entries.items()
    }


def _array(
    entry: dict[str, Any], tensor: ServedTensor, rest: memoryview, *, words: bool
) -> tuple[np.ndarray, memoryview]:
    """The array of one input, and the bytes that are left for the next ones."""
    where = f"The input '{tensor.name}'"
    expected = DATATYPES.get(tensor.dtype, tensor.dtype.upper())
    if entry.get("datatype") != expected:
        raise invalid(f"{where} has the datatype {expected}. Received: {shown(entry.get('datatype'))}")
    axes = entry.get("shape")
    if not isinstance(axes, list) or not all(type(size) is int and size >= 0 for size in axes):
        raise invalid(f"{where} has a list of whole numbers as 'shape'. Received: {shown(axes)}")
    shape = tuple(axes)
    refuse_shape(shape, tensor)
    count = math.prod(shape)
    parameters = _object(entry, "parameters", where)
    size = parameters.get("binary_data_size")
    data = entry.get("data")
    if size is not None:
        if data is not None:
            raise invalid(f"{where} has 'data' or 'binary_data_size'. Received: both")
        if type(size) is not int or not 0 <= size <= len(rest):
            raise invalid(f"{where} has at most the {len(rest)} bytes that are left. 'binary_data_size': {shown(size)}")
        flat, rest = _from_bytes(rest[:size], tensor.dtype, count, where), rest[size:]
    elif data is None:
        raise invalid(f"{where} has no 'data'")
    else:
        try:
            flat = as_tensor(data, tensor, words=words)
        except RequestError as error:
            raise RequestError(error.code, f"{where}: {error.message}") from error
        if flat.size != count or (flat.ndim > 1 and flat.shape != shape):
            raise invalid(
                f"{where} has the shape {list(shape)}, {count} values. Received: data of the shape {list(flat.shape)}"
            )
    try:
        return flat.reshape(shape), rest
    except ValueError as error:  # axes that numpy does not take, such as one of 2**62 beside one of 0
        raise invalid(f"{where}: {error}") from error


def _from_bytes(content: memoryview, dtype: str, count: int, where: str) -> np.ndarray:
    """A flat array from bytes: numbers as they lie in memory, strings with the length of each in front of it."""
    if dtype == "string":
        at, strings = 0, list[bytes]()
        while at + _LENGTH.size <= len(content) and len(strings) < count:
            (length,) = _LENGTH.unpack_from(content, at)
            at += _LENGTH.size + length
            strings.append(bytes(content[at - length : at]))
        if at != len(content) or len(strings) != count:
            raise invalid(f"{where} has {count} strings, each behind its length. Received: {len(content)} other bytes")
        array = np.empty(count, object)
        array[:] = strings
        return array
    itemsize = np.dtype(dtype).itemsize
    if len(content) != count * itemsize:
        raise invalid(f"{where} has {count} values of {itemsize} bytes. Received: {len(content)} bytes")
    if dtype == "bool":
        return np.frombuffer(content, np.uint8).astype(bool)  # any other byte than 0 and 1 is no bool to numpy
    return np.frombuffer(content, dtype)


def infer_answer(
    arrays: list[np.ndarray], request: InferRequest, model: str, version: int
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body of an answer, and its headers: JSON alone, or with bytes behind it.

    NaN and Infinity are null in JSON, which has no words for them; as bytes they are what they are.

    Raises:
        RequestError: strings that are no UTF-8 are wanted in JSON: status 400.
    """
    by_name = dict(zip((tensor.name for tensor in request.signature.outputs), arrays, strict=True))
    head: dict[str, Any] = {"model_name": model, "model_version": str(version)}
    if request.id is not None:
        head["id"] = request.id
    outputs, blobs = [], []
    for name, binary in request.binary.items():
        array = by_name[name]
        dtype = "string" if array.dtype == object else array.dtype.name
        described: dict[str, Any] = {"name": name, "datatype": DATATYPES[dtype], "shape": array.shape}
        if binary:
            blobs.append(_as_bytes(array))
            described["parameters"] = {"binary_data_size": len(blobs[-1])}
            outputs.append(orjson.dumps(described))
        else:
            outputs.append(orjson.dumps(described)[:-1] + b',"data":' + _flat_json(array, name) + b"}")
    text = orjson.dumps(head)[:-1] + b',"outputs":[' + b",".join(outputs) + b"]}"
    if not any(request.binary.values()):
        return text, [(b"content-type", b"application/json")]
    length = (JSON_BYTES_HEADER, str(len(text)).encode())
    return b"".join((text, *blobs)), [(b"content-type", b"application/octet-stream"), length]


def _flat_json(array: np.ndarray, name: str) -> bytes:
    flat = array.reshape(-1)
    if flat.dtype != object:
        return as_json(flat, tokens=False)
    try:
        return orjson.dumps([value.decode() for value in flat.tolist()])
    except UnicodeDecodeError as error:
        raise invalid(
            f"The output '{name}' has bytes that are no UTF-8, which JSON has no strings for. Ask for it with the "
            'parameter "binary_data": true'
        ) from error


def _as_bytes(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    return b"".join(_LENGTH.pack(len(value)) + value for value in array.ravel().tolist())

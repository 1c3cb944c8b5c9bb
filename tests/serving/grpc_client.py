"""A gRPC client that has its messages from the field numbers in TensorFlow's and TensorFlow Serving's .proto files.

The numbers stand here once more, and not in the server's own table, so that one that is wrong there is seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from kcost.runtimes.protobuf import encode, fields

PREDICTION = "tensorflow.serving.PredictionService"
MODELS = "tensorflow.serving.ModelService"
HEALTH = "grpc.health.v1.Health"

DATA_TYPES = {
    **{"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "object": 7, "int64": 9, "bool": 10},
    **{"uint16": 17, "float16": 19, "uint32": 22, "uint64": 23},
}
FLOAT_VAL, DOUBLE_VAL, INT_VAL, STRING_VAL, INT64_VAL, BOOL_VAL, UINT64_VAL = 5, 6, 7, 8, 10, 11, 17


class GrpcClient:
    """Calls a server as any client does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address)

    def call(self, service: str, method: str, request: bytes, timeout_s: float = 60, **options: Any) -> bytes:
        answer: bytes = self.channel.unary_unary(f"/{service}/{method}")(request, timeout=timeout_s, **options)
        return answer

    def predict(self, inputs: dict[str, Any], timeout_s: float = 60, **spec: Any) -> dict[str, np.ndarray]:
        """Outputs of Predict; see `predict_request`."""
        answer = self.call(PREDICTION, "Predict", predict_request(inputs, **spec), timeout_s)
        return {key.decode(): as_array(value) for key, value in entries(answer, 1)}

    def code(self, request: bytes, **options: Any) -> grpc.StatusCode:
        """The status of a call of Predict, OK too."""
        try:
            self.call(PREDICTION, "Predict", request, **options)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@contextmanager
def refused(code: grpc.StatusCode, message: str = "") -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() == code, caught.value.details()
    assert message in caught.value.details()


def model_spec(
    model: str = "half_plus_two", version: int | None = None, label: str | None = None, signature: str | None = None
) -> bytes:
    """ModelSpec: name 1, version 2 (an Int64Value), signature_name 3, version_label 4."""
    text = encode(1, model.encode())
    if version is not None:
        text += encode(2, encode(1, version))
    if signature is not None:
        text += encode(3, signature.encode())
    return text if label is None else text + encode(4, label.encode())


def predict_request(inputs: dict[str, Any], outputs: tuple[str, ...] = (), **spec: Any) -> bytes:
    """PredictRequest: model_spec 1, inputs 2, output_filter 3; an input is an array or the bytes of a TensorProto."""
    text = encode(1, model_spec(**spec))
    for name, value in inputs.items():
        tensor = value if isinstance(value, bytes) else tensor_proto(value)
        text += encode(2, encode(1, name.encode()) + encode(2, tensor))
    return text + b"".join(encode(3, name.encode()) for name in outputs)


def tensor_proto(array: np.ndarray) -> bytes:
    """As `tf.make_tensor_proto` writes one: tensor_content 4, for strings string_val 8."""
    if array.dtype == object:
        content = b"".join(encode(STRING_VAL, value) for value in array.ravel().tolist())
    else:
        content = encode(4, array.tobytes())
    return tensor_head(array.dtype.name, array.shape) + content


def tensor_head(dtype: str, shape: tuple[int, ...]) -> bytes:
    """TensorProto: dtype 1, tensor_shape 2, which has dim 2, which has size 1."""
    axes = b"".join(encode(2, encode(1, size)) for size in shape)
    return encode(1, DATA_TYPES[dtype]) + encode(2, axes)


def entries(message: bytes | memoryview, number: int) -> list[tuple[bytes, memoryview]]:
    """A map: key 1, value 2 of each entry."""
    pairs = [dict(fields(content)) for field, content in fields(message) if field == number]
    return sorted((bytes(pair.get(1, b"")), memoryview(pair.get(2, b""))) for pair in pairs)


def as_array(message: memoryview) -> np.ndarray:
    """A TensorProto of an answer, whose values TensorFlow Serving gives one by one, packed."""
    by_number: dict[int, list[Any]] = {}
    for number, value in fields(message):
        by_number.setdefault(number, []).append(value)
    assert 4 not in by_number, "TensorFlow Serving answers in the typed fields unless a flag says otherwise"
    dtype = {number: name for name, number in DATA_TYPES.items()}[by_number[1][0]]
    axes = [dict(fields(axis)).get(1, 0) for number, axis in fields(by_number[2][0]) if number == 2]
    if dtype == "object":
        array = np.empty(math.prod(axes), object)
        array[:] = [bytes(value) for value in by_number.get(STRING_VAL, [])]
        return array.reshape(axes)
    (packed,) = next((values for number, values in by_number.items() if number > 4), [memoryview(b"")])
    if dtype in ("float32", "float64"):
        flat = np.frombuffer(packed, dtype)
    else:
        whole = np.array(_varints(packed), np.uint64)
        flat = whole if dtype == "uint64" else whole.view(np.int64).astype(dtype)
    return flat.reshape(axes)


def _varints(packed: memoryview) -> list[int]:
    values, value, shift = [], 0, 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(value)
            value = shift = 0
    return values

"""Requests as TensorFlow Serving logs them, and warms up with them: PredictionLog messages in a TFRecord file.

Field numbers: tensorflow_serving/apis/{prediction_log,predict,model}.proto and
tensorflow/core/framework/{tensor,tensor_shape}.proto. Form of the file:
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kcost.core.errors import ArtifactError
from kcost.runtimes.meta_graph import DTYPES
from kcost.runtimes.protobuf import encode, fields, signed

WARM_UP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
"""Below a version's folder. https://www.tensorflow.org/tfx/serving/saved_model_warmup"""

MOST_RECORDS = 1000
"""More of them TensorFlow Serving does not replay."""

_NUMBERS = {name: number for number, name in DTYPES.items()}
_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4


class PredictRequest(NamedTuple):
    """A request to a signature."""

    model: str
    signature: str
    inputs: Mapping[str, np.ndarray]
    """Numbers and booleans; arrays of `bytes` objects for strings."""


def encode_request(request: PredictRequest) -> bytes:
    """A PredictionLog with this request.

    Examples:
        >>> encode_request(PredictRequest("digits", "serving_default", {})).hex()
        '321d0a1b0a190a066469676974731a0f73657276696e675f64656661756c74'
    """
    model_spec = encode(1, request.model.encode()) + encode(3, request.signature.encode())
    inputs = b"".join(
        encode(2, encode(1, name.encode()) + encode(2, _tensor(array))) for name, array in request.inputs.items()
    )
    return encode(6, encode(1, encode(1, model_spec) + inputs))


def read_requests(path: Path) -> list[PredictRequest]:
    """The requests of a TFRecord file. Checksums are not looked at.

    Raises:
        ArtifactError: the file is cut short, or holds something else.
    """
    try:
        return [_decoded(record) for record in _records(path.read_bytes())]
    except (ValueError, KeyError, struct.error) as error:
        raise ArtifactError(
            "A file of warm-up requests is a TFRecord file of PredictionLog messages.",
            received=f"{path}: {error}",
            remedy="The file is damaged. Export the model again.",
        ) from error


def _tensor(array: np.ndarray) -> bytes:
    is_text = array.dtype == object
    shape = b"".join(encode(2, encode(1, size)) for size in array.shape)
    head = encode(1, _NUMBERS["string" if is_text else array.dtype.name]) + encode(2, shape)
    if is_text:
        return head + b"".join(encode(8, text) for text in array.ravel())
    return head + encode(4, np.ascontiguousarray(array).tobytes())


def _records(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        start = at + _LENGTH_BYTES + _CHECKSUM_BYTES
        at = start + length + _CHECKSUM_BYTES
        if at > len(content):
            raise ValueError(f"a record of {length} bytes ends behind the end of the file")
        yield content[start : start + length]


def _decoded(record: bytes) -> PredictRequest:
    request = _message(_message(memoryview(record), 6), 1)
    spec = _message(request, 1)
    inputs = {}
    for number, entry in fields(request):
        if number == 2 and not isinstance(entry, int):
            inputs[str(_message(entry, 1), "utf-8")] = _array(_message(entry, 2))
    return PredictRequest(str(_message(spec, 1), "utf-8"), str(_message(spec, 3), "utf-8"), inputs)


def _message(parent: memoryview, wanted: int) -> memoryview:
    for number, value in fields(parent):
        if number == wanted and not isinstance(value, int):
            return value
    raise ValueError(f"a message without the field {wanted}")


def _array(tensor: memoryview) -> np.ndarray:
    dtype, shape, content, strings = 0, [], memoryview(b""), []
    for number, value in fields(tensor):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number == 2 and not isinstance(value, int):
            axes = [dict(fields(axis)) for n, axis in fields(value) if n == 2 and not isinstance(axis, int)]
            shape = [signed(int(axis.get(1, 0))) for axis in axes]
        elif number == 4 and not isinstance(value, int):
            content = value
        elif number == 8 and not isinstance(value, int):
            strings.append(bytes(value))
    if DTYPES[dtype] != "string":
        return np.frombuffer(content, DTYPES[dtype]).reshape(shape)
    array = np.empty(len(strings), object)
    array[:] = strings
    return array.reshape(shape)

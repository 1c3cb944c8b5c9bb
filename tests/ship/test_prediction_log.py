"""Requests as TensorFlow Serving logs them, read back by kcost, by protocol buffers, and by TensorFlow."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays

from kcost.core.errors import ArtifactError
from kcost.runtimes.prediction_log import PredictRequest, encode_request, read_requests

DTYPES = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_, np.float16])
NUMBERS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)))
TEXTS = arrays.arrays(object, arrays.array_shapes(max_dims=2, max_side=3), elements=st.binary(max_size=20))
REQUESTS = st.builds(
    PredictRequest,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=9),
    st.sampled_from(["serving_default", "serving_text"]),
    st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), NUMBERS | TEXTS, max_size=3),
)


def written(path: Path, requests: list[PredictRequest]) -> Path:
    """A TFRecord file without checksums, which `read_requests` does not look at."""
    records = [encode_request(request) for request in requests]
    path.write_bytes(b"".join(struct.pack("<QI", len(r), 0) + r + bytes(4) for r in records))
    return path


@given(st.lists(REQUESTS, max_size=3))
def test_requests_are_read_back(tmp_path_factory: pytest.TempPathFactory, requests: list[PredictRequest]) -> None:
    read = read_requests(written(tmp_path_factory.mktemp("log") / "requests", requests))
    assert [(r.model, r.signature, list(r.inputs)) for r in read] == [
        (r.model, r.signature, list(r.inputs)) for r in requests
    ]
    for one, other in zip(read, requests, strict=True):
        for name, array in other.inputs.items():
            assert one.inputs[name].dtype == array.dtype
            np.testing.assert_array_equal(one.inputs[name], array)


@given(st.lists(REQUESTS, min_size=1, max_size=2), st.data())
def test_a_file_that_is_cut_is_told(
    tmp_path_factory: pytest.TempPathFactory, requests: list[PredictRequest], data: st.DataObject
) -> None:
    path = written(tmp_path_factory.mktemp("log") / "requests", requests)
    content = path.read_bytes()
    last = 16 + len(encode_request(requests[-1]))
    path.write_bytes(content[: -data.draw(st.integers(1, last - 1))])
    with pytest.raises(ArtifactError, match="TFRecord file"):
        read_requests(path)


@given(st.binary(max_size=60))
def test_any_bytes_are_requests_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "requests"
    path.write_bytes(struct.pack("<QI", len(content), 0) + content + bytes(4))
    try:
        read_requests(path)
    except ArtifactError:
        return


MESSAGES = {
    "Dim": {"size": (1, 3, "")},
    "Shape": {"dim": (2, -11, "Dim")},
    "Tensor": {"dtype": (1, 5, ""), "shape": (2, 11, "Shape"), "content": (4, 12, ""), "strings": (8, -12, "")},
    "Input": {"key": (1, 9, ""), "value": (2, 11, "Tensor")},
    "Spec": {"name": (1, 9, ""), "signature_name": (3, 9, "")},
    "Request": {"model_spec": (1, 11, "Spec"), "inputs": (2, -11, "Input")},
    "Predict": {"request": (1, 11, "Request")},
    "Log": {"predict_log": (6, 11, "Predict")},
}
"""Message -> field -> number, type (below 0 where it repeats) and its message, as the .proto files have them."""


def log_class():
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="log", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, of) in fields.items():
            added = message.field.add(name=field, number=number, type=abs(kind), label=3 if kind < 0 else 1)
            if of:
                added.type_name = f".log.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("log.Log"))


def test_protocol_buffers_read_a_request() -> None:
    images = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    texts = np.array([b"a", b""], object)
    log = log_class().FromString(
        encode_request(PredictRequest("digits", "serving_default", {"images": images, "texts": texts}))
    )
    request = log.predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("digits", "serving_default")
    first, second = request.inputs
    assert (first.key, second.key) == ("images", "texts")
    assert (first.value.dtype, [d.size for d in first.value.shape.dim]) == (1, [1, 2, 3])
    assert first.value.content == images.tobytes()
    assert (second.value.dtype, list(second.value.strings)) == (7, [b"a", b""])


TENSORFLOW = """
import json, sys
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from kcost.runtimes.prediction_log import PredictRequest, encode_request
from kcost.runtimes.protobuf import fields
import numpy as np
path = sys.argv[1]
arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([[7]]), "c": np.array([b"x", b"yz"], object)}
with tf.io.TFRecordWriter(path) as writer:
    writer.write(encode_request(PredictRequest("m", "s", arrays)))
(record,) = tf.data.TFRecordDataset(path).as_numpy_iterator()
request = dict(fields(dict(fields(record))[6]))[1]
read = {}
for number, entry in fields(request):
    if number == 2:
        of = dict(fields(entry))
        read[str(of[1], "utf-8")] = tf.make_ndarray(TensorProto.FromString(bytes(of[2])))
same = {name: bool((read[name] == array).all()) and read[name].shape == array.shape for name, array in arrays.items()}
content = bytearray(open(path, "rb").read())
refused = []
for at in (0, 9, 20, len(content) - 1):
    damaged = bytes(content[:at]) + bytes([content[at] ^ 1]) + bytes(content[at + 1:])
    open(path, "wb").write(damaged)
    try:
        list(tf.data.TFRecordDataset(path))
    except tf.errors.DataLossError:
        refused.append(at)
print(json.dumps([same, len(refused)]))
"""


def test_tensorflow_reads_a_request_and_sees_a_changed_byte(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TENSORFLOW, str(tmp_path / "requests")],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [{"a": True, "b": True, "c": True}, 4]

"""The Open Inference Protocol without a server: any document, any array, and models that are not ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays_of

from kcost.core.serving import ServedSignature
from kcost.serving.application import Application
from kcost.serving.bodies import Bodies
from kcost.serving.model_version import Limits
from kcost.serving.models import Models
from kcost.serving.open_inference import OpenRoute, is_open_inference, open_route
from kcost.serving.open_inference_tensors import DATATYPES, InferRequest, infer_answer, read_infer
from kcost.serving.status import RequestError
from tests.unit.serving.fakes import FakeRunner, ask, signature, tensor, write_versions

DTYPES = tuple(name for name in DATATYPES if name not in ("string", "bfloat16"))
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NUMBERS = st.sampled_from(DTYPES).flatmap(lambda name: arrays_of.arrays(name, SHAPES))
STRINGS = SHAPES.flatmap(lambda shape: arrays_of.arrays(object, shape, elements=st.text(max_size=3).map(str.encode)))

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["x", "y", "FP32", "BYTES", ""])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
PARAMETERS = VALUES | st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "signature_name", "other"]), VALUES
)
TENSORS = st.fixed_dictionaries(
    {"name": st.just("x") | VALUES, "datatype": st.just("FP32") | VALUES, "shape": st.just([2]) | VALUES},
    optional={"data": st.just([1, 2]) | VALUES, "parameters": PARAMETERS},
)
DOCUMENTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, min_size=1, max_size=2) | VALUES},
    optional={"id": VALUES, "parameters": PARAMETERS, "outputs": st.lists(TENSORS | VALUES, max_size=2) | VALUES},
)
PLAIN = signature("serving_default", (tensor("x", (None,)),), (tensor("y", (None,)),))


def identity(array: np.ndarray) -> ServedSignature:
    name = "string" if array.dtype == object else array.dtype.name
    return signature("serving_default", (tensor("x", None, name),), (tensor("x", None, name),))


@given(DOCUMENTS, st.binary(max_size=12))
def test_any_document_is_read_or_refused(document: Any, blob: bytes) -> None:
    text = json.dumps(document).encode()
    with contextlib.suppress(RequestError):
        request = read_infer(text + blob, len(text), lambda _: PLAIN)
        assert [(array.dtype, array.ndim) for array in request.arrays] == [(np.float32, 1)]
        assert set(request.binary) <= {"y"}


@given(NUMBERS | STRINGS, st.booleans())
def test_an_answer_is_a_request_again(array: np.ndarray, binary: bool) -> None:
    """What is answered, JSON or bytes, reads as the same array when it is sent."""
    known = identity(array)
    body, headers = infer_answer([array], InferRequest(known, [], "7", {"x": binary}), "m", 3)
    length = int(dict(headers).get(b"inference-header-content-length", len(body)))
    document = orjson.loads(body[:length])
    assert (document["model_name"], document["model_version"], document["id"]) == ("m", "3", "7")
    text = orjson.dumps({"inputs": document["outputs"]})
    if not binary and array.dtype.kind == "f" and not np.isfinite(array).all():
        assert None in document["outputs"][0]["data"]
        return
    request = read_infer(text + body[length:], len(text), lambda _: known)
    assert request.arrays[0].shape == array.shape
    np.testing.assert_array_equal(request.arrays[0], array, strict=True)


def test_axes_that_numpy_does_not_take() -> None:
    known = signature("serving_default", (tensor("x", None),), ())
    entry = {"name": "x", "datatype": "FP32", "shape": [0, 2**62, 2**62], "data": []}
    with pytest.raises(RequestError) as caught:
        read_infer(orjson.dumps({"inputs": [entry]}), None, lambda _: known)
    assert caught.value.http_status == 400


def test_strings_as_bytes_are_whole() -> None:
    known = signature("serving_default", (tensor("x", (None,), "string"),), ())

    def read(blob: bytes, count: int = 1) -> list[bytes]:
        parameters = {"binary_data_size": len(blob)}
        entry = {"name": "x", "datatype": "BYTES", "shape": [count], "parameters": parameters}
        text = orjson.dumps({"inputs": [entry]})
        strings: list[bytes] = read_infer(text + blob, len(text), lambda _: known).arrays[0].tolist()
        return strings

    one = struct.pack("<I", 3) + b"abc"
    assert read(one) == [b"abc"]
    assert read(one + bytes(4), 2) == [b"abc", b""]
    for blob, count in ((one, 2), (one, 0), (one + b"a", 1), (one[:-1], 1), (one[:3], 1), (b"\xff" * 4, 1)):
        with pytest.raises(RequestError):
            read(blob, count)


def test_routes() -> None:
    assert open_route("GET", b"/v2/") == OpenRoute("server")
    assert open_route("POST", b"/v2/models/a%20b/versions/7/infer") == OpenRoute("infer", "a b", 7)
    assert open_route("GET", b"/v2/models/m/ready") == OpenRoute("model_ready", "m")
    assert not is_open_inference(b"/v22")
    assert is_open_inference(b"/v2")
    for method, path, status in (
        ("GET", b"/v2/models/m/infer", 405),
        ("POST", b"/v2/health/live", 405),
        ("GET", b"/v2/models/", 404),
        ("GET", b"/v2/models/m/versions/\xb2", 400),
    ):
        with pytest.raises(RequestError) as caught:
            open_route(method, path)
        assert caught.value.http_status == status


def test_a_model_that_is_not_ready(tmp_path: Path) -> None:
    async def run() -> None:
        models = Models(tmp_path, Limits(), tmp_path / "log", lambda _: None, new_runner=FakeRunner)
        await models.load_first()
        application = Application(models, "/metrics", Bodies(1000))
        entry = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
        status, body = await ask(application, "POST", "/v2/models/m/infer", orjson.dumps({"inputs": [entry]}))
        assert (status, orjson.loads(body)["outputs"][0]["data"]) == (200, [2.0, 4.0])
        assert b'API="Infer",entrypoint="REST"} 1' in (await ask(application, "GET", "/metrics"))[1]
        models.find("m").state = "LOADING"
        assert await ask(application, "GET", "/v2/health/live") == (200, b'{"live":true}')
        assert await ask(application, "GET", "/v2/health/ready") == (400, b'{"ready":false}')
        assert await ask(application, "GET", "/v2/models/m/ready") == (400, b'{"name":"m","ready":false}')
        assert (await ask(application, "GET", "/v2/models/n/ready"))[0] == 404
        status, body = await ask(application, "POST", "/v2/models/m/infer", b"{}")
        assert (status, orjson.loads(body)) == (404, {"error": "Servable not found for request: Latest(m)"})

    write_versions(tmp_path / "m", 1)
    asyncio.run(run())

"""A request for a prediction, in any form that comes by HTTP: from its body to that of its answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import numpy as np

from kcost.core.serving import ServedSignature
from kcost.serving.at_once import Headers
from kcost.serving.examples import Method, examples_answer, read_examples
from kcost.serving.model_version import ModelVersion
from kcost.serving.open_inference import OpenRoute
from kcost.serving.open_inference_tensors import JSON_BYTES_HEADER, infer_answer, read_infer
from kcost.serving.predict_answer import predict_answer
from kcost.serving.predict_request import read_predict
from kcost.serving.routes import Route
from kcost.serving.status import invalid

JSON_HEADER = (b"content-type", b"application/json")


class Prediction(NamedTuple):
    """A request for a prediction that was read."""

    api: str
    """Its name in metrics."""
    signature: ServedSignature
    arrays: list[np.ndarray]
    """In the order of the signature's inputs."""
    answer: Callable[[list[np.ndarray]], tuple[bytes, Headers]]
    """Body and headers of the answer, from the outputs in the order of the signature. Raises RequestError."""


def read_prediction(
    resource: Route | OpenRoute, version: ModelVersion, content: bytes | bytearray, headers: Headers
) -> Prediction:
    """Reads the body of a request for a prediction.

    Args:
        resource: that was asked by POST.
        version: of the model that it names.
        content: as it came, decompressed.
        headers: of the request, with names in lower case.

    Raises:
        RequestError: the request is wrong: status 400, with what is wrong.
    """
    if isinstance(resource, OpenRoute):
        infer = read_infer(content, _json_bytes(headers), version.signature)
        answer = partial(infer_answer, request=infer, model=version.name, version=version.version)
        return Prediction("Infer", infer.signature, infer.arrays, answer)
    if resource.method == "predict":
        predict = read_predict(content, version.signature)
        outputs, in_rows = predict.signature.outputs, predict.in_rows
        return Prediction(
            "Predict",
            predict.signature,
            predict.arrays,
            lambda arrays: (predict_answer(arrays, outputs, in_rows=in_rows), [JSON_HEADER]),
        )
    kind = cast(Method, resource.method)
    examples = read_examples(content, kind, version.signature)
    return Prediction(
        kind.capitalize(),
        examples.signature,
        examples.arrays,
        lambda arrays: (examples_answer(arrays, examples.signature, kind), [JSON_HEADER]),
    )


def _json_bytes(headers: Headers) -> int | None:
    """How long the JSON at the front of a body is, where a header says it.

    Raises:
        RequestError: the header is no number: status 400.
    """
    text = next((value for name, value in headers if name == JSON_BYTES_HEADER), None)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise invalid(f"{JSON_BYTES_HEADER.decode()} is a number of bytes. Received: {text.decode('latin-1')}")
    return int(text)

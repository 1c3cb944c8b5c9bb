"""`:classify` and `:regress`: features in JSON as tf.Example messages, and what such signatures answer.

Source: util/json_tensor.cc, servables/tensorflow/{classifier,regressor}.cc of TensorFlow Serving.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson

from kcost.core.serving import ServedSignature
from kcost.serving.documents import kind, parse, shown
from kcost.serving.messages import message_class
from kcost.serving.predict_answer import as_json
from kcost.serving.predict_request import signature_name
from kcost.serving.status import invalid
from kcost.serving.tensors import decode_base64, is_base64

Method = Literal["classify", "regress"]
_INPUT, _CLASSES, _SCORES, _OUTPUTS = "inputs", "classes", "scores", "outputs"
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


class ExampleRequest(NamedTuple):
    """A request as the model takes it."""

    signature: ServedSignature
    arrays: list[np.ndarray]
    """One array: the serialized examples, shape (examples,)."""


def read_examples(
    body: bytes | bytearray, method: Method, signature_named: Callable[[str], ServedSignature]
) -> ExampleRequest:
    """Reads a body of `:classify` or `:regress`.

    Raises:
        RequestError: status 400, with what is wrong.
    """
    document = parse(body)
    name = signature_name(document)
    context = _features(document["context"]) if "context" in document else {}
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {shown(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {shown(document)} 'examples' value is an empty array")
    signature = signature_named(name)
    if signature.method != f"tensorflow/serving/{method}":
        raise invalid(
            f"Expected {method} signature method_name to be tensorflow/serving/{method}. Was: {signature.method}"
        )
    if [(t.name, t.dtype) for t in signature.inputs] != [(_INPUT, "string")]:
        raise invalid(f"Expected one input of strings, named {_INPUT}, in the signature {signature.name}.")
    serialized = np.empty(len(examples), object)
    serialized[:] = [_serialized({**context, **_features(example)}) for example in examples]
    return ExampleRequest(signature, [serialized])


def _features(example: Any) -> dict[str, dict[str, list[Any]]]:
    """Features by name: the field of the message, and its values."""
    if not isinstance(example, dict):
        raise invalid(f"Example must be JSON object but got JSON {kind(example)}")
    return {name: _feature(name, value if isinstance(value, list) else [value]) for name, value in example.items()}


def _feature(name: str, values: list[Any]) -> dict[str, list[Any]]:
    feature: dict[str, list[Any]] = {}
    for value in values:
        field, stored = _value(name, value)
        if feature and field not in feature:
            there = next(iter(feature)).removesuffix("_list")
            raise invalid(f"Unexpected element type in feature: {name} expecting type: {there}")
        feature.setdefault(field, []).append(stored)
    return feature


def _value(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "int64_list", int(value)
    if isinstance(value, str):
        return "bytes_list", value.encode()
    if is_base64(value):
        return "bytes_list", decode_base64(value)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64_list", value
    if isinstance(value, float):
        if np.isfinite(value) and abs(value) > _LARGEST_FLOAT:
            raise invalid(f"Cannot convert JSON value: {shown(value)} to float without loss of precision.")
        return "float_list", value
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {kind(value)}")


def _serialized(features: dict[str, dict[str, list[Any]]]) -> bytes:
    example = message_class("Example")()
    for name, feature in sorted(features.items()):
        entry = example.features.feature.add(key=name)
        entry.value.SetInParent()
        for field, values in feature.items():
            getattr(entry.value, field).value.extend(values)
    text: bytes = example.SerializeToString()
    return text


def examples_answer(arrays: list[np.ndarray], signature: ServedSignature, method: Method) -> bytes:
    """The body of an answer: labels with scores, or numbers.

    Raises:
        RequestError: the outputs are not those of such a signature: status 400.
    """
    outputs = {tensor.name: array for tensor, array in zip(signature.outputs, arrays, strict=True)}
    if method == "regress":
        values = outputs.get(_OUTPUTS)
        if values is None or values.dtype.kind != "f" or values.ndim not in (1, 2) or values.size != len(values):
            raise invalid(f"Expected one number for each example in the output {_OUTPUTS}.")
        return b'{"results":' + as_json(values.reshape(-1)) + b"}"
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    if classes is None and scores is None:
        raise invalid(f"Expected the outputs {_CLASSES} or {_SCORES} in the signature {signature.name}.")
    shapes = {array.shape for array in (classes, scores) if array is not None}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2:
        raise invalid(f"Expected outputs of the shape [examples, classes]. Received: {sorted(shapes)}")
    rows = []
    for i in range(shape[0]):
        labels = [""] * shape[1] if classes is None else [c.decode("utf-8", "replace") for c in classes[i]]
        numbers = [b"0.0"] * shape[1] if scores is None else [as_json(np.asarray(score)) for score in scores[i]]
        pairs = (b"[" + orjson.dumps(label) + b"," + n + b"]" for label, n in zip(labels, numbers, strict=True))
        rows.append(b",".join(pairs))
    return b'{"results":[' + b",".join(b"[" + row + b"]" for row in rows) + b"]}"

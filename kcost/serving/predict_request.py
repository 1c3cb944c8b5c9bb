"""What a body of `:predict` asks for: a signature and its inputs, in rows or in columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kcost.core.serving import ServedSignature, ServedTensor
from kcost.serving.documents import parse, shown
from kcost.serving.status import RequestError, invalid
from kcost.serving.tensors import as_tensor, is_base64, refuse_shape


class PredictRequest(NamedTuple):
    """A request as the model takes it."""

    signature: ServedSignature
    arrays: list[np.ndarray]
    """In the order of the signature's inputs."""
    in_rows: bool
    """Whether it came as `instances`, so that the answer is `predictions`; else `inputs` and `outputs`."""


def read_predict(body: bytes | bytearray, signature_named: Callable[[str], ServedSignature]) -> PredictRequest:
    """Reads a body.

    Args:
        body: as it came, decompressed.
        signature_named: gives a signature of the model, for an empty name the default one, or raises RequestError.

    Raises:
        RequestError: status 400, with what is wrong.
    """
    document = parse(body)
    signature = signature_named(signature_name(document))
    words = b"true" in body or b"false" in body or b"null" in body
    rows, columns = "instances" in document, "inputs" in document
    if rows and columns:
        raise invalid(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if rows:
        arrays = _from_rows(document, signature, words)
    elif columns:
        arrays = _from_columns(document["inputs"], signature, words)
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    for array, tensor in zip(arrays, signature.inputs, strict=True):
        refuse_shape(array.shape, tensor)
    return PredictRequest(signature, arrays, rows)


def signature_name(document: dict[str, Any]) -> str:
    """The signature that a request names; empty where it names none."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _from_rows(document: dict[str, Any], signature: ServedSignature, words: bool) -> list[np.ndarray]:
    instances = document["instances"]
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {shown(document)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid(f"JSON Value: {shown(document)} No values in 'instances' array")
    if not isinstance(instances[0], dict) and len(signature.inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if _is_object(instances[0]):
        _refuse_keys(instances, {tensor.name for tensor in signature.inputs})
        return [_column([row[t.name] for row in instances], t, words, f" key: {t.name}") for t in signature.inputs]
    for place, row in enumerate(instances):
        if _is_object(row):
            raise invalid(f"Expecting value/list but got object at item {place} of input list")
    return [_column(instances, signature.inputs[0], words, "")]


def _refuse_keys(instances: list[Any], names: set[str]) -> None:
    for place, row in enumerate(instances):
        if not _is_object(row):
            raise invalid(f"Expecting object but got list at item {place} of input list")
        if row.keys() != names:
            raise invalid(
                f"Failed to process element: {place} of 'instances' list. JSON object: {shown(row)} keys must be "
                f"equal to: {','.join(sorted(names))}"
            )


def _column(values: list[Any], tensor: ServedTensor, words: bool, where: str) -> np.ndarray:
    """The values of one input, one for each row, as one array; what is wrong is told with the row that it is in."""
    try:
        return as_tensor(values, tensor, words=words)
    except RequestError as error:
        first: np.ndarray | None = None
        for place, value in enumerate(values):
            try:
                row = as_tensor(value, tensor, words=True)
                if first is not None and first.shape != row.shape:
                    raise _other_shape(first, row)
                first = row if first is None else first
            except RequestError as of_row:
                reason = f"{of_row.code.name}: {of_row.message}"
                raise RequestError(
                    error.code, f"Failed to process element: {place}{where} of 'instances' list. Error: {reason}"
                ) from of_row
        raise


def _other_shape(first: np.ndarray, row: np.ndarray) -> RequestError:
    if first.size != row.size:
        return invalid(f"Expecting tensor size: {first.size} but got: {row.size}")
    shapes = ["[" + ",".join(map(str, array.shape)) + "]" for array in (first, row)]
    return invalid(f"Expecting shape {shapes[0]} but got: {shapes[1]}")


def _from_columns(inputs: Any, signature: ServedSignature, words: bool) -> list[np.ndarray]:
    if not _is_object(inputs):
        if len(signature.inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        return [as_tensor(inputs, signature.inputs[0], words=words)]
    for tensor in signature.inputs:
        if tensor.name not in inputs:
            raise invalid(f"Missing named input: {tensor.name} in 'inputs' object.")
    return [as_tensor(inputs[tensor.name], tensor, words=words) for tensor in signature.inputs]

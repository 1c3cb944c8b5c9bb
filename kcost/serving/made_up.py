"""A request for a model that nobody gave one for: made up from the signature that the server tells."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from kcost.core.errors import InputError
from kcost.serving.http_client import Target
from kcost.serving.one_request import ask

MADE_UP = "made up from the model's signature: random numbers, one row, free axes of length 1"
_INTEGERS = ("INT", "UINT")
_FLOATS = ("FLOAT", "DOUBLE", "HALF", "FP16", "FP32", "FP64")


async def made_up_body(target: Target, seed: int) -> bytes:
    """A body of one row for `:predict` or `/infer`, by the metadata of the model.

    Raises:
        InputError: the server tells no metadata, or the model takes what cannot be made up.
    """
    random = np.random.default_rng(seed)
    if target.path.startswith("/v2/") and target.path.endswith("/infer"):
        metadata, make = target.path.removesuffix("/infer"), _infer
    elif target.path.endswith(":predict"):
        metadata, make = f"{target.path.removesuffix(':predict')}/metadata", _predict
    else:
        raise InputError(
            "A request is made up for paths such as /v1/models/NAME:predict and /v2/models/NAME/infer.",
            received=target.path,
            remedy="Name a model and what is asked of it, or give a request: --body FILE",
        )
    document = await _metadata(target, metadata)
    try:
        body = make(document, random)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "A request is made up from the metadata of a model's default signature.",
            received=f"{metadata} without it ({error})",
            remedy="Give a request: --body FILE",
        ) from error
    return json.dumps(body).encode()


def _predict(document: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    inputs = document["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    row = {}
    for name, info in sorted(inputs.items()):
        axes = [int(axis["size"]) for axis in info["tensor_shape"].get("dim", ())][1:]
        row[name] = _values(info["dtype"].removeprefix("DT_"), axes, random).tolist()
    return {"instances": [row if len(row) > 1 else next(iter(row.values()))]}


def _infer(document: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    inputs = []
    for info in document["inputs"]:
        values = _values(info["datatype"], info["shape"], random)
        inputs.append({**info, "shape": values.shape, "data": values.ravel().tolist()})
    return {"inputs": inputs}


def _values(dtype: str, axes: list[int], random: np.random.Generator) -> np.ndarray:
    """Numbers of a dtype, as TensorFlow or the Open Inference Protocol names it; a free axis, -1, has length 1."""
    shape = [max(size, 1) for size in axes]
    if dtype in _FLOATS:
        return np.round(random.random(shape), 6)
    if dtype.startswith(_INTEGERS):
        return random.integers(0, 2, shape)
    if dtype == "BOOL":
        return random.random(shape) < 0.5
    raise InputError(
        "A request is made up of numbers.", received=f"an input of {dtype}", remedy="Give one: --body FILE"
    )


async def _metadata(target: Target, path: str) -> dict[str, Any]:
    code, body = await ask(target, b"", method="GET", path=path)
    if code != 200:
        outcome = "no answer" if code is None else f"status {code}, {body[:200].decode(errors='replace')}"
        raise InputError(
            "A server tells the metadata of its models.",
            received=f"{path}: {outcome}",
            remedy="Check the model's name in the URL, or give a request: --body FILE",
        )
    document: dict[str, Any] = json.loads(body)
    return document

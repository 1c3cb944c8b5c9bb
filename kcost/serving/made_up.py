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


async def made_up_body(target: Target, seed: int) -> bytes:
    """A body of one row for `:predict`, by the metadata of the model.

    Raises:
        InputError: the server tells no metadata, or the model takes what cannot be made up.
    """
    path, separator, method = target.path.rpartition(":")
    if not separator or method != "predict":
        raise InputError(
            "A request is made up for :predict alone.", received=target.path, remedy="Give one: --body FILE"
        )
    document = await _metadata(target, f"{path}/metadata")
    try:
        inputs = document["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
        random = np.random.default_rng(seed)
        row = {name: _values(info, random) for name, info in sorted(inputs.items())}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "A request is made up from the metadata of serving_default.",
            received=f"{path}/metadata without it ({error})",
            remedy="Give a request: --body FILE",
        ) from error
    instances = [row if len(row) > 1 else next(iter(row.values()))]
    return json.dumps({"instances": instances}).encode()


def _values(info: dict[str, Any], random: np.random.Generator) -> Any:
    axes = [max(int(axis["size"]), 1) for axis in info["tensor_shape"].get("dim", ())][1:]
    dtype = info["dtype"].removeprefix("DT_")
    if dtype in ("FLOAT", "DOUBLE", "HALF"):
        return np.round(random.random(axes), 6).tolist()
    if dtype.startswith(_INTEGERS):
        return random.integers(0, 2, axes).tolist()
    if dtype == "BOOL":
        return (random.random(axes) < 0.5).tolist()
    raise InputError(
        "A request is made up of numbers.", received=f"an input of {info['dtype']}", remedy="Give one: --body FILE"
    )


async def _metadata(target: Target, path: str) -> dict[str, Any]:
    code, body = await ask(target, b"", method="GET", path=path)
    if code != 200:
        raise InputError(
            "A server tells the metadata of its models.",
            received=f"{path}: {'no answer' if code is None else f'status {code}, {body[:200]!r}'}",
            remedy="Check the model's name in the URL, or give a request: --body FILE",
        )
    document: dict[str, Any] = json.loads(body)
    return document

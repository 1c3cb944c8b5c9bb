"""What a path asks for, by TensorFlow Serving's REST interface and by the Open Inference Protocol.

Source of the first: g3doc/api_rest.md and model_servers/http_rest_api_handler.cc of TensorFlow Serving; of the second:
open_inference.py.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from kcost.serving.open_inference import OpenRoute, is_open_inference, open_route
from kcost.serving.status import Code, RequestError, invalid

_SPEC = rb"(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_PREDICTION = re.compile(rb"(?i)/v1/models/([^/:]+)" + _SPEC + rb":(classify|regress|predict)")
_INFORMATION = re.compile(rb"(?i)/v1/models(?:/([^/:]+))?" + _SPEC + rb"(?:/(metadata))?")
_LARGEST_VERSION = (1 << 63) - 1


class Route(NamedTuple):
    """What a path asks for."""

    model: str
    version: int | None
    label: str | None
    method: str
    """classify, regress, predict, metadata or status; in the proxy also infer, of the Open Inference Protocol."""


@lru_cache(maxsize=1024)
def route(http_method: str, raw_path: bytes) -> Route:
    """What a request asks for.

    Raises:
        RequestError: status 400: the path is none of the interface's.

    Examples:
        >>> route("POST", b"/v1/models/digits/versions/3:predict")
        Route(model='digits', version=3, label=None, method='predict')
    """
    pattern = {"POST": _PREDICTION, "GET": _INFORMATION}.get(http_method)
    match = None if pattern is None else pattern.fullmatch(raw_path)
    if match is None:
        raise invalid(f"Malformed request: {http_method} {raw_path.decode('latin-1')}")
    model, version_text, label, method = match.groups()
    version = None
    if version_text:
        if len(version_text) > 19 or int(version_text) > _LARGEST_VERSION:
            raise invalid(f"Failed to convert version: {version_text.decode()} to numeric.")
        version = int(version_text)
    if not model:
        raise invalid("Missing model name in request.")
    named = None if label is None else _decoded(label)
    return Route(_decoded(model), version, named, (method or b"status").decode().lower())


def _decoded(part: bytes) -> str:
    return unquote_to_bytes(part).decode("utf-8", errors="replace")


def resource_at(http_method: str, raw_path: bytes) -> Route | OpenRoute:
    """What a request asks for, by the protocol that its path belongs to.

    Raises:
        RequestError: the path is none of either's, or takes another method.
    """
    if is_open_inference(raw_path):
        return open_route(http_method, raw_path)
    if raw_path[:4].lower() != b"/v1/":
        raise RequestError(Code.NOT_FOUND, f"Not found: {http_method} {raw_path.decode('latin-1')}")
    return route(http_method, raw_path)

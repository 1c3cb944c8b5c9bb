"""The Open Inference Protocol (KServe's V2) over HTTP: its paths and its documents.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from kcost.core.serving import ServedTensor
from kcost.serving.model_version import ModelVersion
from kcost.serving.models import Models
from kcost.serving.open_inference_tensors import DATATYPES
from kcost.serving.status import Code, RequestError, invalid
from kcost.version import __version__

Kind = Literal["server", "live", "ready", "model", "model_ready", "infer"]

EXTENSIONS = ("binary_tensor_data",)
_PATHS: dict[str, Kind] = {"": "server", "/health/live": "live", "/health/ready": "ready"}
_MODEL = re.compile(rb"/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer))?")
_LARGEST_VERSION = (1 << 63) - 1


class OpenRoute(NamedTuple):
    """What a path asks for."""

    kind: Kind
    model: str = ""
    version: int | None = None


def is_open_inference(raw_path: bytes) -> bool:
    """Whether a path is one of this protocol."""
    return raw_path[:4] == b"/v2/" or raw_path == b"/v2"


@lru_cache(maxsize=1024)
def open_route(http_method: str, raw_path: bytes) -> OpenRoute:
    """What a request asks for.

    Args:
        http_method: in capitals.
        raw_path: one for which `is_open_inference` holds.

    Raises:
        RequestError: status 404: nothing is at the path; 405: it takes another method; 400: a version is a number.

    Examples:
        >>> open_route("POST", b"/v2/models/digits/versions/3/infer")
        OpenRoute(kind='infer', model='digits', version=3)
    """
    path = raw_path[3:].removesuffix(b"/")
    match = _MODEL.fullmatch(path)
    kind = _PATHS.get(path.decode("latin-1"))
    if match is not None:
        kind = {None: "model", b"ready": "model_ready", b"infer": "infer"}[match[3]]  # type: ignore[assignment]
    if kind is None:
        raise RequestError(Code.NOT_FOUND, f"Not found: {http_method} {raw_path.decode('latin-1')}")
    allowed = "POST" if kind == "infer" else "GET"
    if http_method != allowed:
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f"{raw_path.decode('latin-1')} takes {allowed}. Received: {http_method}",
            http_status=405,
            headers=((b"allow", allowed.encode()),),
        )
    if match is None:
        return OpenRoute(kind)
    model, version = (
        None if part is None else unquote_to_bytes(part).decode(errors="replace") for part in match.group(1, 2)
    )
    if version is not None and not (version.isascii() and version.isdecimal() and len(version) <= 19):
        raise invalid(f"A version is a number. Received: {version}")
    if version is not None and int(version) > _LARGEST_VERSION:
        raise invalid(f"A version is at most {_LARGEST_VERSION}. Received: {version}")
    return OpenRoute(kind, model or "", None if version is None else int(version))


def information(resource: OpenRoute, models: Models) -> tuple[int, bytes]:
    """Status and body of an answer to GET.

    Raises:
        RequestError: status 404: there is no such model or version; 400: it cannot be described.
    """
    status, document = _information(resource, models)
    return status, orjson.dumps(document)


def _information(resource: OpenRoute, models: Models) -> tuple[int, dict[str, Any]]:
    if resource.kind == "server":
        return 200, {"name": "kcost", "version": __version__, "extensions": EXTENSIONS}
    if resource.kind == "live":
        return 200, {"live": True}
    if resource.kind == "ready":
        ready = models.ready()
        return 200 if ready else 400, {"ready": ready}
    if resource.kind == "model":
        return 200, _described(models.find(resource.model, resource.version), models)
    versions = models.statuses(resource.model, resource.version)
    ready = any(version.state == "AVAILABLE" for version in versions)
    return 200 if ready else 400, {"name": resource.model, "ready": ready}


def _described(version: ModelVersion, models: Models) -> dict[str, Any]:
    """The metadata of a model: its default signature, as the protocol knows no others."""
    signature = version.signature("")
    available = sorted(v.version for v in models.statuses(version.name) if v.state == "AVAILABLE")
    return {
        "name": version.name,
        "versions": [str(number) for number in available],
        "platform": "" if version.served is None else version.served.platform,
        "inputs": [_tensor(tensor) for tensor in signature.inputs],
        "outputs": [_tensor(tensor) for tensor in signature.outputs],
    }


def _tensor(tensor: ServedTensor) -> dict[str, Any]:
    axes = (None,) if tensor.shape is None else tensor.shape  # the protocol has no word for a rank that is free
    shape = [-1 if size is None else size for size in axes]
    return {"name": tensor.name, "datatype": DATATYPES.get(tensor.dtype, tensor.dtype.upper()), "shape": shape}

"""TensorFlow Serving's REST interface and the Open Inference Protocol as one ASGI application.

Source of the first: g3doc/api_rest.md and model_servers/{http_rest_api_handler,http_rest_api_util,http_server}.cc of
TensorFlow Serving; of the second: open_inference.py.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, NamedTuple, cast
from urllib.parse import unquote_to_bytes

import orjson

from kcost.serving.at_once import respond
from kcost.serving.bodies import Bodies, Body
from kcost.serving.examples import Method, examples_answer, read_examples
from kcost.serving.metrics import REQUEST_LATENCY, RUNTIME_LATENCY, Metrics
from kcost.serving.model_info import metadata_document, status_document
from kcost.serving.model_version import ModelVersion
from kcost.serving.models import Models
from kcost.serving.open_inference import information, is_open_inference, open_route
from kcost.serving.open_inference_tensors import JSON_BYTES_HEADER, infer_answer, read_infer
from kcost.serving.predict_answer import predict_answer
from kcost.serving.predict_request import read_predict
from kcost.serving.status import Code, RequestError, invalid, unforeseen

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_SPEC = rb"(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_PREDICTION = re.compile(rb"(?i)/v1/models/([^/:]+)" + _SPEC + rb":(classify|regress|predict)")
_INFORMATION = re.compile(rb"(?i)/v1/models(?:/([^/:]+))?" + _SPEC + rb"(?:/(metadata))?")
_LARGEST_VERSION = (1 << 63) - 1
_JSON = (b"content-type", b"application/json")
_COMPRESSED_FROM_BYTES = 4096
"""Shorter answers are sent as they are: compressing costs more than it saves."""


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


class Application:
    """The ASGI application.

    Args:
        models: what is served.
        metrics_path: of the Prometheus metrics; None for none.
        bodies: holds those of requests, as they are sent and decompressed.
        metrics: where requests are counted; its own where it is None.
    """

    def __init__(
        self, models: Models, metrics_path: str | None, bodies: Bodies, metrics: Metrics | None = None
    ) -> None:
        self.metrics = metrics or Metrics()
        self._models = models
        self._metrics_path = None if metrics_path is None else metrics_path.encode()
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            raise ValueError(f"Only http is served. Received: {scope['type']}")
        start_ns = time.perf_counter_ns()
        model, headers, held_bytes = "", [_JSON], 0
        try:
            raw_path, http_method = scope["raw_path"], scope["method"]
            if raw_path == self._metrics_path and http_method == "GET":
                await respond(scope, send, 200, [(b"content-type", b"text/plain; version=0.0.4")], self._metrics_page())
                return
            status = 200
            if is_open_inference(raw_path):
                asked_for = open_route(http_method, raw_path)
                if asked_for.kind == "infer":
                    content = await self._body(scope, receive)
                    held_bytes = len(content)
                    version = self._models.find(asked_for.model, asked_for.version)
                    model = version.name
                    body, headers = await self._inference(version, content, _json_bytes(scope), start_ns)
                else:
                    status, body = information(asked_for, self._models)
            else:
                if not raw_path[:4].lower() == b"/v1/":
                    raise RequestError(Code.NOT_FOUND, f"Not found: {http_method} {raw_path.decode('latin-1')}")
                resource = route(http_method, raw_path)
                if http_method == "GET":
                    body = self._information(resource)
                else:
                    content = await self._body(scope, receive)
                    held_bytes = len(content)
                    version = self._models.find(resource.model, resource.version, resource.label)
                    model = version.name
                    body = await self._prediction(resource.method, version, content, start_ns)
            if len(body) >= _COMPRESSED_FROM_BYTES and _takes_gzip(scope):
                body, headers = _gzipped(body), [*headers, (b"content-encoding", b"gzip")]
            code = Code.OK
        except RequestError as error:
            body, status, code = orjson.dumps({"error": error.message}), error.http_status, error.code
            headers = [_JSON, *error.headers]
        except Exception as error:
            refusal = unforeseen(error)
            body, status, code = orjson.dumps({"error": refusal.message}), refusal.http_status, refusal.code
            headers = [_JSON]
        finally:
            self._bodies.release(held_bytes)
        if model:
            self.metrics.count(model, code.name)
        await respond(scope, send, status, headers, body)

    async def _prediction(self, method: str, version: ModelVersion, content: Body, start_ns: int) -> bytes:
        if method == "predict":
            request = read_predict(content, version.signature)
            answered = await version.run(request.signature, request.arrays)
            body = predict_answer(answered.arrays, request.signature.outputs, in_rows=request.in_rows)
        else:
            kind = cast(Method, method)
            examples = read_examples(content, kind, version.signature)
            answered = await version.run(examples.signature, examples.arrays)
            body = examples_answer(answered.arrays, examples.signature, kind)
        self._time(method.capitalize(), version, answered.run_ns, start_ns)
        return body

    async def _inference(
        self, version: ModelVersion, content: Body, json_bytes: int | None, start_ns: int
    ) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        request = read_infer(content, json_bytes, version.signature)
        answered = await version.run(request.signature, request.arrays)
        answer = infer_answer(answered.arrays, request, version.name, version.version)
        self._time("Infer", version, answered.run_ns, start_ns)
        return answer

    def _time(self, api: str, version: ModelVersion, run_ns: int, start_ns: int) -> None:
        self.metrics.time(RUNTIME_LATENCY, version.name, api, run_ns)
        self.metrics.time(REQUEST_LATENCY, version.name, api, time.perf_counter_ns() - start_ns)

    def _information(self, resource: Route) -> bytes:
        if resource.method == "metadata":
            version = self._models.find(resource.model, resource.version, resource.label)
            return orjson.dumps(metadata_document(version), option=orjson.OPT_INDENT_2)
        versions = self._models.statuses(resource.model, resource.version, resource.label)
        return orjson.dumps(status_document(versions), option=orjson.OPT_INDENT_2)

    async def _body(self, scope: Scope, receive: Receive) -> Body:
        """The body, decompressed. Its bytes are held from here on.

        Raises:
            RequestError: it is too long (413), compressed in a way that is not known (415), or damaged (400); or there
                is no room for it now (503).
        """
        body = await self._bodies.read(scope, receive)
        encoding = next((value.strip().lower() for name, value in scope["headers"] if name == b"content-encoding"), b"")
        if not encoding or encoding == b"identity":
            return body
        try:
            if encoding not in (b"gzip", b"x-gzip"):
                text = f"The content encoding is gzip or none. Received: {encoding.decode('latin-1')}"
                raise RequestError(Code.INVALID_ARGUMENT, text, http_status=415)
            whole = self._decompressed(body)
        finally:
            self._bodies.release(len(body))
        if not self._bodies.hold(len(whole)):
            raise self._bodies.no_room()
        return whole

    def _decompressed(self, body: Body) -> bytes:
        inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        most_bytes = self._bodies.most_bytes
        try:
            whole = inflater.decompress(body, most_bytes + 1)
        except zlib.error as error:
            raise invalid(f"The body is not compressed by gzip: {error}") from error
        if len(whole) > most_bytes:
            raise self._bodies.too_long()
        if not inflater.eof:
            raise invalid("The body is not compressed by gzip: it is cut short")
        return whole

    def _metrics_page(self) -> bytes:
        gauges = []
        for version in self._models.all_versions():
            labels = (("model_name", version.name), ("version", str(version.version)))
            gauges.append(("kcost_serving_queue_requests", "gauge", labels, float(version.waiting)))
            gauges.append(("kcost_serving_process_restarts_total", "counter", labels, float(version.restarts)))
            gauges.append(("kcost_serving_hand_overs_total", "counter", labels, float(version.hand_overs)))
            seconds = version.hand_over_ns / 1e9
            gauges.append(("kcost_serving_hand_over_seconds_total", "counter", labels, seconds))
        return self.metrics.text(gauges).encode()


def _json_bytes(scope: Scope) -> int | None:
    """How long the JSON at the front of a body is, where a header says it.

    Raises:
        RequestError: the header is no number: status 400.
    """
    text = next((value for name, value in scope["headers"] if name == JSON_BYTES_HEADER), None)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise invalid(f"{JSON_BYTES_HEADER.decode()} is a number of bytes. Received: {text.decode('latin-1')}")
    return int(text)


def _takes_gzip(scope: Scope) -> bool:
    return any(name == b"accept-encoding" and b"gzip" in value for name, value in scope["headers"])


def _gzipped(body: bytes) -> bytes:
    deflater = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return deflater.compress(body) + deflater.flush()

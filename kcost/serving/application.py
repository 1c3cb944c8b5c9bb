"""TensorFlow Serving's REST interface and the Open Inference Protocol as one ASGI application, with a shorter way for
what most requests are.

Source: model_servers/http_server.cc of TensorFlow Serving, beside those of routes.py and open_inference.py.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import orjson

from kcost.serving.at_once import Headers, RequestHead, Respond, respond
from kcost.serving.batching import Answered, CallbackReply
from kcost.serving.bodies import Bodies, Body
from kcost.serving.metrics import REQUEST_LATENCY, RUNTIME_LATENCY, Metrics
from kcost.serving.model_info import metadata_document, status_document
from kcost.serving.model_version import ModelVersion
from kcost.serving.models import Models
from kcost.serving.open_inference import OpenRoute, information
from kcost.serving.predictions import JSON_HEADER, Prediction, read_prediction
from kcost.serving.routes import Route, resource_at
from kcost.serving.status import Code, RequestError, invalid, unforeseen

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_COMPRESSED_FROM_BYTES = 4096
"""Shorter answers are sent as they are: compressing costs more than it saves."""


class _Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes
    code: Code = Code.OK


class Application:
    """The ASGI application; and `take`, the shorter way for predictions that come whole.

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
        model, held_bytes = "", 0
        raw_path, http_method, headers = scope["raw_path"], scope["method"], scope["headers"]
        try:
            if raw_path == self._metrics_path and http_method == "GET":
                await respond(scope, send, 200, [(b"content-type", b"text/plain; version=0.0.4")], self._metrics_page())
                return
            resource = resource_at(http_method, raw_path)
            if _is_prediction(resource):
                content = await self._body(scope, receive)
                held_bytes = len(content)
                version = self._find(resource)
                model = version.name
                prediction = read_prediction(resource, version, content, headers)
                answered = await version.run(prediction.signature, prediction.arrays)
                answer = self._answer(prediction, version, answered, headers, start_ns)
            else:
                answer = _compressed(self._information(resource), headers)
        except Exception as error:
            answer = _refusal(error)
        finally:
            self._bodies.release(held_bytes)
        if model:
            self.metrics.count(model, answer.code.name)
        await respond(scope, send, answer.status, answer.headers, answer.body)

    def take(self, head: RequestHead, body: bytes, respond: Respond) -> bool:
        """Asks a model, or refuses, before it returns; see `Take`.

        Predictions go this way whose body is not compressed, not too long, and has room: no task is made for them. The
        answer of one that is alone is written where that of the model is read.
        """
        start_ns = time.perf_counter_ns()
        if head.kept is None:
            head.kept = _TakenAs(_taken_as(head))
        resource = head.kept.resource
        if resource is None:
            return False
        headers = head.headers
        if len(body) > self._bodies.most_bytes or not self._bodies.hold(len(body)):
            return False
        model = ""
        try:
            version = self._find(resource)
            model = version.name
            prediction = read_prediction(resource, version, body, headers)
            asking = _Asking(version, prediction, headers, len(body), respond, start_ns)
            version.ask(prediction.signature, prediction.arrays, CallbackReply(partial(self._answer_taken, asking)))
        except Exception as error:
            self._release_and_answer(_refusal(error), model, len(body), respond)
        return True

    def _answer_taken(self, asking: _Asking, outcome: Answered | Exception) -> None:
        """Answers a request that was taken, and that a model was asked for."""
        if isinstance(outcome, Exception):
            answer = _refusal(outcome)
        else:
            try:
                answer = self._answer(asking.prediction, asking.version, outcome, asking.headers, asking.start_ns)
            except Exception as error:
                answer = _refusal(error)
        self._release_and_answer(answer, asking.version.name, asking.held_bytes, asking.respond)

    def _release_and_answer(self, answer: _Answer, model: str, held_bytes: int, respond: Respond) -> None:
        self._bodies.release(held_bytes)
        if model:
            self.metrics.count(model, answer.code.name)
        try:
            respond(answer.status, answer.headers, answer.body)
        except Exception as error:  # such as no memory for the bytes of a large answer
            refusal = _refusal(error)
            respond(refusal.status, refusal.headers, refusal.body)

    def _find(self, resource: Route | OpenRoute) -> ModelVersion:
        label = resource.label if isinstance(resource, Route) else None
        return self._models.find(resource.model, resource.version, label)

    def _answer(
        self, prediction: Prediction, version: ModelVersion, answered: Answered, headers: Headers, start_ns: int
    ) -> _Answer:
        """What a prediction is answered with. Raises RequestError."""
        body, own_headers = prediction.answer(answered.arrays)
        self.metrics.time(RUNTIME_LATENCY, version.name, prediction.api, answered.run_ns)
        self.metrics.time(REQUEST_LATENCY, version.name, prediction.api, time.perf_counter_ns() - start_ns)
        return _compressed(_Answer(200, own_headers, body), headers)

    def _information(self, resource: Route | OpenRoute) -> _Answer:
        if isinstance(resource, OpenRoute):
            status, body = information(resource, self._models)
            return _Answer(status, [JSON_HEADER], body)
        if resource.method == "metadata":
            document = metadata_document(self._find(resource))
        else:
            document = status_document(self._models.statuses(resource.model, resource.version, resource.label))
        return _Answer(200, [JSON_HEADER], orjson.dumps(document, option=orjson.OPT_INDENT_2))

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


class _TakenAs(NamedTuple):
    """What the head of a request asks for."""

    resource: Route | OpenRoute | None
    """None where the request is not taken."""


def _taken_as(head: RequestHead) -> Route | OpenRoute | None:
    if b"#" in head.target or any(name == b"content-encoding" for name, _ in head.headers):
        return None
    try:
        return resource_at("POST", head.target.partition(b"?")[0])
    except RequestError:
        return None


class _Asking(NamedTuple):
    """A request that was taken, while it waits for its model."""

    version: ModelVersion
    prediction: Prediction
    headers: Headers
    held_bytes: int
    respond: Respond
    start_ns: int


def _is_prediction(resource: Route | OpenRoute) -> bool:
    if isinstance(resource, OpenRoute):
        return resource.kind == "infer"
    return resource.method in ("classify", "predict", "regress")


def _refusal(error: Exception) -> _Answer:
    """What a request is answered with that cannot be answered otherwise."""
    refusal = error if isinstance(error, RequestError) else unforeseen(error)
    body = orjson.dumps({"error": refusal.message})
    return _Answer(refusal.http_status, [JSON_HEADER, *refusal.headers], body, refusal.code)


def _compressed(answer: _Answer, headers: Headers) -> _Answer:
    """A long answer, compressed for a client that takes it so."""
    if len(answer.body) < _COMPRESSED_FROM_BYTES:
        return answer
    if not any(name == b"accept-encoding" and b"gzip" in value for name, value in headers):
        return answer
    deflater = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    body = deflater.compress(answer.body) + deflater.flush()
    return answer._replace(headers=[*answer.headers, (b"content-encoding", b"gzip")], body=body)

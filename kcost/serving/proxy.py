"""A proxy before a server of models: requests and answers go through untouched, and each is put on the invoice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import orjson

from kcost.core.schema import Record
from kcost.cost.invoice import Invoice, Meter
from kcost.serving.application import route
from kcost.serving.http_client import Connection, Target, read_url, take_open
from kcost.serving.http_server import HttpServer, HttpSettings
from kcost.serving.status import Code, RequestError

INVOICE_PATH = b"/kcost/invoice"
OTHERS = "(others)"
"""What the invoice has for requests of no model, and for names beyond the first 1,000: a client can make up any."""

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_MOST_KEYS = 1000
_HOP_BY_HOP = frozenset(
    [
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"content-length", b"host", b"expect"),
    ]
)
"""Headers of one connection alone (RFC 9110, 7.6.1), and those that are written again."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class _Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Proxy:
    """The ASGI application.

    Args:
        upstream: the server; the path of its URL is left out.
        usd_per_hour: the price of the machine.
        caller_header: whose value says who asks; None for none.
        timeout_s: an answer that is not there by then is a 504.
        most_bytes: of the body of a request.
        clock: nanoseconds that never go back.
    """

    def __init__(
        self,
        upstream: Target,
        usd_per_hour: float,
        caller_header: str | None,
        timeout_s: float,
        most_bytes: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._upstream = upstream
        self._caller_header = None if caller_header is None else caller_header.lower().encode()
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._clock = clock
        self._meter = Meter(usd_per_hour, clock())
        self._keys: set[tuple[str, str, str]] = set()
        self._free: list[Connection] = []

    def invoice(self) -> Invoice:
        """The bill so far."""
        return self._meter.invoice(self._clock())

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Passes one request on; or answers with the invoice."""
        if scope["raw_path"] == INVOICE_PATH:
            body = self.invoice().model_dump_json(indent=1).encode()
            await _respond(send, _Answer(200, [(b"content-type", b"application/json")], body))
            return
        number = self._meter.arrive(self._key(scope), self._clock())
        failed = True
        try:
            answer = await self._pass_on(number, scope, receive)
            failed = answer.status != 200
            await _respond(send, answer)
        except RequestError as error:
            body = orjson.dumps({"error": error.message})
            headers = [(b"content-type", b"application/json")]
            if error.http_status == 413:
                headers.append((b"connection", b"close"))
            await _respond(send, _Answer(error.http_status, headers, body))
        finally:
            self._meter.leave(number, self._clock(), failed=failed)

    def _key(self, scope: dict[str, Any]) -> tuple[str, str, str]:
        """Model, version and caller of a request."""
        model, version = OTHERS, ""
        if scope["method"] == "POST":
            try:
                resource = route("POST", scope["raw_path"])
            except RequestError:
                pass  # the upstream refuses it, too
            else:
                model, version = resource.model, resource.label or str(resource.version or "latest")
        caller = b""
        if self._caller_header is not None:
            caller = next((value for name, value in scope["headers"] if name == self._caller_header), b"")
        key = (model, version, caller[:100].decode("latin-1"))
        if key not in self._keys:
            if len(self._keys) >= _MOST_KEYS:
                return (OTHERS, "", OTHERS)
            self._keys.add(key)
        return key

    async def _pass_on(self, number: int, scope: dict[str, Any], receive: Receive) -> _Answer:
        if scope["method"] not in _METHODS:
            raise RequestError(Code.UNIMPLEMENTED, f"The proxy passes on {', '.join(_METHODS)}.")
        request = self._request(scope, await self._body(receive))
        self._meter.to_model(number, self._clock())
        try:
            async with asyncio.timeout(self._timeout_s):
                kept_open = take_open(self._free)
                # It may be closed just now; a new one is asked then. A forward pass changes nothing.
                if kept_open is not None and (answer := await self._ask(kept_open, request)) is not None:
                    return answer
                answer = await self._ask(await self._connect(), request)
        except TimeoutError as error:
            text = f"The server behind the proxy gave no answer within {self._timeout_s:g} s."
            raise RequestError(Code.DEADLINE_EXCEEDED, text) from error
        except OSError as error:
            raise RequestError(Code.UNAVAILABLE, f"The server behind the proxy is not there: {error}") from error
        finally:
            self._meter.from_model(number, self._clock())
        if answer is None:
            raise RequestError(Code.UNAVAILABLE, "The server behind the proxy closed the connection without an answer.")
        return answer

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(lambda _: None), self._upstream.address, self._upstream.port
        )
        return connection

    async def _ask(self, connection: Connection, request: bytes) -> _Answer | None:
        """One request on one connection; None where it was closed before the answer was whole."""
        status: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def answered(code: int | None) -> None:
            if not status.done():
                status.set_result(code)

        connection.send(request, answered)
        try:
            code = await status
        except asyncio.CancelledError:
            connection.close()  # its answer would be taken for that of the next request
            raise
        if code is None:
            return None
        answer = _Answer(code, list(connection.headers), connection.body)
        if connection.is_open:
            self._free.append(connection)
        return answer

    async def _body(self, receive: Receive) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestError(Code.CANCELLED, "The client went before its request was whole.")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._most_bytes:
                text = f"The body of a request has at most {self._most_bytes} bytes."
                raise RequestError(Code.INVALID_ARGUMENT, text, http_status=413)
        return bytes(body)

    def _request(self, scope: dict[str, Any], body: bytes) -> bytes:
        path = scope["raw_path"] + (b"?" + scope["query_string"] if scope.get("query_string") else b"")
        lines = [scope["method"].encode() + b" " + path + b" HTTP/1.1"]
        lines.append(f"host: {self._upstream.host}:{self._upstream.port}".encode())
        lines += [name + b": " + value for name, value in scope["headers"] if name not in _HOP_BY_HOP]
        lines.append(b"content-length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def _respond(send: Send, answer: _Answer) -> None:
    headers = [(name, value) for name, value in answer.headers if name.lower() not in _HOP_BY_HOP]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


class Proxying(Record):
    """A proxy that has started."""

    url: str
    upstream: str
    invoice_url: str
    usd_per_hour: float


async def serve_proxy(
    upstream: str,
    usd_per_hour: float,
    caller_header: str | None,
    timeout_s: float,
    http: HttpSettings,
    on_start: Callable[[Proxying], None],
    *,
    remote: bool,
) -> Invoice:
    """Passes requests on until SIGTERM or SIGINT; then answers what it has accepted, and gives the last bill.

    Raises:
        InputError: the URL of the upstream cannot be used, or the port is taken.
    """
    proxy = Proxy(read_url(upstream, remote=remote), usd_per_hour, caller_header, timeout_s, http.most_bytes)
    server = HttpServer(proxy, http)
    server.stop_on_signals()
    try:
        invoice_url = server.url + INVOICE_PATH.decode()
        on_start(
            Proxying(url=server.url, upstream=upstream, invoice_url=invoice_url, usd_per_hour=usd_per_hour)
        )
        await server.serve()
    finally:
        server.close()
    return proxy.invoice()

"""A proxy before a server of models: requests go through untouched, each is put on the invoice, and watched."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import orjson

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.cost.forecast import Forecast
from kcost.cost.invoice import Invoice, Meter
from kcost.serving.application import Route, route
from kcost.serving.bodies import Bodies, Body
from kcost.serving.http_client import Connection, Target, read_url, take_open
from kcost.serving.http_limits import respond
from kcost.serving.http_server import HttpServer, HttpSettings
from kcost.serving.monitor.monitor import INVOICE_PATH, METRICS_PATH, PAGE_PATHS, REPORT_PATH, Monitor
from kcost.serving.monitor.rollouts import TimedAnswer, path_of
from kcost.serving.monitor.settings import MonitorSettings
from kcost.serving.open_inference import is_open_inference, open_route
from kcost.serving.status import Code, RequestError

OWN_PATHS = b"/kcost"
OTHERS = "(others)"
"""What the invoice has for requests of no model, and for names beyond the first 1,000: a client can make up any."""

SHADOW = "(shadow)"
"""The caller, on the invoice, of requests that the proxy sends to another version by itself."""

_MOST_SHADOWS = 8
"""At a time: what the proxy asks by itself must not fill the queue of the server."""

_LOOK_S = 0.25
"""How often deadlines are looked at: an answer that does not come is told of so much later."""

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
        bodies: holds those of requests.
        clock: nanoseconds that never go back.
        monitor: None watches traffic alone.
        forecasts: see `Meter`.
        remote: whether the server may be on another machine. Its name is then looked up for each connection: a
            container that is made anew has another address.
    """

    def __init__(
        self,
        upstream: Target,
        usd_per_hour: float,
        caller_header: str | None,
        timeout_s: float,
        bodies: Bodies,
        clock: Callable[[], int] = time.monotonic_ns,
        monitor: Monitor | None = None,
        forecasts: Mapping[tuple[str, str], Forecast] | None = None,
        *,
        remote: bool = False,
    ) -> None:
        self._upstream = upstream
        self._host = upstream.host if remote else upstream.address
        self._caller_header = None if caller_header is None else caller_header.lower().encode()
        self._timeout_s = timeout_s
        self._bodies = bodies
        self._clock = clock
        self._meter = Meter(usd_per_hour, clock(), forecasts)
        self._keys: set[tuple[str, str, str]] = set()
        self._free: list[Connection] = []
        self._deadlines: dict[asyncio.Future[int | None], int] = {}
        """What an answer is waited for in, until when by the clock."""
        self._looking: asyncio.TimerHandle | None = None
        self._shadows: set[asyncio.Task[None]] = set()
        url = f"http://{upstream.host}:{upstream.port}"
        self.monitor = Monitor(url, MonitorSettings(), {}) if monitor is None else monitor

    def invoice(self) -> Invoice:
        """The bill so far."""
        return self._meter.invoice(self._clock())

    async def close(self) -> None:
        """Ends what it asks by itself: a comparison that is not over by then is not counted."""
        for task in self._shadows:
            task.cancel()
        if self._shadows:
            await asyncio.wait(self._shadows)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Passes one request on; or answers by itself, below /kcost."""
        if scope["raw_path"].startswith(OWN_PATHS + b"/") or scope["raw_path"] == OWN_PATHS:
            await self._answer_itself(scope, receive, send)
            return
        resource = _route(scope)
        choice = self.monitor.rollouts.choose(resource, scope["headers"])
        if choice is not None:
            resource, scope = choice.resource, {**scope, "raw_path": choice.path}
        key = self._key(scope, resource)
        start_ns = self._clock()
        number = self._meter.arrive(key, start_ns)
        start_s = self.monitor.traffic.arrive()
        status, first_status, end_ns, held_bytes = 0, 0, 0, 0
        fallback = None if choice is None else choice.fallback
        try:
            body = await self._bodies.read(scope, receive)
            held_bytes = len(body)
            # A canary has half of the time, so that the version behind it has the other half.
            timeout_s = self._timeout_s if fallback is None else self._timeout_s / 2
            first = answer = await self._timed(number, scope, body, timeout_s)
            first_status = first.status
            if fallback is not None and first.status != 200:
                # A forward pass changes nothing: asking again is safe.
                resource = fallback
                answer = await self._ask_version(fallback, key[2], scope, body, timeout_s)
                self.monitor.rollouts.failed(fallback.model, answer.status)
            status = answer.status
            watched = None if status != 200 else self.monitor.named(resource, scope["headers"])
            added = () if watched is None else watched.headers
            await _respond(scope, send, _Answer(status, [*answer.headers, *added], answer.body))
            # The event loop sends what was written when this task waits: what is left to do here comes after it.
            end_ns = self._clock()
            await asyncio.sleep(0)
            if watched is not None:
                self.monitor.offer(watched, key[2], (scope["headers"], body), (answer.headers, answer.body))
                if fallback is not None and answer is first:
                    self.monitor.rollouts.answered(fallback.model)
                    self._compare(fallback, watched.resource, scope, body)
                elif (shadow := self.monitor.rollouts.shadow_of(watched.resource)) is not None:
                    self._compare(watched.resource, shadow, scope, body)
        except RequestError as error:
            status = first_status = error.http_status
            await _refuse(scope, send, error)
        finally:
            now_ns = self._clock()
            self._meter.leave(number, now_ns, failed=first_status != 200)
            self.monitor.traffic.leave(start_s, failed=status != 200)
            self.monitor.counted(key[0], resource, status, (end_ns or now_ns) - start_ns)
            self._bodies.release(held_bytes)

    def _compare(self, old: Route, new: Route, scope: dict[str, Any], body: Body) -> None:
        """Asks two versions what a client asked, in the background, unless there is enough of that under way.

        The body stays in memory meanwhile: where there is no room for it, what clients ask goes first.

        What the client waited for is no part of it: whoever is asked first finds the machine colder, and would look
        slower. These two are asked one after the other, in an order that is drawn.
        """
        if len(self._shadows) >= _MOST_SHADOWS or not self._bodies.hold(len(body)):
            return

        async def compare() -> None:
            answers: dict[Route, TimedAnswer] = {}
            for version in self.monitor.rollouts.in_drawn_order(old, new):
                answers[version] = await self._ask_version(version, SHADOW, scope, body, self._timeout_s)
            self.monitor.compared(new.model, answers[old], answers[new])

        def over(task: asyncio.Task[None]) -> None:
            self._shadows.discard(task)
            self._bodies.release(len(body))

        task = asyncio.create_task(compare())
        self._shadows.add(task)
        task.add_done_callback(over)

    async def _ask_version(
        self, version: Route, caller: str, scope: dict[str, Any], body: Body, timeout_s: float
    ) -> TimedAnswer:
        """Asks a version what a client asked, on the proxy's own account. It is on the invoice, too."""
        number = self._meter.arrive((version.model, _version_text(version), caller), self._clock())
        status = 0
        try:
            answer = await self._timed(number, {**scope, "raw_path": path_of(version)}, body, timeout_s)
            status = answer.status
        finally:
            self._meter.leave(number, self._clock(), failed=status != 200)
        return answer

    async def _timed(self, number: int, scope: dict[str, Any], body: Body, timeout_s: float) -> TimedAnswer:
        """What the server answers, or an answer that says why it does not; and what that took."""
        start_ns = self._clock()
        self._meter.to_model(number, start_ns)
        try:
            answer = await self._pass_on(scope, body, timeout_s)
        except RequestError as error:
            answer = _refusal(error)
        finally:
            end_ns = self._clock()
            machine_ns = self._meter.from_model(number, end_ns)
        return TimedAnswer(answer.status, answer.headers, answer.body, end_ns - start_ns, machine_ns)

    async def _answer_itself(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            body = await self._bodies.read(scope, receive) if scope["method"] == "POST" else b""
            try:
                page = await self.monitor.page(scope["method"], scope["raw_path"], body, self.invoice())
            finally:
                self._bodies.release(len(body))
        except RequestError as error:
            await _refuse(scope, send, error)
            return
        await _respond(scope, send, _Answer(page.status, page.headers, page.body))

    def _key(self, scope: dict[str, Any], resource: Route | None) -> tuple[str, str, str]:
        """Model, version and caller of a request."""
        model, version = OTHERS, ""
        if resource is not None:
            model, version = resource.model, _version_text(resource)
        caller = b""
        if self._caller_header is not None:
            caller = next((value for name, value in scope["headers"] if name == self._caller_header), b"")
        key = (model, version, caller[:100].decode("latin-1"))
        if key not in self._keys:
            if len(self._keys) >= _MOST_KEYS:
                return (OTHERS, "", OTHERS)
            self._keys.add(key)
        return key

    async def _pass_on(self, scope: dict[str, Any], body: Body, timeout_s: float) -> _Answer:
        if scope["method"] not in _METHODS:
            raise RequestError(Code.UNIMPLEMENTED, f"The proxy passes on {', '.join(_METHODS)}.")
        request = self._request(scope, body)
        deadline_ns = self._clock() + int(timeout_s * 1e9)
        try:
            kept_open = take_open(self._free)
            # It may be closed just now; a new one is asked then. A forward pass changes nothing.
            if kept_open is not None and (answer := await self._ask(kept_open, request, deadline_ns)) is not None:
                return answer
            async with asyncio.timeout((deadline_ns - self._clock()) / 1e9):
                connection = await self._connect()
            answer = await self._ask(connection, request, deadline_ns)
        except TimeoutError as error:
            text = f"The server behind the proxy gave no answer within {timeout_s:g} s."
            raise RequestError(Code.DEADLINE_EXCEEDED, text) from error
        except OSError as error:
            raise RequestError(Code.UNAVAILABLE, f"The server behind the proxy is not there: {error}") from error
        if answer is None:
            raise RequestError(Code.UNAVAILABLE, "The server behind the proxy closed the connection without an answer.")
        return answer

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(lambda _: None), self._host, self._upstream.port
        )
        return connection

    async def _ask(self, connection: Connection, request: bytes, deadline_ns: int) -> _Answer | None:
        """One request on one connection; None where it was closed before the answer was whole.

        Raises:
            TimeoutError: the deadline, by the proxy's clock, has passed.
        """
        status: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._deadlines[status] = deadline_ns
        if self._looking is None:
            self._look_later()

        def answered(code: int | None) -> None:
            if not status.done():
                status.set_result(code)

        connection.send(request, answered)
        try:
            code = await status
        except (asyncio.CancelledError, TimeoutError):
            connection.close()  # its answer would be taken for that of the next request
            raise
        finally:
            del self._deadlines[status]
        if code is None:
            return None
        answer = _Answer(code, list(connection.headers), connection.body)
        if connection.is_open:
            self._free.append(connection)
        return answer

    def _look_later(self) -> None:
        """Looks at deadlines now and then: a timer for each request would take longer than much that is done for it."""
        pause_s = min(_LOOK_S, self._timeout_s / 4)
        self._looking = asyncio.get_running_loop().call_later(pause_s, self._end_late)

    def _end_late(self) -> None:
        self._looking = None
        now_ns = self._clock()
        for status, deadline_ns in self._deadlines.items():
            if deadline_ns <= now_ns and not status.done():
                status.set_exception(TimeoutError())
        if self._deadlines:
            self._look_later()

    def _request(self, scope: dict[str, Any], body: Body) -> bytes:
        path = scope["raw_path"] + (b"?" + scope["query_string"] if scope.get("query_string") else b"")
        lines = [scope["method"].encode() + b" " + path + b" HTTP/1.1"]
        lines.append(f"host: {self._upstream.host}:{self._upstream.port}".encode())
        lines += [name + b": " + value for name, value in scope["headers"] if name not in _HOP_BY_HOP]
        lines.append(b"content-length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _route(scope: dict[str, Any]) -> Route | None:
    """What a request asks a model for; None where it asks none: the upstream answers that, too."""
    if scope["method"] != "POST":
        return None
    try:
        if is_open_inference(scope["raw_path"]):
            inference = open_route("POST", scope["raw_path"])
            return Route(inference.model, inference.version, None, inference.kind)
        return route("POST", scope["raw_path"])
    except RequestError:
        return None


def _version_text(resource: Route) -> str:
    """The version of a request, as it names it."""
    return resource.label or ("latest" if resource.version is None else str(resource.version))


async def _refuse(scope: dict[str, Any], send: Send, error: RequestError) -> None:
    refusal = _refusal(error)
    await respond(scope, send, refusal.status, refusal.headers, refusal.body)


def _refusal(error: RequestError) -> _Answer:
    headers = [(b"content-type", b"application/json"), *error.headers]
    return _Answer(error.http_status, headers, orjson.dumps({"error": error.message}))


async def _respond(scope: dict[str, Any], send: Send, answer: _Answer) -> None:
    headers = [(name, value) for name, value in answer.headers if name.lower() not in _HOP_BY_HOP]
    await respond(scope, send, answer.status, headers, answer.body)


class Proxying(Record):
    """A proxy that has started."""

    url: str
    upstream: str
    invoice_url: str
    page_url: str
    report_url: str
    metrics_url: str
    usd_per_hour: float
    watcher_process_id: int | None


async def serve_proxy(
    upstream: str,
    usd_per_hour: float,
    caller_header: str | None,
    timeout_s: float,
    http: HttpSettings,
    on_start: Callable[[Proxying], None],
    *,
    remote: bool,
    monitor: Monitor,
    forecasts: Mapping[tuple[str, str], Forecast],
) -> Invoice:
    """Passes requests on until SIGTERM or SIGINT; then answers what it has accepted, and gives the last bill.

    Args:
        monitor: is closed at the end, also where it does not begin: it holds the file of rollouts.

    Raises:
        InputError: the URL of the upstream cannot be used, the port is taken, or the watching cannot begin.
    """
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(monitor.close)
        target = read_url(upstream, remote=remote)
        proxy = Proxy(
            *(target, usd_per_hour, caller_header, timeout_s, Bodies(http.most_bytes)),
            monitor=monitor,
            forecasts=forecasts,
            remote=remote,
        )
        stack.push_async_callback(proxy.close)
        server = HttpServer(proxy, http)
        stack.callback(server.close)
        server.stop_on_signals()
        if server.is_at(target.address, target.port):
            raise InputError(
                "A proxy passes requests to another server than itself.",
                received=f"{upstream}, while it listens on {server.url}",
                remedy="Name another port for it: --port P",
            )
        await monitor.start()
        on_start(
            Proxying(
                url=server.url,
                upstream=upstream,
                invoice_url=server.url + INVOICE_PATH.decode(),
                page_url=server.url + PAGE_PATHS[-1].decode(),
                report_url=server.url + REPORT_PATH.decode(),
                metrics_url=server.url + METRICS_PATH.decode(),
                usd_per_hour=usd_per_hour,
                watcher_process_id=monitor.watcher_process_id,
            )
        )
        await server.serve()
    return proxy.invoice()

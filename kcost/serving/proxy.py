"""A proxy before a server of models: requests go through untouched, each is put on the invoice, and watched."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import orjson

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.cost.forecast import Forecast
from kcost.cost.invoice import Invoice, Meter
from kcost.serving.at_once import CONNECTION_HEADERS, Headers, RequestHead, Respond, respond, respond_now
from kcost.serving.bodies import Bodies, Body
from kcost.serving.http_client import Target, read_url
from kcost.serving.http_server import HttpServer, HttpSettings
from kcost.serving.monitor.monitor import INVOICE_PATH, METRICS_PATH, PAGE_PATHS, REPORT_PATH, Monitor, NamedRequest
from kcost.serving.monitor.rollouts import TimedAnswer, path_of
from kcost.serving.monitor.settings import MonitorSettings
from kcost.serving.open_inference import OpenRoute
from kcost.serving.routes import Route, resource_at
from kcost.serving.status import Code, RequestError, unforeseen
from kcost.serving.upstream import Answer, Outcome, Upstream, proxy_ends

OWN_PATHS = b"/kcost"
OTHERS = "(others)"
"""What the invoice has for requests of no model, and for names beyond the first 1,000: a client can make up any."""

SHADOW = "(shadow)"
"""The caller, on the invoice, of requests that the proxy sends to another version by itself."""

_MOST_SHADOWS = 8
"""At a time: what the proxy asks by itself must not fill the queue of the server."""

_BOOKED_WITHIN_S = 0.002
"""Long enough for a client to have its answer, and short enough that the process that watches has not much to do at a
time: where the cores are few, requests wait for it."""

_BOOKED_FROM = 16
"""So many events are booked without waiting for more: other requests wait as long as that takes."""

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_MOST_KEYS = 1000

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class _Entry(NamedTuple):
    """A request on the books."""

    key: tuple[str, str, str]
    number: int
    start_ns: int


class _ReadHead(NamedTuple):
    """What the proxy makes of the head of a request."""

    resource: Route | None
    """None where no model is asked."""
    upstream_head: bytes
    """That of the same request to the server, up to the length of its body."""


class _Passing:
    """A request that was passed on whole, and is on the books a moment later."""

    __slots__ = ("body", "entry", "headers", "resource", "respond", "start_ns")

    def __init__(self, headers: Headers, body: bytes, resource: Route, respond: Respond, start_ns: int) -> None:
        self.headers = headers
        self.body = body
        self.resource = resource
        self.respond = respond
        self.start_ns = start_ns
        self.entry: _Entry | None = None


class Proxy:
    """The ASGI application; and `take`, the shorter way for what most requests are.

    Args:
        upstream: the server; the path of its URL is left out.
        usd_per_hour: the price of the machine.
        caller_header: whose value says who asks; None for none.
        timeout_s: an answer that is not there by then is a 504.
        bodies: holds those of requests.
        clock: nanoseconds that never go back.
        monitor: None watches traffic alone.
        forecasts: see `Meter`.
        remote: see `Upstream`.
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
        self._upstream = Upstream(upstream, timeout_s, clock, remote=remote)
        self._caller_header = None if caller_header is None else caller_header.lower().encode()
        self._timeout_s = timeout_s
        self._bodies = bodies
        self._clock = clock
        self._own_meter = Meter(usd_per_hour, clock(), forecasts)
        self._not_booked: deque[Callable[[], None]] = deque()
        """What happened and is not on the books or with the monitor yet, in its order."""
        self._booking: asyncio.TimerHandle | None = None
        self._keys: set[tuple[str, str, str]] = set()
        self._shadows: set[asyncio.Task[None]] = set()
        url = f"http://{upstream.host}:{upstream.port}"
        self.monitor = Monitor(url, MonitorSettings(), {}) if monitor is None else monitor
        self._rolled_out = self.monitor.rollouts.models

    def invoice(self) -> Invoice:
        """The bill so far."""
        return self._meter.invoice(self._clock())

    @property
    def _meter(self) -> Meter:
        """All that has happened is on it."""
        self._book()
        return self._own_meter

    async def close(self) -> None:
        """Ends what is under way. A comparison that is not over by then is not counted."""
        await asyncio.sleep(0)  # what the server has cancelled ends first
        for task in self._shadows:
            task.cancel()
        if self._shadows:
            await asyncio.wait(self._shadows)
        await self._upstream.close()
        self._book()

    def take(self, head: RequestHead, body: bytes, respond: Respond) -> bool:
        """Passes a whole request on before it returns; see `Take`.

        What most requests ask for goes this way: a prediction of a model that has no new version beside it, when a
        connection to the server is open. A client waits for nothing here that can be done behind its answer: what is
        booked and watched is put off.
        """
        if head.kept is None:
            resource = _asked_of_a_model(head.target)
            upstream_head = b"" if resource is None else self._upstream_head(b"POST", head.target, head.headers)
            head.kept = _ReadHead(resource, upstream_head)
        read_head: _ReadHead = head.kept
        resource = read_head.resource
        if resource is None or resource.model in self._rolled_out or len(body) > self._bodies.most_bytes:
            return False
        if not self._bodies.hold(len(body)):
            return False
        passing = _Passing(head.headers, body, resource, respond, self._clock())
        sent = _with_body(read_head.upstream_head, body)
        if not self._upstream.ask_now(sent, self._timeout_s, partial(self._passed, passing)):
            self._bodies.release(len(body))
            return False
        self._book_later(partial(self._book_arrival, passing))
        return True

    def _passed(self, passing: _Passing, outcome: Outcome) -> None:
        """Gives the answer to who asked."""
        answered_ns = self._clock()
        answer = _refusal(outcome) if isinstance(outcome, RequestError) else outcome
        watched = None
        try:
            watched = None if answer.status != 200 else self.monitor.named(passing.resource, passing.headers)
            headers = answer.headers if watched is None else [*answer.headers, *watched.headers]
            passing.respond(answer.status, headers, answer.body)
        except Exception as error:  # the connection to the server would take it for a fault of the answer
            answer, watched = _refusal(unforeseen(error)), None
            passing.respond(*answer)
        self._book_later(partial(self._book_answer, passing, answer.status, answered_ns, self._clock()))
        if watched is not None:
            self._book_later(partial(self._offer, watched, passing, answer))

    def _book_later(self, event: Callable[[], None]) -> None:
        """Books an event within _BOOKED_WITHIN_S, with those around it, and before anybody looks at the books.

        Done right behind what is written, it would keep waiting who reads that: the system often has a reader wait for
        the writer's core.
        """
        self._not_booked.append(event)
        if len(self._not_booked) == _BOOKED_FROM:
            asyncio.get_running_loop().call_soon(self._book)
        elif self._booking is None:
            self._booking = asyncio.get_running_loop().call_later(_BOOKED_WITHIN_S, self._book)

    def _book(self) -> None:
        if self._booking is not None:
            self._booking.cancel()
            self._booking = None
        while self._not_booked:
            try:
                self._not_booked.popleft()()
            except Exception as error:  # it keeps neither the others from the books nor who looks at them from going on
                unforeseen(error)

    def _book_arrival(self, passing: _Passing) -> None:
        passing.entry = self._enter(passing.headers, passing.resource, passing.start_ns)
        self._own_meter.to_model(passing.entry.number, passing.start_ns)

    def _book_answer(self, passing: _Passing, status: int, answered_ns: int, end_ns: int) -> None:
        entry = passing.entry
        assert entry is not None
        self._own_meter.from_model(entry.number, answered_ns)
        self._own_meter.leave(entry.number, end_ns, failed=status != 200)
        self._leave(entry, passing.resource, status, end_ns)
        self._bodies.release(len(passing.body))

    def _offer(self, watched: NamedRequest, passing: _Passing, answer: Answer) -> None:
        """Gives a request that was passed on, and is booked, to who watches."""
        assert passing.entry is not None
        self.monitor.offer(
            watched, passing.entry.key[2], (passing.headers, passing.body), (answer.headers, answer.body)
        )

    def _enter(self, headers: Headers, resource: Route | None, start_ns: int) -> _Entry:
        """Puts a request on the books."""
        key = self._key(headers, resource)
        self.monitor.traffic.arrive()
        return _Entry(key, self._own_meter.arrive(key, start_ns), start_ns)

    def _leave(self, entry: _Entry, resource: Route | None, status: int, end_ns: int) -> None:
        """Counts a request that was answered."""
        latency_ns = end_ns - entry.start_ns
        self.monitor.traffic.leave(latency_ns / 1e6, failed=status != 200)
        self.monitor.counted(entry.key[0], resource, status, latency_ns)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Passes one request on; or answers by itself, below /kcost."""
        if scope["raw_path"].startswith(OWN_PATHS + b"/") or scope["raw_path"] == OWN_PATHS:
            await self._answer_itself(scope, receive, send)
            return
        resource = _asked_of_a_model(scope["raw_path"]) if scope["method"] == "POST" else None
        choice = self.monitor.rollouts.choose(resource, scope["headers"])
        if choice is not None:
            resource, scope = choice.resource, {**scope, "raw_path": choice.path}
        self._book()
        entry = self._enter(scope["headers"], resource, self._clock())
        caller = entry.key[2]
        status, first_status, end_ns, held_bytes = 0, 0, 0, 0
        fallback = None if choice is None else choice.fallback
        try:
            body = await self._bodies.read(scope, receive)
            held_bytes = len(body)
            # A canary has half of the time, so that the version behind it has the other half.
            timeout_s = self._timeout_s if fallback is None else self._timeout_s / 2
            first = answer = await self._timed(entry.number, scope, body, timeout_s)
            first_status = first.status
            if fallback is not None and first.status != 200:
                # A forward pass changes nothing: asking again is safe.
                resource = fallback
                answer = await self._ask_version(fallback, caller, scope, body, timeout_s)
                self.monitor.rollouts.failed(fallback.model, answer.status)
            status = answer.status
            watched = None if status != 200 else self.monitor.named(resource, scope["headers"])
            headers = [(name, value) for name, value in answer.headers if name.lower() not in CONNECTION_HEADERS]
            headers += () if watched is None else watched.headers
            await respond(scope, send, status, headers, answer.body)
            # The event loop sends what was written when this task waits: what is left to do here comes after it.
            end_ns = self._clock()
            await asyncio.sleep(0)
            if watched is not None:
                self.monitor.offer(watched, caller, (scope["headers"], body), (answer.headers, answer.body))
                if fallback is not None and answer is first:
                    self.monitor.rollouts.answered(fallback.model)
                    self._compare(fallback, watched.resource, scope, body)
                elif (shadow := self.monitor.rollouts.shadow_of(watched.resource)) is not None:
                    self._compare(watched.resource, shadow, scope, body)
        except RequestError as error:
            status = first_status = error.http_status
            await _refuse(scope, send, error)
        except asyncio.CancelledError:  # the time is over that the server leaves those who wait
            if not status:
                refusal = _refusal(proxy_ends())
                status = first_status = refusal.status
                respond_now(scope, *refusal)  # else uvicorn answers: a client that takes nothing is not waited for
            raise
        finally:
            now_ns = self._clock()
            self._meter.leave(entry.number, now_ns, failed=first_status != 200)
            self._leave(entry, resource, status, end_ns or now_ns)
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
                # The bill first: what was answered is offered to who watches by then, and labels come behind it.
                page = await self.monitor.page(scope["method"], scope["raw_path"], body, self.invoice())
            finally:
                self._bodies.release(len(body))
        except RequestError as error:
            await _refuse(scope, send, error)
            return
        await respond(scope, send, page.status, page.headers, page.body)

    def _key(self, headers: Headers, resource: Route | None) -> tuple[str, str, str]:
        """Model, version and caller of a request."""
        model, version = OTHERS, ""
        if resource is not None:
            model, version = resource.model, _version_text(resource)
        caller = b""
        if self._caller_header is not None:
            caller = next((value for name, value in headers if name == self._caller_header), b"")
        key = (model, version, caller[:100].decode("latin-1"))
        if key not in self._keys:
            if len(self._keys) >= _MOST_KEYS:
                return (OTHERS, "", OTHERS)
            self._keys.add(key)
        return key

    async def _pass_on(self, scope: dict[str, Any], body: Body, timeout_s: float) -> Answer:
        if scope["method"] not in _METHODS:
            raise RequestError(Code.UNIMPLEMENTED, f"The proxy passes on {', '.join(_METHODS)}.")
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope.get("query_string") else b"")
        head = self._upstream_head(scope["method"].encode(), target, scope["headers"])
        return await self._upstream.ask(_with_body(head, body), timeout_s)

    def _upstream_head(self, method: bytes, target: bytes, headers: Headers) -> bytes:
        """The head of a request to the server, up to the length of its body."""
        pieces = [method, b" ", target, self._upstream.host_line]
        for name, value in headers:
            if name not in CONNECTION_HEADERS:
                pieces += (name, b": ", value, b"\r\n")
        return b"".join(pieces)


def _with_body(upstream_head: bytes, body: Body) -> bytes:
    return b"".join((upstream_head, b"content-length: %d\r\n\r\n" % len(body), body))


@lru_cache(maxsize=1024)
def _asked_of_a_model(target: bytes) -> Route | None:
    """What a POST request asks a model for; None where it asks none: the upstream answers that, too."""
    if b"#" in target:
        return None
    try:
        resource = resource_at("POST", target.partition(b"?")[0])
    except RequestError:
        return None
    if isinstance(resource, OpenRoute):
        return Route(resource.model, resource.version, None, resource.kind)
    return resource


def _version_text(resource: Route) -> str:
    """The version of a request, as it names it."""
    return resource.label or ("latest" if resource.version is None else str(resource.version))


async def _refuse(scope: dict[str, Any], send: Send, error: RequestError) -> None:
    refusal = _refusal(error)
    await respond(scope, send, refusal.status, refusal.headers, refusal.body)


def _refusal(error: RequestError) -> Answer:
    headers = [(b"content-type", b"application/json"), *error.headers]
    return Answer(error.http_status, headers, orjson.dumps({"error": error.message}))


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
        server = HttpServer(proxy, http, proxy.take)
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

"""The proxy's own paths below /kcost, and what it does with each request that it has passed on."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from importlib import resources
from typing import NamedTuple

import orjson

from kcost.core.unforeseen import harmless
from kcost.cost.invoice import Invoice
from kcost.risk.drift_reference import Reference
from kcost.risk.rollout import RolloutCounts
from kcost.serving.bodies import Body
from kcost.serving.metrics import REQUEST_LATENCY, Metrics
from kcost.serving.monitor.link import WatchLink
from kcost.serving.monitor.prometheus import samples_of
from kcost.serving.monitor.report import MonitorReport, WatcherState, make_monitor_report, rollout_sentence
from kcost.serving.monitor.rollout_store import RolloutStore
from kcost.serving.monitor.rollouts import JUDGE_S, Headers, Rollouts, RolloutState, TimedAnswer
from kcost.serving.monitor.settings import MonitorSettings
from kcost.serving.monitor.traffic import TrafficCounter
from kcost.serving.monitor.watch import Watched
from kcost.serving.routes import Route
from kcost.serving.status import HTTP_STATUS, Code, RequestError

INVOICE_PATH = b"/kcost/invoice"
PAGE_PATHS = (b"/kcost", b"/kcost/")
REPORT_PATH = b"/kcost/monitor"
METRICS_PATH = b"/kcost/metrics"
LABELS_PATH = b"/kcost/labels"
ID_HEADER = b"x-request-id"
"""A client may name its request; else the answer has the name that the proxy gave it, in the same header."""

LONGEST_ID = 200
_JSON = [(b"content-type", b"application/json")]
_POLICY = b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
_STATUS_NAMES = {status: code.name for code, status in reversed(HTTP_STATUS.items())}


class Page(NamedTuple):
    """An answer of the proxy itself."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class NamedRequest(NamedTuple):
    """A request that is watched."""

    name: str
    resource: Route
    headers: tuple[tuple[bytes, bytes], ...]
    """That the answer gets: the name, where the client did not give it."""


class Monitor:
    """Watches what the proxy passes on.

    Args:
        upstream: URL of the server behind it.
        settings: what the user said.
        references: served name -> reference.
        log: told of decisions on new versions, a sentence at a time. What it raises ends nothing.

    Raises:
        InputError: the file of rollouts cannot be read or written, or another proxy writes it.
    """

    def __init__(
        self,
        upstream: str,
        settings: MonitorSettings,
        references: dict[str, Reference],
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._upstream = upstream
        self._settings = settings
        self.traffic = TrafficCounter(time.monotonic)
        self._metrics = Metrics()
        self._link: WatchLink | None = None
        self._boot = secrets.token_hex(4)
        self._number = 0
        self._log = None if log is None else harmless(log)
        file = settings.rollouts.file if settings.shadow or settings.canary else None
        self._store = None if file is None else RolloutStore(file)
        self._storing: asyncio.Task[None] | None = None
        self._is_closing = False
        self.rollouts = Rollouts(settings, self._agreement, self._decided, store=self._store)
        if references or settings.samples is not None:
            self._link = WatchLink(settings, references, self.rollouts.agreed)

    @property
    def watcher_process_id(self) -> int | None:
        """Of the process that watches; None where there is none."""
        return None if self._link is None else self._link.process_id

    async def start(self) -> None:
        """Starts the process that watches, where there is something to watch.

        Raises:
            InputError: it cannot begin.
        """
        if self._link is not None:
            await self._link.start()
        if self._store is not None:
            self._storing = asyncio.create_task(self._keep_storing())

    async def close(self) -> None:
        """Ends it, when it has looked at what it was given, and what was counted is stored."""
        self._is_closing = True
        async with contextlib.AsyncExitStack() as stack:  # whatever fails, the file is free and no process stays
            if self._store is not None:
                stack.callback(self._store.close)
            if self._link is not None:
                stack.push_async_callback(self._link.close)
            if self._storing is not None:
                self.rollouts.due.set()
                await self._storing
                await self.rollouts.sync()  # what was counted while the last write was under way

    async def _keep_storing(self) -> None:
        """Stores what was counted of rollouts every second, and a roll-back at once.

        What is asked for in between is stored when it is told.
        """
        while not self._is_closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(JUDGE_S):
                    await self.rollouts.due.wait()
            self.rollouts.due.clear()
            await self.rollouts.sync()

    def counted(self, model: str, resource: Route | None, status: int, latency_ns: int) -> None:
        """One request was answered.

        Args:
            model: as the invoice has it: one of at most a thousand names.
            resource: None where the path is none of the interface's.
        """
        self._metrics.count(model, _STATUS_NAMES.get(status, "CANCELLED" if not status else f"HTTP_{status}"))
        if resource is not None:
            self._metrics.time(REQUEST_LATENCY, model, resource.method.capitalize(), latency_ns)

    def named(self, resource: Route | None, headers: Headers) -> NamedRequest | None:
        """The name of a request that was answered with 200; None where it is not watched."""
        if self._link is None or resource is None or resource.method != "predict":
            return None
        given_id = _header(headers, ID_HEADER)[:LONGEST_ID].decode("latin-1")
        self._number += 1
        name = given_id or f"{self._boot}-{self._number}"
        return NamedRequest(name, resource, () if given_id else ((ID_HEADER, name.encode()),))

    def offer(
        self, named: NamedRequest, caller: str, request: tuple[Headers, Body], answer: tuple[Headers, bytes]
    ) -> None:
        """Gives a request to the process that watches.

        Args:
            request, answer: headers and body of each.
        """
        assert self._link is not None
        header = {
            "kind": "request",
            "id": named.name,
            "model": named.resource.model,
            "version": named.resource.label or str(named.resource.version or "latest"),
            "caller": caller,
            "at_s": time.time(),
            "request_encoding": _header(request[0], b"content-encoding").decode("latin-1").strip().lower(),
            "answer_encoding": _header(answer[0], b"content-encoding").decode("latin-1").strip().lower(),
        }
        self._link.offer(header, request[1], answer[1])

    def compared(self, model: str, old: TimedAnswer, new: TimedAnswer) -> None:
        """Two versions were asked the same: counts it, and has the answers compared by the process that watches."""
        if not self.rollouts.compared(model, old, new) or self._link is None:
            return
        header = {
            "kind": "pair",
            "model": model,
            "old_encoding": _header(old.headers, b"content-encoding").decode("latin-1").strip().lower(),
            "new_encoding": _header(new.headers, b"content-encoding").decode("latin-1").strip().lower(),
        }
        self._link.offer(header, old.body, new.body)

    def _agreement(self) -> Mapping[str, RolloutCounts]:
        watched = Watched() if self._link is None else self._link.watched()
        return {model.name: model.agreement for model in watched.models}

    def _decided(self, state: RolloutState) -> None:
        if self._log is not None:
            self._log(rollout_sentence(state))
        if self._link is not None:
            rollout = state.rollout
            event = {"event": "rollout", "at_s": time.time(), "model": state.model, "kind": state.kind}
            event |= {"version": state.version, "decision": rollout.decision, "stopped": state.stopped}
            event |= {"probability": rollout.probability, "holds": rollout.holds}
            self._link.offer({"kind": "event", "event": event}, b"", b"")

    def report(self, bill: Invoice) -> MonitorReport:
        """What is known now."""
        link = self._link
        watcher = None
        if link is not None:
            watcher = WatcherState(is_up=link.is_up, offered=link.offered, dropped=link.dropped, restarts=link.restarts)
        watched = Watched() if link is None else link.watched()
        rollouts = self.rollouts.states(bill.usd_per_hour)
        return make_monitor_report(
            *(self._upstream, self._settings, self.traffic.traffic(), watcher, watched, bill, rollouts),
            store_failed=self.rollouts.store_failed,
        )

    async def page(self, method: str, path: bytes, body: Body, bill: Invoice) -> Page:
        """The answer to a request below /kcost.

        Raises:
            RequestError: there is no such path, labels cannot be used, or are not stored for now.
        """
        if method == "POST" and path == LABELS_PATH:
            return await self._label(body)
        if method != "GET":
            raise RequestError(Code.NOT_FOUND, f"Not found: {method} {path.decode('latin-1')}")
        if path == INVOICE_PATH:
            return Page(200, _JSON, bill.model_dump_json(indent=1).encode())
        if path in (REPORT_PATH, METRICS_PATH):
            await self.rollouts.sync()
        if path == REPORT_PATH:
            return Page(200, _JSON, self.report(bill).model_dump_json().encode())
        if path == METRICS_PATH:
            text = self._metrics.text(samples_of(self.report(bill))).encode()
            return Page(200, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")], text)
        if path in PAGE_PATHS:
            headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", _POLICY)]
            return Page(200, headers, resources.files(__package__).joinpath("page.html").read_bytes())
        raise RequestError(Code.NOT_FOUND, f"Not found: GET {path.decode('latin-1')}")

    async def _label(self, body: Body) -> Page:
        if self._link is None or not self._settings.references:
            text = "Labels are held against answers of models that have a reference: kcost serve --reference FILE"
            raise RequestError(Code.FAILED_PRECONDITION, text)
        answer = await self._link.label(body)
        if "error" in answer:
            return Page(400, _JSON, orjson.dumps(answer))
        return Page(200, _JSON, orjson.dumps(answer))


def _header(headers: Headers, name: bytes) -> bytes:
    return next((value for known, value in headers if known.lower() == name), b"")

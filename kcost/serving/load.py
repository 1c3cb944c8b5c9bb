"""An open-loop load generator: requests leave when they are due, whether or not earlier ones were answered.

A request's latency counts from the moment at which it was due, not from that at which it was sent: where the client or
its connections are late, a user would have waited so much longer. Source: Schroeder, B., Wierman, A. and
Harchol-Balter, M. (2006), Open versus closed: a cautionary tale, NSDI.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import NamedTuple

import numpy as np

from kcost.core.errors import InputError
from kcost.serving.arrivals import Schedule
from kcost.serving.http_client import AnswerHeaders, Connection, Target, take_open
from kcost.serving.known_heads import KnownHeads

SPIN_S = 0.0012
"""Timers of the event loop have a resolution of a millisecond: the last of it is waited for by looking at the clock."""

TIMED_OUT, BROKEN, NOT_CONNECTED = -1, -2, -3
"""In the place of a status: no answer in time; the connection ended before one was whole; none could be opened."""

IDLE_S = 10.0
"""A connection that nobody used for longer is closed, not used again: the server may be about to close it, and a
request that is sent just then is lost."""

_TOLD_BYTES = 200
"""Of an answer that tells of a failure."""


class Observed(NamedTuple):
    """What became of each request, in the order in which they were due."""

    due_ns: np.ndarray
    """int64, from the beginning."""
    reached_ns: np.ndarray
    """int64; when the client came to it, with or without a free connection."""
    sent_ns: np.ndarray
    """int64; when it was written to a connection."""
    done_ns: np.ndarray
    """int64; when its answer was whole, or its time was up."""
    status: np.ndarray
    """int64; the HTTP status, TIMED_OUT, BROKEN or NOT_CONNECTED."""
    wall_s: float
    opened: int
    """Connections, in all."""
    why: dict[int, str]
    """What is known of each request that was not answered with 200, by its place."""

    @property
    def first_failure(self) -> str | None:
        """What is known of the first request that was not answered with 200, in a line; None where each was."""
        return " ".join(self.why[min(self.why)].split()) if self.why else None


class LoadGenerator:
    """Sends a schedule to a server.

    Args:
        target: where to.
        schedule: what, and when.
        connections: most at a time; a request that finds all of them busy waits, and that is its latency too.
        timeout_s: a request is given up so long after it was due.
        spin_s: the last part of a wait that is spent looking at the clock. 0 leaves the core to others, where a
            client shares it with the server, and sends up to a millisecond late.
    """

    def __init__(
        self, target: Target, schedule: Schedule, connections: int, timeout_s: float, *, spin_s: float = SPIN_S
    ) -> None:
        count = len(schedule.due_s)
        self._target = target
        self._requests = [target.request(body) for body in schedule.bodies]
        self._due_ns = np.round(schedule.due_s * 1e9).astype(np.int64)
        self._reached_ns = np.zeros(count, np.int64)
        self._sent_ns = np.zeros(count, np.int64)
        self._done_ns = np.zeros(count, np.int64)
        self._status = np.zeros(count, np.int64)
        self._most = connections
        self._spin_s = spin_s
        self._timeout_ns = int(timeout_s * 1e9)
        self._free: deque[Connection] = deque()
        """Used last, taken first: those that bursts leave behind are at the front."""
        self._idle_since_ns: dict[Connection, int] = {}
        self._open: set[Connection] = set()
        self._heads = KnownHeads[AnswerHeaders]()
        self._opened = 0
        self._why: dict[int, str] = {}
        self._opening = 0
        self._waiting: deque[int] = deque()
        self._flying: dict[int, Connection] = {}
        self._left = count
        self._start_ns = 0
        self._all_done = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Observed:
        """Sends all of it, and waits for the answers.

        Raises:
            InputError: the server does not accept a connection.
        """
        first = await self._connect_first()
        self._start_ns = time.perf_counter_ns()
        self._put_back(first)
        giving_up = asyncio.get_running_loop().create_task(self._give_up())
        try:
            for place, due_ns in enumerate(self._due_ns.tolist()):
                await self._until(due_ns)
                self._reached_ns[place] = self._now()
                self._waiting.append(place)
                self._send_waiting()
            if self._left:
                await self._all_done.wait()
        finally:
            giving_up.cancel()
            for task in list(self._tasks):
                task.cancel()
            for connection in list(self._open):
                connection.close()
        wall_s = self._now() / 1e9
        times_ns = (self._due_ns, self._reached_ns, self._sent_ns, self._done_ns)
        return Observed(*times_ns, self._status, wall_s, self._opened, self._why)

    def _now(self) -> int:
        return time.perf_counter_ns() - self._start_ns

    async def _until(self, due_ns: int) -> None:
        left_s = (due_ns - self._now()) / 1e9
        if left_s <= 0:
            # Late already; answers are read now and then all the same.
            await asyncio.sleep(0)
            return
        if left_s > self._spin_s:
            await asyncio.sleep(left_s - self._spin_s)
        while self._now() < due_ns:
            await asyncio.sleep(0)

    async def _connect_first(self) -> Connection:
        try:
            return await self._new_connection()
        except OSError as error:
            raise InputError(
                "A load test needs a server that accepts connections.",
                received=f"{self._target.host}:{self._target.port}: {error}",
                remedy="Start one: kcost serve DIR --port P",
            ) from error

    async def _new_connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self._closed, self._heads), self._target.address, self._target.port
        )
        self._open.add(connection)
        self._opened += 1
        return connection

    def _closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle_since_ns.pop(connection, None)

    def _put_back(self, connection: Connection) -> None:
        self._idle_since_ns[connection] = self._now()
        self._free.append(connection)

    def _send_waiting(self) -> None:
        while self._waiting:
            connection = take_open(self._free)
            if connection is None:
                if len(self._open) + self._opening < self._most and self._opening < len(self._waiting):
                    self._opening += 1
                    task = asyncio.get_running_loop().create_task(self._open_one())
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                    continue
                return
            place = self._waiting.popleft()
            if self._done_ns[place]:
                self._put_back(connection)
                continue
            self._flying[place] = connection
            self._sent_ns[place] = now = self._now()
            idle_ns = now - self._idle_since_ns.pop(connection)
            request = self._requests[place % len(self._requests)]
            connection.send(request, partial(self._answered, place, connection, idle_ns))

    async def _open_one(self) -> None:
        try:
            self._put_back(await self._new_connection())
        except OSError as error:
            # The oldest that waits takes the blame: else all would wait for a server that is gone.
            if self._waiting:
                self._finish(self._waiting.popleft(), NOT_CONNECTED, str(error))
        finally:
            self._opening -= 1
            self._send_waiting()

    def _answered(self, place: int, connection: Connection, idle_ns: int, status: int | None) -> None:
        self._flying.pop(place, None)
        if status is None:
            uses = f"its request {connection.uses} came after {idle_ns / 1e6:.0f} ms without one"
            self._finish(place, BROKEN, f"{connection.end}; {uses}")
        else:
            self._finish(place, status, "" if status == 200 else connection.body[:_TOLD_BYTES].decode(errors="replace"))
        if connection.is_open:
            self._put_back(connection)
        self._send_waiting()

    def _finish(self, place: int, status: int, why: str) -> None:
        if self._done_ns[place]:
            return
        if status != 200:
            self._why[place] = why
        self._done_ns[place] = self._now()
        if not self._sent_ns[place]:
            self._sent_ns[place] = self._done_ns[place]
        self._status[place] = status
        self._left -= 1
        if not self._left:
            self._all_done.set()

    async def _give_up(self) -> None:
        """Ends requests whose time is up, and connections that nobody uses, ten times a second."""
        while True:
            await asyncio.sleep(0.1)
            late_ns = self._now() - self._timeout_ns
            while self._waiting and self._due_ns[self._waiting[0]] < late_ns:
                self._finish(self._waiting.popleft(), TIMED_OUT, "it was not sent")
            for place, connection in list(self._flying.items()):
                if self._due_ns[place] < late_ns:
                    self._finish(place, TIMED_OUT, "it was sent and not answered")
                    connection.close()
            # One that the server has closed meanwhile is known there no more.
            while self._free and self._idle_since_ns.get(self._free[0], 0) < self._now() - int(IDLE_S * 1e9):
                self._free.popleft().close()

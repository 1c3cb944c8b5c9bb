"""The server behind a proxy: connections that are kept open, each with one request at a time, and deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from kcost.serving.at_once import Headers
from kcost.serving.http_client import AnswerHeaders, Connection, Target, take_open
from kcost.serving.known_heads import KnownHeads
from kcost.serving.status import Code, RequestError, unforeseen

_LOOK_S = 0.25
"""How often deadlines are looked at: an answer that does not come is told of so much later."""


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Headers
    body: bytes


Outcome = Answer | RequestError
"""What came of a request: an answer, or why there is none."""


class _ServerConnection(Connection):
    """A connection to the server, with the request that is on it."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__(lambda _: upstream.drop(self), upstream.heads)
        self._upstream = upstream
        self._request = b""
        self.deadline_ns = 0
        """By the clock: `timeout_s` behind the start of the request."""
        self.timeout_s = 0.0
        self._done: Callable[[Outcome], None] | None = None
        self._closed: Callable[[], None] | None = None

    def ask(
        self,
        request: bytes,
        deadline_ns: int,
        timeout_s: float,
        done: Callable[[Outcome], None],
        closed: Callable[[], None] | None = None,
    ) -> None:
        """Sends a request.

        Args:
            done: told what came of it.
            closed: called in its place where the connection was closed before the answer was whole; None asks on
                another connection then.
        """
        self._request = request
        self.deadline_ns = deadline_ns
        self.timeout_s = timeout_s
        self._done = done
        self._closed = closed
        self.send(request, self._answered)
        self._upstream.under_way.add(self)

    def _answered(self, status: int | None) -> None:
        done = self._done
        if done is None:  # it was given up
            return
        request, closed, upstream = self._request, self._closed, self._upstream
        self._forget()
        if status is not None:
            answer = Answer(status, self.headers, self.body)
            self.headers, self.body = [], b""
            if self.is_open:
                upstream.free.append(self)
            done(answer)
        elif closed is not None:
            closed()
        else:
            upstream.ask_again(request, self.deadline_ns, self.timeout_s, done)

    def _forget(self) -> None:
        """Who keeps a connection keeps nothing of its request: nobody counts those bytes."""
        self._done = self._closed = None
        self._request = b""
        self._upstream.under_way.discard(self)

    def give_up(self) -> Callable[[Outcome], None] | None:
        """Closes it: the answer would be taken for that of the next request.

        Returns:
            Who is to be told; None for nobody.
        """
        done = self._done
        self._forget()
        self.close()
        return done


class Upstream:
    """Asks the server.

    Args:
        target: the server.
        shortest_timeout_s: deadlines are looked at four times within it.
        clock: nanoseconds that never go back.
        remote: whether the server may be on another machine. Its name is then looked up for each connection: a
            container that is made anew has another address.
    """

    def __init__(self, target: Target, shortest_timeout_s: float, clock: Callable[[], int], *, remote: bool) -> None:
        host = f"[{target.host}]" if ":" in target.host else target.host
        self.host_line = f" HTTP/1.1\r\nhost: {host}:{target.port}\r\n".encode()
        """What comes behind the target in the head of a request."""
        self._address = target.host if remote else target.address
        self._port = target.port
        self._look_s = min(_LOOK_S, shortest_timeout_s / 4)
        self._clock = clock
        self.heads = KnownHeads[AnswerHeaders]()
        """Of its answers."""
        self.free: list[_ServerConnection] = []
        """Connections without a request."""
        self.under_way: set[_ServerConnection] = set()
        """Connections with one."""
        self._looking: asyncio.TimerHandle | None = None
        self._asking_again: set[asyncio.Task[Outcome]] = set()
        self._is_closed = False

    def drop(self, connection: _ServerConnection) -> None:
        """A connection was closed."""
        if connection in self.free:
            self.free.remove(connection)

    async def ask(self, request: bytes, timeout_s: float) -> Answer:
        """The answer to a request, the bytes of which are given.

        Raises:
            RequestError: there is none: the server is not there, closes the connection, or takes longer.
        """
        deadline_ns = self._clock() + int(timeout_s * 1e9)
        kept = take_open(self.free)
        # It may be closed just now; a new one is asked then. A forward pass changes nothing.
        if kept is not None and (answer := await self._ask_on(kept, request, deadline_ns, timeout_s)) is not None:
            return answer
        return await self._ask_new(request, deadline_ns, timeout_s)

    def ask_now(self, request: bytes, timeout_s: float, done: Callable[[Outcome], None]) -> bool:
        """Sends a request before it returns; `done` is told later, once, what came of it.

        Returns:
            False where no connection is open: nothing was sent then, and `done` is not called.
        """
        connection = take_open(self.free)
        if connection is None:
            return False
        connection.ask(request, self._clock() + int(timeout_s * 1e9), timeout_s, done)
        if self._looking is None:
            self._look_later()
        return True

    def ask_again(self, request: bytes, deadline_ns: int, timeout_s: float, done: Callable[[Outcome], None]) -> None:
        """Asks on a new connection what an old one was closed over."""
        if self._is_closed:
            done(proxy_ends())
            return

        def over(task: asyncio.Task[Outcome]) -> None:
            self._asking_again.discard(task)
            done(proxy_ends() if task.cancelled() else task.result())

        task = asyncio.create_task(self._outcome(request, deadline_ns, timeout_s))
        self._asking_again.add(task)
        task.add_done_callback(over)

    async def close(self) -> None:
        """Gives up what has no answer."""
        self._is_closed = True
        tasks = list(self._asking_again)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._give_up(list(self.under_way), lambda _: proxy_ends())

    async def _outcome(self, request: bytes, deadline_ns: int, timeout_s: float) -> Outcome:
        try:
            return await self._ask_new(request, deadline_ns, timeout_s)
        except RequestError as error:
            return error
        except Exception as error:
            return unforeseen(error)

    async def _ask_new(self, request: bytes, deadline_ns: int, timeout_s: float) -> Answer:
        try:
            async with asyncio.timeout((deadline_ns - self._clock()) / 1e9):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _ServerConnection(self), self._address, self._port
                )
        except TimeoutError as error:
            raise _too_late(timeout_s) from error
        except OSError as error:
            raise RequestError(Code.UNAVAILABLE, f"The server behind the proxy is not there: {error}") from error
        answer = await self._ask_on(connection, request, deadline_ns, timeout_s)
        if answer is None:
            text = "The server behind the proxy closed the connection without an answer."
            raise RequestError(Code.UNAVAILABLE, text)
        return answer

    async def _ask_on(
        self, connection: _ServerConnection, request: bytes, deadline_ns: int, timeout_s: float
    ) -> Answer | None:
        """One request on one connection; None where it was closed before the answer was whole."""
        came: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome | None = None) -> None:
            if not came.done():
                came.set_result(outcome)

        connection.ask(request, deadline_ns, timeout_s, done, closed=done)
        if self._looking is None:
            self._look_later()
        try:
            outcome = await came
        except asyncio.CancelledError:
            if came.cancelled():  # else it has answered, and another request may be on it by now
                connection.give_up()
            raise
        if isinstance(outcome, RequestError):
            raise outcome
        return outcome

    def _look_later(self) -> None:
        """Looks at deadlines now and then: a timer for each request would take longer than much that is done for it."""
        self._looking = asyncio.get_running_loop().call_later(self._look_s, self._end_late)

    def _end_late(self) -> None:
        self._looking = None
        now_ns = self._clock()
        late = [connection for connection in self.under_way if connection.deadline_ns <= now_ns]
        self._give_up(late, lambda connection: _too_late(connection.timeout_s))
        if self.under_way:
            self._look_later()

    def _give_up(self, connections: list[_ServerConnection], why: Callable[[_ServerConnection], RequestError]) -> None:
        for connection in connections:
            done = connection.give_up()
            if done is not None:
                done(why(connection))


def _too_late(timeout_s: float) -> RequestError:
    text = f"The server behind the proxy gave no answer within {timeout_s:g} s."
    return RequestError(Code.DEADLINE_EXCEEDED, text)


def proxy_ends() -> RequestError:
    """What those are told who have no answer when the proxy ends."""
    return RequestError(Code.UNAVAILABLE, "The proxy ends. Send the request again.")

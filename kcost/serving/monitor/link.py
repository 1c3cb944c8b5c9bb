"""The proxy's end of the process that watches: messages go out without a wait, or are dropped and counted."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from kcost.core.errors import InputError
from kcost.risk.drift_reference import Reference
from kcost.risk.rollout import RolloutCounts
from kcost.serving.bodies import Body
from kcost.serving.monitor.process import packed
from kcost.serving.monitor.settings import MonitorSettings
from kcost.serving.monitor.watch import Watched
from kcost.serving.status import Code, RequestError

MOST_WAITING_BYTES = 16 << 20
"""What waits for the process; more is dropped. So much is read in a second or two."""

MOST_LINE = 64 << 20
LABELS_S = 30.0
START_S = 60.0
STOP_S = 10.0
_AGAIN_S = 1.0


class WatchLink:
    """Starts the process, and starts it again when it ends.

    Args:
        settings: what the user said.
        references: served name -> reference.
        agreed: served name -> what was counted of the answers of two versions before: the process goes on from there.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        references: dict[str, Reference],
        agreed: Callable[[], Mapping[str, RolloutCounts]] = dict,
    ) -> None:
        plain = {name: r.model_dump(mode="json") for name, r in references.items()}
        self._first = {"settings": settings.model_dump(mode="json"), "references": plain}
        self._agreed = agreed
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._closing = False
        self._number = 0
        self._labels: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._latest = Watched()
        self.offered = 0
        self.dropped = 0
        """Requests that were not looked at, as the process had too much to do, or was not there."""
        self.restarts = 0

    @property
    def process_id(self) -> int | None:
        """Of the process that watches; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether the process is there."""
        return self._process is not None

    def watched(self) -> Watched:
        """What the process told last."""
        return self._latest

    async def start(self) -> None:
        """Starts the process; returns when it watches.

        Raises:
            InputError: it cannot begin: a folder or a file cannot be written to.
        """
        await self._start()
        self._reader = asyncio.create_task(self._keep())

    async def _start(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kcost.serving.monitor.process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MOST_LINE,
            start_new_session=True,  # Ctrl-C is the proxy's: it ends this process when all is written
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        counted = {**self._agreed(), **{model.name: model.agreement for model in self._latest.models}}
        agreed = {name: counts.model_dump(mode="json") for name, counts in counted.items()}
        process.stdin.write(packed({**self._first, "agreed": agreed}))
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_S)
        except TimeoutError:
            process.kill()
            line = b""
        if not line:
            errors = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
            raise InputError(
                "The process that watches can begin.", received=errors[-1][:300] if errors else "no word from it"
            )
        self._process = process

    def offer(self, header: dict[str, Any], request: Body, answer: bytes) -> None:
        """Gives a request and its answer to the process, if it has room; never waits."""
        self.offered += 1
        pipe = self._pipe()
        if pipe is None or pipe.get_write_buffer_size() > MOST_WAITING_BYTES:
            self.dropped += 1
            return
        header["dropped"] = self.dropped
        pipe.write(packed(header, request, answer))

    async def label(self, body: Body) -> dict[str, Any]:
        """Gives labels to the process; returns its answer, when what it stored is on disk.

        Raises:
            RequestError: the process is not there, or gave no answer in time: the labels may have to be sent again.
        """
        pipe = self._pipe()
        if pipe is None:
            raise RequestError(Code.UNAVAILABLE, "The process that watches is starting: send the labels again.")
        if pipe.get_write_buffer_size() > MOST_WAITING_BYTES:
            raise RequestError(Code.RESOURCE_EXHAUSTED, "The process that watches is busy: send the labels again.")
        self._number += 1
        number = self._number
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._labels[number] = answer
        pipe.write(packed({"kind": "labels", "number": number, "at_s": time.time()}, body))
        try:
            return await asyncio.wait_for(answer, LABELS_S)
        except TimeoutError as error:
            raise RequestError(Code.DEADLINE_EXCEEDED, "The process that watches gave no answer.") from error
        finally:
            self._labels.pop(number, None)

    async def close(self) -> None:
        """Ends the process when it has looked at what it was given, or after ten seconds."""
        self._closing = True
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    def _pipe(self) -> asyncio.WriteTransport | None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            return None
        return process.stdin.transport

    async def _keep(self) -> None:
        """Reads what the process tells, and starts another one when it has ended."""
        while True:
            process = self._process
            assert process is not None
            assert process.stdout is not None
            assert process.stderr is not None
            errors = asyncio.create_task(process.stderr.read())  # so that it never waits for a reader
            while line := await process.stdout.readline():
                message = orjson.loads(line)
                if "watched" in message:
                    self._latest = Watched.model_validate(message["watched"])
                elif (answer := self._labels.get(message.get("labels", -1))) is not None and not answer.done():
                    answer.set_result(message["answer"])
            await process.wait()
            errors.cancel()
            self._process = None
            for answer in self._labels.values():
                if not answer.done():
                    text = "The process that watches has ended: send the labels again."
                    answer.set_exception(RequestError(Code.UNAVAILABLE, text))
            while self._process is None:
                if self._closing:
                    return
                await asyncio.sleep(_AGAIN_S)
                with contextlib.suppress(InputError):  # tried again in a second; `is_up` says that it is not there
                    await self._start()
                    self.restarts += 1

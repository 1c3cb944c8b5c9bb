"""A process that runs one version of a model, as the server sees it: messages out, answers in, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from kcost.core import frames
from kcost.core.conversion import Runtime
from kcost.core.cpu_quota import default_threads
from kcost.core.errors import KcostError, WorkerError
from kcost.core.frames import Kind, Message
from kcost.core.jobs import SERVE
from kcost.core.process import Worker
from kcost.core.serving import ServeAnswer, ServedModel, ServeRequest
from kcost.serving.status import Code, RequestError

_ServeWorker = Worker[ServeRequest, ServeAnswer]

_PLACE = struct.Struct("<H")
_RUN_NS = struct.Struct("<Q")


class Outputs(NamedTuple):
    """What a model answered."""

    arrays: list[np.ndarray]
    run_ns: int


Done = Callable[[Outputs | RequestError], None]
"""What is called with the answer to a run."""


class TrialError(Exception):
    """A model was loaded, and the calls by which it is tried ended its process, failed, or did not end in time."""


class ModelRunner(Protocol):
    """What runs a model: a process; in tests, something simpler."""

    async def start(self, trial_s: float, on_loaded: Callable[[], None]) -> ServedModel:
        """Loads the model, calls `on_loaded`, and tries the model for at most `trial_s`; 0 leaves the trial out.

        Raises:
            KcostError: it cannot be loaded.
            TrialError: it is loaded, but cannot be tried; it can be started again without a trial.
        """

    def run(self, place: int, arrays: list[np.ndarray], done: Done) -> None:
        """Runs the signature at that place, and calls `done` once, later; never after `on_end` was called.

        Where it raises, nothing is run, and `done` is not called.
        """

    def close(self) -> None:
        """Ends it. `on_end` is not called."""


class ModelProcess(asyncio.Protocol):
    """A worker process with a model.

    Args:
        folder: of the SavedModel, or of the converted model.
        threads: CPU threads, 0 for `default_threads`.
        log: takes what the process prints.
        on_end: called when the process has ended by itself, after the model was loaded; what it was asked and did not
            answer is lost.
        runtime: that the model runs in.
    """

    def __init__(
        self,
        folder: Path,
        threads: int,
        log: Path,
        on_end: Callable[[], None],
        runtime: Runtime = "saved_model",
    ) -> None:
        self._folder = folder
        self._runtime: Runtime = runtime
        self._threads = threads
        self._log = log
        self._on_end = on_end
        self._reader = frames.MessageReader()
        self._waiting: dict[int, Done] = {}
        self._number = 0
        self._ready: asyncio.Future[ServedModel] | None = None
        self._trial_s = 0.0
        self._on_loaded: Callable[[], None] | None = None
        self._trial: asyncio.TimerHandle | None = None
        """Ends the trial; None before it and after it."""
        self._transport: asyncio.Transport | None = None
        self._worker: _ServeWorker | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id, None before `start`."""
        return None if self._worker is None else self._worker.pid

    async def start(self, trial_s: float, on_loaded: Callable[[], None]) -> ServedModel:
        """Starts the process and waits until the model is loaded, and tried: see ModelRunner.start.

        Raises:
            KcostError: it cannot be loaded.
            WorkerError: the process ended meanwhile; or none could be started, which says nothing of the model.
            TrialError: it is loaded, but cannot be tried.
        """
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self._trial_s, self._on_loaded = trial_s, on_loaded
        try:
            mine = self._start_worker()
            transport, _ = await loop.create_connection(lambda: self, sock=mine)
        except OSError as error:
            self.close()
            raise WorkerError(
                "A model is run by a process of its own.",
                received=f"none could be started: {error}",
                remedy="Raise the limits of open files, processes or memory (ulimit -a), or serve fewer versions.",
                cause="not_started",
            ) from error
        except BaseException:  # its version is not to be loaded any more
            self.close()
            raise
        self._transport = transport
        try:
            return await self._ready
        except BaseException:
            self.close()
            raise
        finally:
            if self._trial is not None:
                self._trial.cancel()
                self._trial = None

    def _start_worker(self) -> socket.socket:
        """Starts the process, and asks it to serve; the socket that it answers on."""
        mine, its = socket.socketpair()
        try:
            with its:
                # From this thread: the kernel ends a worker together with the thread that started it.
                with self._log.open("ab") as log:
                    self._worker = Worker(SERVE, "fake", log=log, pass_fds=(its.fileno(),))
                cores = tuple(sorted(os.sched_getaffinity(0)))
                self._worker.send(
                    ServeRequest(
                        folder=self._folder,
                        runtime=self._runtime,
                        socket_fd=its.fileno(),
                        threads=self._threads or default_threads(),
                        cores=cores,
                        tries=self._trial_s > 0,
                    )
                )
            mine.setblocking(False)
        except BaseException:
            mine.close()
            raise
        return mine

    def run(self, place: int, arrays: list[np.ndarray], done: Done) -> None:
        """See ModelRunner.run."""
        assert self._transport is not None
        self._number += 1
        parts = frames.encode(self._number, Kind.RUN, [_PLACE.pack(place), *frames.encode_arrays(arrays)])
        message = b"".join(parts)
        self._waiting[self._number] = done
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        """Hands answers to those who wait for them."""
        for message in self._reader.read(data):
            if message.number:
                self._waiting.pop(message.number)(_outcome(message))
            else:
                self._hear_of_start(message)

    def _hear_of_start(self, message: Message) -> None:
        assert self._ready is not None
        if self._ready.done():  # the trial ended too late
            return
        if message.kind == Kind.READY:
            self._ready.set_result(ServedModel.model_validate_json(bytes(message.body)))
            return
        assert self._on_loaded is not None
        self._trial = asyncio.get_running_loop().call_later(self._trial_s, self._end_trial)
        self._on_loaded()

    def _end_trial(self) -> None:
        assert self._ready is not None
        if not self._ready.done():
            self._ready.set_exception(TrialError(f"they did not end within {self._trial_s:g} s"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """The process has ended, or is about to."""
        if self._closed:
            return
        assert self._ready is not None
        if self._ready.done():
            self.close()
            self._on_end()
        else:
            # In a thread: other requests are answered while the process says why, or ends.
            failure = asyncio.get_running_loop().run_in_executor(None, _failure, self._worker)
            failure.add_done_callback(partial(_give_failure, self._ready, self._trial is not None))

    def close(self) -> None:
        """Ends the process at once. Calling it again does nothing."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.kill(wait=False)
            # In a thread: the end of a process with much memory takes a while, and others are served meanwhile.
            asyncio.get_running_loop().run_in_executor(None, _close, worker)
        if self._ready is not None and not self._ready.done():
            self._ready.cancel()


def _failure(worker: _ServeWorker | None) -> KcostError:
    """Why a model was not loaded: what its process told of it, or how it ended."""
    try:
        assert worker is not None
        worker.receive(timeout_s=5)
    except KcostError as error:
        return error
    return WorkerError("A process that serves a model loads it first.", received="it closed its socket")


def _give_failure(ready: asyncio.Future[ServedModel], in_trial: bool, failure: asyncio.Future[KcostError]) -> None:
    error = failure.exception() or failure.result()
    if not ready.done():
        received = error.received if isinstance(error, KcostError) else error
        ready.set_exception(TrialError(str(received)) if in_trial else error)


def _close(worker: _ServeWorker) -> None:
    with contextlib.suppress(OSError):
        worker.close()


def _outcome(message: Message) -> Outputs | RequestError:
    if message.kind == Kind.ERROR:
        text = bytes(message.body[1:]).decode(errors="replace")
        return RequestError(Code(message.body[0]), text)
    (run_ns,) = _RUN_NS.unpack_from(message.body)
    return Outputs(frames.decode_arrays(message.body[_RUN_NS.size :]), run_ns)

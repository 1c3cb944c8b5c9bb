"""One version of a model while it is served: its processes, the queue before them, and its state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from kcost.core.errors import KcostError, WorkerError
from kcost.core.schema import Record
from kcost.core.serving import ServedModel, ServedSignature
from kcost.serving.batching import (
    Answered,
    Queue,
    Reply,
    Waiting,
    common_length,
    common_rows,
    end_to_end,
    hand_out,
    hand_out_places,
    has_rows,
    may_lie_end_to_end,
    stacked,
)
from kcost.serving.model_process import ModelRunner, Outputs, TrialError
from kcost.serving.status import Code, RequestError, invalid, unforeseen

State = Literal["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]
"""As TensorFlow Serving calls them: tensorflow_serving/apis/get_model_status.proto."""

DEFAULT_SIGNATURE = "serving_default"
MOST_TRIES = 2
"""How often a request is run whose process ends meanwhile. A forward pass changes nothing, so that this is safe."""

STUCK = 2
"""Deadlines after which a process that is at one batch is taken for one that never ends."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_AT_ONCE = 2
"""Most batches that a process is given at a time: where much waits, the next is there when the first is done."""


class Limits(Record):
    """How much a version of a model takes upon itself."""

    processes: int = 1
    threads: int = 0
    queue: int = 1024
    batch_rows: int = 64
    deadline_s: float = 30.0
    trial_s: float = 60.0


class Lane:
    """A process of a version, and the batches that it was given."""

    def __init__(self) -> None:
        self.runner: ModelRunner | None = None
        self.given: list[list[Waiting]] = []
        self.begun_s = 0.0
        """When the first of them was begun, by the monotonic clock."""
        self.was_free = False
        """Whether the process had nothing when it was given the first of them."""


class _Packing(NamedTuple):
    """The signature by which requests of another one run whose rows lie end to end."""

    place: int
    order: tuple[str, ...]
    """Its inputs."""
    names: tuple[str, ...]
    """Those of the other one."""

    @classmethod
    def of(cls, served: ServedModel, signature: ServedSignature) -> _Packing:
        place = signature.packed or 0
        packed = served.signatures[place]
        return cls(place, tuple(t.name for t in packed.inputs), tuple(t.name for t in signature.inputs))


class ModelVersion:
    """A version of a model.

    Args:
        name: of the model.
        version: its number.
        limits: see Limits.
        new_runner: makes what runs the model, from a function that is called when it has ended by itself.
        log: told of processes that ended.
    """

    def __init__(
        self,
        name: str,
        version: int,
        limits: Limits,
        new_runner: Callable[[Callable[[], None]], ModelRunner],
        log: Callable[[str], None],
    ) -> None:
        self.name = name
        self.version = version
        self.state: State = "START"
        self.failure: KcostError | None = None
        self.untried_because: str | None = None
        """Why it is served without a trial; None where it was tried, or no trial was asked for."""
        self.trial_since_s: float | None = None
        """When the trial of a process began that is at it, by the monotonic clock."""
        self.restarts = 0
        self.hand_overs = 0
        """Batches that a free process was given, and answered."""
        self.hand_over_ns = 0
        """What these took beside the run of the model, together."""
        self.served: ServedModel | None = None
        self._limits = limits
        self._new_runner = new_runner
        self._log = log
        self._queue = Queue(limits.queue, limits.batch_rows)
        self._lanes = [Lane() for _ in range(limits.processes)]
        self._signatures: dict[str, tuple[int, ServedSignature]] = {}
        self._with_rows: set[int] = set()
        self._padding: set[int] = set()
        self._packing: dict[int, _Packing] = {}
        self._longest_run: dict[int, int] = {}
        """The place of a signature whose rows may be padded -> the longest that it has answered."""
        self._restarting: set[asyncio.Task[None]] = set()
        self._drained = asyncio.Event()
        self._pumping = False

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def rows_together(self) -> str | None:
        """How rows of several lengths run together by the default signature; None where they do not."""
        place, _ = self._signatures.get(DEFAULT_SIGNATURE, (None, None))
        if place in self._packing:
            return "rows of several lengths lie end to end"
        return "rows of several lengths are padded" if place in self._padding else None

    @property
    def signature_names(self) -> tuple[str, ...]:
        """The signatures of the model; none before it is loaded."""
        return tuple(self._signatures)

    async def load(self) -> None:
        """Starts the processes; then the version is AVAILABLE, or END with a failure. Raises nothing."""
        self.state = "LOADING"
        try:
            for lane in self._lanes:
                self.served = await self._start_for_load(lane)
        except KcostError as error:
            self.failure = error
            self._end_lanes()
            self.state = "END"
            return
        self._signatures = {s.name: (place, s) for place, s in enumerate(self.served.signatures if self.served else ())}
        self._with_rows = {place for place, signature in self._signatures.values() if has_rows(signature)}
        self._padding = {place for place, signature in self._signatures.values() if signature.pads}
        self._packing = {
            place: _Packing.of(self.served, signature)
            for place, signature in self._signatures.values()
            if signature.packed is not None and self.served is not None
        }
        self.state = "AVAILABLE"

    async def _start_for_load(self, lane: Lane) -> ServedModel:
        """Starts a process, and once more where it was killed: that says nothing of the model's files."""
        try:
            return await self._start(lane)
        except WorkerError as error:
            if error.cause != "killed":
                raise
            self._log(f"a process of {self.name} version {self.version} was killed while it loaded; it starts again")
            return await self._start(lane)

    async def _start(self, lane: Lane) -> ServedModel:
        """Starts a process. Where its trial fails, another one in its place, and all later ones, without a trial.

        The calls of a trial are nobody's request: what they do to a process says nothing of those that clients send. A
        model whose graph loads is served by TensorFlow Serving, which makes no such calls.
        """
        lane.runner = None
        if self._limits.trial_s and self.untried_because is None:
            try:
                return await self._start_once(lane, self._limits.trial_s)
            except TrialError as error:
                self.untried_because = f"the calls by which a model is tried at loading failed: {error}"
                notice = (
                    f"{self.name} version {self.version} is served without a trial, its first requests take longer: "
                )
                self._log(f"{notice}{self.untried_because}")
        return await self._start_once(lane, 0.0)

    async def _start_once(self, lane: Lane, trial_s: float) -> ServedModel:
        runner = self._new_runner(lambda: self._ended(lane))
        try:
            served = await runner.start(trial_s, self._began_trial)
        finally:
            self.trial_since_s = None
        lane.runner = runner
        return served

    def _began_trial(self) -> None:
        self.trial_since_s = time.monotonic()

    def signature(self, name: str) -> ServedSignature:
        """A signature, the default one for an empty name.

        Raises:
            RequestError: there is none of that name, or it is one that cannot be run: status 400.
        """
        named = name or DEFAULT_SIGNATURE
        if named not in self._signatures:
            raise invalid(f'Serving signature name: "{named}" not found in signature def')
        signature = self._signatures[named][1]
        if signature.refused_because is not None:
            raise RequestError(Code.UNIMPLEMENTED, f"The signature {named} cannot be run: {signature.refused_because}")
        if not signature.inputs:
            raise invalid(f"Failed to get input map for signature: {name or 'DEFAULT'}")
        return signature

    def run(self, signature: ServedSignature, arrays: list[np.ndarray]) -> asyncio.Future[Answered]:
        """As `ask`, with a future of the answer or of a RequestError."""
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self.ask(signature, arrays, future)
        return future

    def ask(self, signature: ServedSignature, arrays: list[np.ndarray], reply: Reply) -> None:
        """Queues a request.

        Args:
            signature: one of this version's.
            arrays: its inputs, in order, of its dtypes and shapes.
            reply: gets the outputs in order, or a RequestError, later; nothing where this raises.

        Raises:
            RequestError: the queue is full (429), or the version is served no more (404).
        """
        if self.state not in ("AVAILABLE", "UNLOADING"):
            raise RequestError(Code.NOT_FOUND, f"Servable not found for request: Specific({self.name}, {self.version})")
        place = self._signatures[signature.name][0]
        rows = common_rows(arrays) if place in self._with_rows else None
        deadline = time.monotonic() + self._limits.deadline_s
        length = common_length(arrays) if place in self._padding else None
        longest_run = self._longest_run.get(place, 0)
        attention_places = signature.attention_places if place in self._packing else None
        costs = (signature.step_places, longest_run, attention_places)
        self._queue.put(Waiting(place, arrays, rows, reply, deadline, length, *costs))
        self._pump_soon()

    def fail_late(self, now: float) -> None:
        """Answers the requests whose deadline has passed: status 504. To be called now and then.

        A process that is at one batch for longer than STUCK deadlines is ended, and started again: it may never come
        back, and everybody who waits for that batch has been answered.
        """
        self._queue.fail_late(now, self._late)
        for waiting in self._all_given():
            if waiting.deadline < now:
                waiting.fail(self._late())
        for lane in self._lanes:
            if lane.given and lane.runner is not None and now - lane.begun_s > STUCK * self._limits.deadline_s:
                lane.runner.close()
                self._ended(lane)
        self._pump()  # who is late is not waited for

    def _late(self) -> RequestError:
        return RequestError(Code.DEADLINE_EXCEEDED, f"The model gave no answer within {self._limits.deadline_s:g} s.")

    def _pump(self) -> None:
        """Gives waiting requests to processes that are free."""
        self._pumping = False
        for lane in self._lanes * _AT_ONCE:  # each has its first batch before one has its second
            if lane.runner is not None and self._has_room(lane) and len(self._queue):
                batch = self._queue.take()
                if not batch:
                    break
                begun_s = time.monotonic()
                try:
                    lane.runner.run(*self._step(batch), partial(self._done, lane, batch))
                except Exception as error:  # such as no memory for a large batch: nothing of it was sent
                    self._fail(batch, unforeseen(error))
                    self._pump_soon()
                    break
                if not lane.given:
                    lane.begun_s, lane.was_free = begun_s, True
                lane.given.append(batch)
        if len(self._queue) or any(not waiting.reply.done() for waiting in self._all_given()):
            self._drained.clear()
        else:
            self._drained.set()

    def _pump_soon(self) -> None:
        """Once the event loop has read what else has come: requests that come together run together."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _all_given(self) -> Iterator[Waiting]:
        for lane in self._lanes:
            for batch in lane.given:
                yield from batch

    def _fail(self, batch: list[Waiting], error: RequestError) -> None:
        """Ends a request; of several, one may be to blame: each is run again by itself, and gets its own answer."""
        if len(batch) == 1:
            batch[0].fail(error)
        else:
            for waiting in reversed(batch):
                self._queue.put_back(waiting)

    def _step(self, batch: list[Waiting]) -> tuple[int, list[np.ndarray]]:
        """The place of the signature that a batch runs by, and its inputs."""
        place = batch[0].place
        packing = self._packing_of(batch)
        if packing is None:
            return place, stacked(batch, self._longest_run.get(place, 0))
        return packing.place, end_to_end(batch, packing.order, packing.names)

    def _packing_of(self, batch: list[Waiting]) -> _Packing | None:
        """How a batch lies end to end; None where its rows are padded or of one length."""
        packing = self._packing.get(batch[0].place)
        return packing if packing is not None and may_lie_end_to_end(batch) else None

    def _has_room(self, lane: Lane) -> bool:
        """Whether a process takes a batch.

        A second one is given beforehand only where it is full, or worth a step: another grows while it waits. What is
        run again has a process to itself.
        """
        if not lane.given:
            return True
        worth = len(lane.given) < _AT_ONCE and self._queue.is_worth_a_step
        return worth and not lane.given[0][0].again and not self._queue.has_put_back

    def _done(self, lane: Lane, batch: list[Waiting], outcome: Outputs | RequestError) -> None:
        lane.given.remove(batch)
        begun_s, was_free = lane.begun_s, lane.was_free
        lane.begun_s, lane.was_free = time.monotonic(), False
        if isinstance(outcome, Outputs):
            if batch[0].length is not None:
                longest = max(waiting.length or 0 for waiting in batch)
                self._longest_run[batch[0].place] = max(longest, self._longest_run.get(batch[0].place, 0))
            if was_free:
                self.hand_overs += 1
                self.hand_over_ns += round((time.monotonic() - begun_s) * 1e9) - outcome.run_ns
            if lane.given or len(self._queue) or len(batch) > 1:
                # What processes are given leaves first: they would wait until answers are written.
                asyncio.get_running_loop().call_soon(self._give, batch, outcome)
            else:
                self._give(batch, outcome)
        else:
            self._fail(batch, outcome)
        self._pump()

    def _give(self, batch: list[Waiting], outcome: Outputs) -> None:
        """Gives each request of a batch its answer."""
        give = hand_out if self._packing_of(batch) is None else hand_out_places
        try:
            give(batch, outcome.arrays, outcome.run_ns)
        except Exception as error:  # such as outputs of another rank than at the trial
            for waiting in batch:
                waiting.fail(unforeseen(error))

    def _ended(self, lane: Lane) -> None:
        """The process of a lane has ended by itself: what it was given is run again, once, and it is started again."""
        lane.runner = None
        self.restarts += 1
        lost = [waiting for batch in lane.given for waiting in batch]
        running = lane.given[0] if lane.given else []  # one batch at a time: the next had not begun
        lane.given = []
        for waiting in lost:
            waiting.tries += waiting in running
            if waiting.tries < MOST_TRIES:
                self._queue.put_back(waiting)
            else:
                text = f"The process of the model ended {waiting.tries} times while it ran this request."
                waiting.fail(RequestError(Code.INTERNAL, text))
        task = asyncio.get_running_loop().create_task(self._restart(lane))
        self._restarting.add(task)
        task.add_done_callback(self._restarting.discard)
        self._pump()
        self._log(f"a process of {self.name} version {self.version} ended; it is started again")

    async def _restart(self, lane: Lane) -> None:
        pause_s = _FIRST_PAUSE_S
        while self.state != "END":
            try:
                await self._start(lane)
            except KcostError as error:
                self._log(f"{self.name} version {self.version} was not loaded again: {error.received}")
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                self._pump()
                return

    async def unload(self) -> None:
        """Answers what was accepted, each by its deadline, and ends the processes."""
        if self.state in ("AVAILABLE", "UNLOADING"):  # the latter where it was cancelled before
            self.state = "UNLOADING"
            self._pump()
            try:
                await asyncio.wait_for(self._drained.wait(), self._limits.deadline_s)
            except TimeoutError:
                self.fail_all(self._late)
        self._end_lanes()
        self.state = "END"

    def fail_all(self, error: Callable[[], RequestError]) -> None:
        """Ends every request that has no answer, each with an error of its own."""
        self._queue.fail_all(error)
        for waiting in self._all_given():
            waiting.fail(error())
        self._pump()

    def _end_lanes(self) -> None:
        for task in self._restarting:
            task.cancel()
        for lane in self._lanes:
            if lane.runner is not None:
                lane.runner.close()
                lane.runner = None

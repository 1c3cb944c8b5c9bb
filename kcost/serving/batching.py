"""Requests that wait for a model, and the batches that are made of them.

A batch is what waits when the model is free: no request waits for others to come. Only requests of the same signature
whose arrays differ in nothing but the number of rows are put together. Where the model has shown at loading that zeros
behind a row change none of its answers, rows of several lengths are put together, too: those that make the steps of
what waits cheapest together. They lie end to end where the model has a signature for that, and are padded to the
longest elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from kcost.core.conversion import ROW_LENGTHS
from kcost.core.serving import ServedSignature
from kcost.core.unforeseen import logged
from kcost.serving.status import Code, RequestError

LENGTH_STEP = 8
"""Rows are padded to a multiple of it: a new shape has to be prepared, which takes as long as a step."""

PLACES_STEP = 16
"""Rows that lie end to end are filled up to a multiple of it, for the same reason."""

WORTH_STEPS = 2
"""A batch that is given to the model before it is free does not grow any more. With so many times the places of a step,
a third of its cost is the step's own; a batch of as many places as a step costs would pay half for it. With 4 in the
place of 2 a tagger waited for the server between its steps, and answered fewer requests."""

MOST_PAIRS = 1 << 22
"""Rows of several lengths lie end to end only where lines as long as the longest have at most so many places that look
at another: 64 rows of 256, or 16 of 512. It bounds the memory of attention, whatever it was timed to cost."""

_LOOKED_AT = 2
"""How many batches of the oldest requests lengths are chosen among: a longer queue makes no choice slower."""


class Answered(NamedTuple):
    """What a request gets."""

    arrays: list[np.ndarray]
    run_ns: int
    """Of the whole batch."""
    batch_rows: int


class Reply(Protocol):
    """Takes the answer to a request, or why there is none, once. A future of asyncio is one."""

    def done(self) -> bool:
        """Whether it has the one or the other, or nobody waits for it any more."""

    def set_result(self, answered: Answered, /) -> None:
        """Takes the answer."""

    def set_exception(self, error: Exception, /) -> None:
        """Takes why there is none."""


class CallbackReply:
    """A reply that is given to a function at once: a future wakes who waits for it by another turn of the event loop.

    Args:
        end: called once, with the answer or with why there is none. What it raises is logged: others wait for theirs.
    """

    def __init__(self, end: Callable[[Answered | Exception], None]) -> None:
        self._end: Callable[[Answered | Exception], None] | None = end

    def done(self) -> bool:
        """See Reply."""
        return self._end is None

    def set_result(self, answered: Answered, /) -> None:
        """See Reply."""
        self._give(answered)

    def set_exception(self, error: Exception, /) -> None:
        """See Reply."""
        self._give(error)

    def _give(self, outcome: Answered | Exception) -> None:
        end, self._end = self._end, None  # a queue may keep this for long, and need not keep the request
        assert end is not None
        try:
            end(outcome)
        except Exception as error:
            logged(error)


class Waiting:
    """A request in the queue.

    Args:
        reply: gets its answer or its error, once.
        longest_run: the longest rows that the model has answered; None where it takes rows of any length.
    """

    __slots__ = (
        *("again", "arrays", "attention_places", "deadline", "key", "length", "place", "reply", "rows"),
        *("step_places", "tries"),
    )

    def __init__(
        self,
        place: int,
        arrays: list[np.ndarray],
        rows: int | None,
        reply: Reply,
        deadline: float,
        length: int | None = None,
        step_places: int = 0,
        longest_run: int | None = None,
        attention_places: float | None = None,
    ) -> None:
        self.place = place
        self.arrays = arrays
        self.rows = rows
        self.length = length
        """Of its rows, where they may be padded."""
        self.step_places = step_places
        """How many places of rows a step costs by itself, where they may be padded."""
        self.attention_places = attention_places
        """See ServedSignature, where rows lie end to end; None where they are padded."""
        self.reply = reply
        self.deadline = deadline
        self.tries = 0
        self.again = False
        self.key: Hashable = (place, id(self))
        if rows is not None and length is not None:
            # Rows longer than any that the model has answered may be too long for it: only their like is spoilt then.
            is_tried = longest_run is None or length <= longest_run
            self.key = (place, "padded") if is_tried else (place, "padded", _whole_steps(length))
        elif rows is not None:
            self.key = (place, tuple(array.shape[1:] for array in arrays))

    def fail(self, error: RequestError) -> None:
        """Ends the request, unless it has ended."""
        if not self.reply.done():
            self.reply.set_exception(error)


def has_rows(signature: ServedSignature) -> bool:
    """Whether requests of a signature can be put together: it has a free first axis of every input and output.

    Rows that lie end to end in a request are told apart by their lengths, which are of that request's places.
    """
    if any(tensor.name == ROW_LENGTHS for tensor in signature.inputs):
        return False
    return signature.alone_because is None and all(
        tensor.shape and tensor.shape[0] is None for tensor in (*signature.inputs, *signature.outputs)
    )


def common_rows(arrays: list[np.ndarray]) -> int | None:
    """The rows of a request; None where its inputs have several numbers of them, so that it runs alone."""
    rows = len(arrays[0])
    return rows if len(arrays) == 1 or all(len(array) == rows for array in arrays) else None


def common_length(arrays: list[np.ndarray]) -> int | None:
    """The length of a request's rows; None where its inputs have several."""
    shapes = {array.shape for array in arrays}
    return arrays[0].shape[1] if len(shapes) == 1 else None


class Queue:
    """Requests by what they can be put together with; the groups take turns.

    Args:
        most: waiting requests; one more is refused with status 429.
        most_rows: of a batch; a request with more runs alone.
    """

    def __init__(self, most: int, most_rows: int) -> None:
        self._most = most
        self._most_rows = most_rows
        self._groups: dict[Hashable, deque[Waiting]] = {}
        self._alone: deque[Waiting] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, waiting: Waiting) -> None:
        """Raises RequestError, status 429, where the queue is full."""
        if self._count >= self._most:
            text = f"The queue of the model is full: {self._most} requests are waiting. Try later."
            raise RequestError(Code.RESOURCE_EXHAUSTED, text, headers=((b"retry-after", b"1"),))
        self._count += 1
        self._groups.setdefault(waiting.key, deque()).append(waiting)

    def put_back(self, waiting: Waiting) -> None:
        """Takes a request again whose process ended: in front of all others, and in a batch of its own.

        Were it the one that ended the process, it would take no other with it the second time. One that has its answer,
        such as that it is late, is left out.
        """
        if not waiting.reply.done():
            self._count += 1
            waiting.again = True
            self._alone.append(waiting)

    @property
    def has_put_back(self) -> bool:
        """Whether something waits that is run again."""
        return bool(self._alone)

    def take(self) -> list[Waiting]:
        """The next batch; empty where nothing waits. Requests that have ended meanwhile are left out."""
        while self._alone:
            waiting = self._alone.popleft()
            self._count -= 1
            if not waiting.reply.done():
                return [waiting]
        while self._groups:
            key = next(iter(self._groups))  # a dict keeps its order: the group whose turn it is
            group = self._groups.pop(key)
            batch = self._take_from(group)
            if group:
                self._groups[key] = group
            if batch:
                return batch
        return []

    @property
    def is_worth_a_step(self) -> bool:
        """Whether a batch of what waits is not to grow further, since a step by itself costs little beside its rows.

        So it is where the rows fill a batch, or have WORTH_STEPS times as many places as a step costs.
        """
        if self._count >= self._most_rows:
            return True
        for group in self._groups.values():
            if group[0].length is None:  # of requests that are not padded it is not known
                continue
            left = WORTH_STEPS * group[0].step_places
            for waiting in group:
                left -= (waiting.rows or 0) * (waiting.length or 0)
                if left <= 0:
                    return True
        return False

    def _take_from(self, group: deque[Waiting]) -> list[Waiting]:
        batch: list[Waiting] = []
        rows = 0
        if group[0].length is not None:
            return self._take_of_like_length(group)
        while group:
            waiting = group[0]
            if batch and rows + (waiting.rows or 0) > self._most_rows:
                break
            group.popleft()
            self._count -= 1
            if not waiting.reply.done():
                batch.append(waiting)
                rows += waiting.rows or 0
        return batch

    def _take_of_like_length(self, group: deque[Waiting]) -> list[Waiting]:
        """The oldest request, and those that are best padded together with it; the others stay in their order."""
        looked_at: list[Waiting] = []
        while group and len(looked_at) < _LOOKED_AT * self._most_rows:
            waiting = group.popleft()
            if waiting.reply.done():
                self._count -= 1
            else:
                looked_at.append(waiting)
        if not looked_at:
            return []
        shortest, longest = lengths_together(looked_at)
        batch: list[Waiting] = []
        left: list[Waiting] = []
        rows = 0
        for waiting in looked_at:
            own, length = waiting.rows or 0, waiting.length or 0
            if shortest <= length <= longest and (not batch or rows + own <= self._most_rows):
                batch.append(waiting)
                rows += own
            else:
                left.append(waiting)
        self._count -= len(batch)
        group.extendleft(reversed(left))
        return batch

    def fail_all(self, error: Callable[[], RequestError]) -> None:
        """Ends every request that waits, each with an error of its own."""
        for waiting in self._all():
            waiting.fail(error())
        self._groups.clear()
        self._alone.clear()
        self._count = 0

    def fail_late(self, now: float, error: Callable[[], RequestError]) -> None:
        """Ends the requests whose deadline has passed."""
        for waiting in self._all():
            if waiting.deadline < now:
                waiting.fail(error())

    def _all(self) -> Iterator[Waiting]:
        yield from self._alone
        for group in self._groups.values():
            yield from group


def lengths_together(waiting: Sequence[Waiting]) -> tuple[int, int]:
    """The shortest and the longest rows that run together with the first request.

    Sorted by length, requests are cut where the steps that come of it are the cheapest together. A step costs the
    places of its rows and half of what it costs by itself: those that are left for later run together with others that
    come meanwhile. Padded rows are each as long as the longest of them. Rows that lie end to end are as long as they
    are, and attention looks from each place of a line as long as the longest at each other.

    Args:
        waiting: requests that may be padded, at least one.
    """
    step_places, attention_places = waiting[0].step_places // 2, waiting[0].attention_places
    rows_of: dict[int, int] = {}
    places_of: dict[int, int] = {}
    for one in waiting:
        length = _whole_steps(one.length or 0)
        rows_of[length] = rows_of.get(length, 0) + (one.rows or 0)
        places_of[length] = places_of.get(length, 0) + (one.rows or 0) * (one.length or 0)
    lengths = sorted(rows_of)
    costs, begins = [0.0], []  # the cheapest steps for the shortest of all lengths, and where the last of them begins
    for end, longest in enumerate(lengths):
        rows, places, cheapest, begin = 0, 0, float("inf"), 0
        for start in range(end, -1, -1):
            rows += rows_of[lengths[start]]
            places += places_of[lengths[start]]
            computed: float = rows * longest
            if attention_places is not None:
                computed = places + attention_places * rows * longest**2
            cost = costs[start] + step_places + computed
            if start < end and rows * longest**2 > MOST_PAIRS and attention_places is not None:
                break  # with shorter ones beside it still more
            if cost < cheapest:
                cheapest, begin = cost, start
        costs.append(cheapest)
        begins.append(begin)
    end = len(lengths)
    while lengths[begins[end - 1]] > _whole_steps(waiting[0].length or 0):
        end = begins[end - 1]
    return lengths[begins[end - 1]] - LENGTH_STEP + 1, lengths[end - 1]


def stacked(batch: list[Waiting], longest_run: int = 0) -> list[np.ndarray]:
    """The inputs of a batch, one under the other.

    Args:
        batch: at least one request.
        longest_run: the longest rows that the model has answered: where they may be padded, rows are padded to a
            multiple of LENGTH_STEP, but beyond the longest of the batch no further than this, since a model may have a
            longest row that its signature does not tell.
    """
    lengths = [waiting.length for waiting in batch if waiting.length is not None]
    columns = zip(*(waiting.arrays for waiting in batch), strict=True)
    if lengths:
        longest = max(lengths)
        length = max(longest, min(_whole_steps(longest), longest_run))
        return [_padded(column, length) for column in columns]
    if len(batch) == 1:
        return batch[0].arrays
    return [np.concatenate(column) for column in columns]


def end_to_end(batch: Sequence[Waiting], order: Sequence[str], names: Sequence[str]) -> list[np.ndarray]:
    """The inputs of a batch as `serving_packed` takes them: see PACKED_SIGNATURE.

    Args:
        batch: see `may_lie_end_to_end`.
        order: the inputs of that signature.
        names: the inputs that the requests' arrays are of, in their order.
    """
    lengths = [waiting.length or 0 for waiting in batch for _ in range(waiting.rows or 0)]
    places = sum(lengths)
    behind = -places % PLACES_STEP
    columns = {}
    for i, name in enumerate(names):
        pieces = [waiting.arrays[i].reshape(-1) for waiting in batch]
        columns[name] = np.concatenate([*pieces, np.zeros(behind, pieces[0].dtype)])
    columns[ROW_LENGTHS] = np.asarray(lengths, np.int32)
    return [columns[name] for name in order]


def may_lie_end_to_end(batch: Sequence[Waiting]) -> bool:
    """Whether a batch has several requests, and places in one: a request alone has nothing beside it."""
    return len(batch) > 1 and any(waiting.rows and waiting.length for waiting in batch)


def _whole_steps(length: int) -> int:
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def _padded(arrays: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Rows of several lengths as one array, with zeros behind those that are shorter."""
    if len(arrays) == 1 and arrays[0].shape[1] == length:
        return arrays[0]
    whole = np.zeros((sum(len(array) for array in arrays), length), arrays[0].dtype)
    at = 0
    for array in arrays:
        rows, own = array.shape
        whole[at : at + rows, :own] = array
        at += rows
    return whole


def hand_out_places(batch: Sequence[Waiting], arrays: Sequence[np.ndarray], run_ns: int) -> None:
    """As `hand_out`, of rows that lay end to end."""
    rows = sum(waiting.rows or 0 for waiting in batch)
    counts = [(waiting.rows or 0) * (waiting.length or 0) for waiting in batch]
    if any(array.ndim == 0 or len(array) < sum(counts) for array in arrays):
        _fail_untold(batch, arrays, f"{sum(counts)} places")
        return
    at = 0
    for waiting, count in zip(batch, counts, strict=True):
        end = at + count
        if not waiting.reply.done():
            axes = (waiting.rows or 0, waiting.length or 0)
            own = [array[at:end].reshape(*axes, *array.shape[1:]) for array in arrays]
            waiting.reply.set_result(Answered(own, run_ns, rows))
        at = end


def hand_out(batch: list[Waiting], arrays: list[np.ndarray], run_ns: int) -> None:
    """Gives each request its rows of the outputs; an error where these are not as many as those of the inputs."""
    if len(batch) == 1 and batch[0].length is None:
        if not batch[0].reply.done():
            batch[0].reply.set_result(Answered(arrays, run_ns, batch[0].rows or 1))
        return
    rows = sum(waiting.rows or 0 for waiting in batch)
    if any(array.ndim == 0 or len(array) != rows for array in arrays):
        _fail_untold(batch, arrays, f"{rows} rows")
        return
    at = 0
    for waiting in batch:
        end = at + (waiting.rows or 0)
        if not waiting.reply.done():
            length = waiting.length
            own = [array[at:end] if length is None else array[at:end, :length] for array in arrays]
            waiting.reply.set_result(Answered(own, run_ns, rows))
        at = end


def _fail_untold(batch: Sequence[Waiting], arrays: Sequence[np.ndarray], given: str) -> None:
    shapes = ", ".join(str(array.shape) for array in arrays)
    text = f"The model gave outputs of the shapes {shapes} for {given}, which cannot be told apart."
    for waiting in batch:
        waiting.fail(RequestError(Code.INTERNAL, text))

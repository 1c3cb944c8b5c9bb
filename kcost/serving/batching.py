"""Requests that wait for a model, and the batches that are made of them.

A batch is what waits when the model is free: no request waits for others to come. Only requests of the same signature
whose arrays differ in nothing but the number of rows are put together. Where the model has shown at loading that zeros
behind a row change none of its answers, rows of about the same length are put together, too, and padded to the longest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

import numpy as np

from kcost.core.serving import ServedSignature
from kcost.serving.status import Code, RequestError

LENGTHS_TOGETHER = 16
"""Rows of 1 to 16 word pieces are put together, those of 17 to 32, and so on: one of them is padded by 15 at most."""


class Answered(NamedTuple):
    """What a request gets."""

    arrays: list[np.ndarray]
    run_ns: int
    """Of the whole batch."""
    batch_rows: int


class Waiting:
    """A request in the queue. `future` gets its answer or its error, once."""

    __slots__ = ("again", "arrays", "deadline", "future", "key", "length", "place", "rows", "tries")

    def __init__(
        self,
        place: int,
        arrays: list[np.ndarray],
        rows: int | None,
        future: asyncio.Future[Answered],
        deadline: float,
        length: int | None = None,
    ) -> None:
        self.place = place
        self.arrays = arrays
        self.rows = rows
        self.length = length
        """Of its rows, where they may be padded."""
        self.future = future
        self.deadline = deadline
        self.tries = 0
        self.again = False
        self.key: Hashable = (place, id(self))
        if rows is not None and length is not None:
            self.key = (place, -(-length // LENGTHS_TOGETHER))
        elif rows is not None:
            self.key = (place, tuple(array.shape[1:] for array in arrays))

    def fail(self, error: RequestError) -> None:
        """Ends the request, unless it has ended."""
        if not self.future.done():
            self.future.set_exception(error)


def has_rows(signature: ServedSignature) -> bool:
    """Whether requests of a signature can be put together: it has a free first axis of every input and output."""
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

        Were it the one that ended the process, it would take no other with it the second time.
        """
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
            if not waiting.future.done():
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

    def _take_from(self, group: deque[Waiting]) -> list[Waiting]:
        batch: list[Waiting] = []
        rows = 0
        while group:
            waiting = group[0]
            if batch and rows + (waiting.rows or 0) > self._most_rows:
                break
            group.popleft()
            self._count -= 1
            if not waiting.future.done():
                batch.append(waiting)
                rows += waiting.rows or 0
        return batch

    def fail_all(self, error: RequestError) -> None:
        """Ends every request that waits."""
        for waiting in self._all():
            waiting.fail(error)
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


def stacked(batch: list[Waiting]) -> list[np.ndarray]:
    """The inputs of a batch, one under the other."""
    if len(batch) == 1:
        return batch[0].arrays
    columns = zip(*(waiting.arrays for waiting in batch), strict=True)
    longest = _longest(batch)
    if longest is None:
        return [np.concatenate(column) for column in columns]
    return [np.concatenate([_padded(array, longest) for array in column]) for column in columns]


def _longest(batch: list[Waiting]) -> int | None:
    """The length that rows are padded to; None where all are as long."""
    lengths = {waiting.length for waiting in batch if waiting.length is not None}
    return max(lengths) if len(lengths) > 1 else None


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    if array.shape[1] == length:
        return array
    whole = np.zeros((len(array), length), array.dtype)
    whole[:, : array.shape[1]] = array
    return whole


def hand_out(batch: list[Waiting], arrays: list[np.ndarray], run_ns: int) -> None:
    """Gives each request its rows of the outputs; an error where these are not as many as those of the inputs."""
    if len(batch) == 1:
        if not batch[0].future.done():
            batch[0].future.set_result(Answered(arrays, run_ns, batch[0].rows or 1))
        return
    rows = sum(waiting.rows or 0 for waiting in batch)
    if any(array.ndim == 0 or len(array) != rows for array in arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        error = RequestError(
            Code.INTERNAL, f"The model gave outputs of the shapes {shapes} for {rows} rows, which cannot be told apart."
        )
        for waiting in batch:
            waiting.fail(error)
        return
    at, was_padded = 0, _longest(batch) is not None
    for waiting in batch:
        end = at + (waiting.rows or 0)
        if not waiting.future.done():
            own = [array[at:end, : waiting.length] if was_padded else array[at:end] for array in arrays]
            waiting.future.set_result(Answered(own, run_ns, rows))
        at = end

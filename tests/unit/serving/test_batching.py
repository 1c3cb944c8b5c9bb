"""Which rows run together: the oldest request, and those that make the steps of what waits cheapest."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.serving.batching import (
    LENGTH_STEP,
    PLACES_STEP,
    Answered,
    Queue,
    Waiting,
    end_to_end,
    hand_out_places,
    has_rows,
    lengths_together,
    may_lie_end_to_end,
    stacked,
)
from kcost.serving.status import RequestError
from tests.unit.serving.fakes import signature, tensor


def future_of(waiting: Waiting) -> asyncio.Future[Answered]:
    assert isinstance(waiting.reply, asyncio.Future)
    return waiting.reply


def waiting(lengths: list[int], step_places: int, loop: asyncio.AbstractEventLoop) -> list[Waiting]:
    return [
        Waiting(0, [np.ones((1, n), np.int32)], 1, loop.create_future(), 1e9, n, step_places=step_places)
        for n in lengths
    ]


def in_steps(lengths: list[int]) -> list[int]:
    return [-(-n // LENGTH_STEP) * LENGTH_STEP for n in lengths]


def least_cost(lengths: list[int], step_places: int) -> int:
    """Of all ways to cut sorted lengths, by trying them; lengths count in whole steps of LENGTH_STEP."""
    ordered, least = sorted(in_steps(lengths)), None
    for cuts in itertools.product((False, True), repeat=len(ordered) - 1):
        places = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(ordered)]
        cost = sum(step_places + (b - a) * ordered[b - 1] for a, b in itertools.pairwise(places))
        least = cost if least is None else min(least, cost)
    return least or 0


@pytest.mark.parametrize("step_places", [0, 1, 30, 10_000])
def test_the_steps_cost_the_least_that_there_is(step_places: int) -> None:
    # Half of a step counts: what is left for later runs together with others.
    loop = asyncio.new_event_loop()
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(1, 65, 9).tolist()
        queue = Queue(100, 64)
        for one in waiting(lengths, step_places, loop):
            queue.put(one)
        cost, oldest = 0, []
        while batch := queue.take():
            own = [one.length or 0 for one in batch]
            oldest.append(own[0])
            cost += step_places // 2 + len(own) * max(in_steps(own))
        assert cost == least_cost(lengths, step_places // 2)
        assert oldest[0] == lengths[0]  # the oldest request is in the first step
        assert len(queue) == 0
    loop.close()


def test_a_batch_holds_its_most_rows_and_leaves_the_others_in_order() -> None:
    loop = asyncio.new_event_loop()
    requests = waiting([5, 60, 6, 5, 61, 6], 20, loop)
    queue = Queue(100, 3)
    for one in requests:
        queue.put(one)
    future_of(requests[2]).cancel()
    batches = [[one.length for one in queue.take()] for _ in range(3)]
    assert batches == [[5, 5, 6], [60, 61], []]
    assert len(queue) == 0
    loop.close()


def test_of_a_long_queue_the_oldest_are_looked_at() -> None:
    loop = asyncio.new_event_loop()
    requests = waiting([9, 9, 9, 9, 1, 9], 0, loop)
    assert lengths_together(requests) == (9, 16)
    queue = Queue(100, 2)
    for one in requests:
        queue.put(one)
    assert [len(queue.take()) for _ in range(4)] == [2, 2, 1, 1]
    loop.close()


def test_lengths_are_whole_steps_where_the_model_has_answered_such_rows() -> None:
    loop = asyncio.new_event_loop()
    requests = waiting([5, 11], 20, loop)
    assert [stacked(requests, longest)[0].shape[1] for longest in (0, 11, 14, 16, 90)] == [11, 11, 14, 16, 16]
    alone = waiting([16], 20, loop)
    assert stacked(alone, 90)[0] is alone[0].arrays[0]  # nothing is copied
    np.testing.assert_array_equal(stacked(requests, 90)[0], [[1] * 5 + [0] * 11, [1] * 11 + [0] * 5])
    loop.close()


@pytest.mark.parametrize(("step_places", "is_worth"), [(0, True), (15, True), (16, False), (1000, False)])
def test_a_batch_is_worth_a_step_that_costs_half_of_its_places(step_places: int, is_worth: bool) -> None:
    loop = asyncio.new_event_loop()
    queue = Queue(100, 64)
    assert not queue.is_worth_a_step
    for one in waiting([30], step_places, loop):
        queue.put(one)
    assert queue.is_worth_a_step == is_worth
    loop.close()


@pytest.mark.parametrize(
    ("attention_places", "together"),
    [(0.0, (1, 72)), (1e-4, (1, 72)), (1e-3, (1, 16)), (None, (1, 16))],
)
def test_rows_end_to_end_run_with_longer_ones_unless_attention_is_dear(
    attention_places: float | None, together: tuple[int, int]
) -> None:
    """Padded, five of 9 pieces beside one of 70 cost 6 x 72 places; end to end 115, and attention of lines of 72."""
    loop = asyncio.new_event_loop()
    requests = [
        Waiting(0, [], 1, loop.create_future(), 1e9, n, step_places=40, attention_places=attention_places)
        for n in (9, 9, 70, 9, 9, 9)
    ]
    shortest, longest = lengths_together(requests)
    assert (shortest <= 9, longest) == (True, together[1])
    loop.close()


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 20)), min_size=2, max_size=6))
def test_rows_lie_end_to_end_and_come_apart(shapes: list[tuple[int, int]]) -> None:
    loop = asyncio.new_event_loop()
    random = np.random.default_rng(0)
    batch = []
    for rows, length in shapes:
        arrays = [random.integers(1, 99, (rows, length)).astype(np.int32) for _ in range(2)]
        batch.append(Waiting(0, arrays, rows, loop.create_future(), 1e9, length))
    assert may_lie_end_to_end(batch)
    ids, lengths, mask = end_to_end(batch, ("ids", "row_lengths", "mask"), ("ids", "mask"))
    assert lengths.tolist() == [length for rows, length in shapes for _ in range(rows)]
    assert ids.shape == mask.shape
    assert len(ids) % PLACES_STEP == 0
    assert 0 <= len(ids) - sum(lengths) < PLACES_STEP
    assert {array.dtype for array in (ids, lengths, mask)} == {np.dtype(np.int32)}
    hand_out_places(batch, [ids * 2, np.stack([mask, mask], -1)], 5)
    for waiting in batch:
        doubled, paired = future_of(waiting).result().arrays
        np.testing.assert_array_equal(doubled, waiting.arrays[0] * 2)
        np.testing.assert_array_equal(paired[..., 1], waiting.arrays[1])
        assert future_of(waiting).result().batch_rows == sum(rows for rows, _ in shapes)
    loop.close()


def test_what_has_no_places_or_nothing_beside_it_does_not_lie_end_to_end() -> None:
    loop = asyncio.new_event_loop()

    def one(rows: int, length: int) -> Waiting:
        return Waiting(0, [np.zeros((rows, length), np.int32)], rows, loop.create_future(), 1e9, length)

    assert not may_lie_end_to_end([one(2, 3)])
    assert not may_lie_end_to_end([one(2, 0), one(0, 3)])
    batch = [one(2, 3), one(0, 3), one(2, 0)]
    assert may_lie_end_to_end(batch)
    ids, lengths = end_to_end(batch, ("ids", "row_lengths"), ("ids",))
    assert lengths.tolist() == [3, 3, 0, 0]
    hand_out_places(batch, [ids], 5)
    assert [future_of(waiting).result().arrays[0].shape for waiting in batch] == [(2, 3), (0, 3), (2, 0)]
    loop.close()


def test_a_long_row_runs_without_short_ones_beside_it_whatever_attention_was_timed_to_cost() -> None:
    loop = asyncio.new_event_loop()
    lengths = [9] * 63 + [4096]
    requests = [
        Waiting(0, [], 1, loop.create_future(), 1e9, n, step_places=10_000, attention_places=0.0) for n in lengths
    ]
    assert lengths_together(requests)[1] == 16
    assert lengths_together(requests[::-1]) == (4089, 4096)
    loop.close()


def test_requests_that_lie_end_to_end_themselves_are_not_put_together() -> None:
    """Their rows are told apart by lengths of their own places."""
    ids, lengths = tensor("ids", (None,), "int32"), tensor("row_lengths", (None,), "int32")
    answer = tensor("y", (None,))
    assert has_rows(signature("lines", (ids,), (answer,)))
    assert not has_rows(signature("serving_packed", (ids, lengths), (answer,)))


def test_too_few_answers_fail_all_who_wait() -> None:
    loop = asyncio.new_event_loop()
    batch = [Waiting(0, [np.ones((1, n), np.int32)], 1, loop.create_future(), 1e9, n) for n in (3, 4)]
    hand_out_places(batch, [np.zeros((6, 2))], 5)
    for waiting in batch:
        error = future_of(waiting).exception()
        assert isinstance(error, RequestError)
        assert "(6, 2) for 7 places" in str(error)
    loop.close()

"""Queue, batches, retries, deadlines and the end of a version, with a runner that the test holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from kcost.core.serving import ServedModel
from kcost.serving.batching import Answered, CallbackReply
from kcost.serving.model_process import Done, Outputs
from kcost.serving.model_version import Limits, ModelVersion
from kcost.serving.status import Code, RequestError
from tests.unit.serving.fakes import MODEL, FakeRunner, signature, tensor, write_versions

Steps = Callable[[ModelVersion, list[FakeRunner]], Awaitable[None]]


def with_version(tmp_path: Path, steps: Steps, kind: type[FakeRunner] = FakeRunner, **limits: float) -> None:
    async def run() -> None:
        runners: list[FakeRunner] = []

        def new_runner(on_end: Callable[[], None]) -> FakeRunner:
            runners.append(kind(folder, on_end, by_itself=False))
            return runners[-1]

        version = ModelVersion("m", 1, Limits.model_validate(limits), new_runner, lambda _: None)
        await version.load()
        assert version.state == "AVAILABLE"
        await steps(version, runners)

    folder = write_versions(tmp_path / "m", 1) / "1"
    asyncio.run(run())


def rows(*numbers: float, width: int = 1) -> list[np.ndarray]:
    return [np.repeat(np.array(numbers, np.float32)[:, None], width, 1)]


def put(version: ModelVersion, arrays: list[np.ndarray], name: str = "serving_default") -> asyncio.Future[Answered]:
    return version.run(version.signature(name), arrays)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_waits_is_put_together_and_taken_apart(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(0, 0.5))]
        await settled()
        futures += [put(version, rows(i, i + 0.5)) for i in range(1, 6)]
        await settled()
        assert [len(run[0]) for run in runners[0].runs] == [2]  # the others wait together
        runners[0].answer()
        assert [len(run[0]) for run in runners[0].runs] == [2, 10]
        runners[0].answer()
        await settled()
        for i, future in enumerate(futures):
            answered = future.result()
            np.testing.assert_array_equal(answered.arrays[0], [[2 * i], [2 * i + 1]])
            assert answered.batch_rows == (10 if i else 2)
        assert version.waiting == 0

    with_version(tmp_path, steps)


def test_rows_of_several_lengths_are_padded_where_that_is_cheapest_and_cut_again(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        # Two rows each: 3 to 6 pieces run together, 14 more places and one step; 30 beside them would cost 184 places.
        lengths = [3, 5, 30, 6, 31, 5]
        futures = [put(version, rows(i, i + 0.5, width=n), "pads") for i, n in enumerate(lengths, 1)]
        await settled()
        assert [run[0].shape for run in runners[0].runs] == [(8, 6), (4, 31)]  # the second lies ready
        assert runners[0].runs[0][0][:2].tolist() == [[1] * 3 + [0] * 3, [1.5] * 3 + [0] * 3]
        runners[0].answer()
        runners[0].answer()
        assert len(runners[0].runs) == 2
        await settled()
        for i, (length, future) in enumerate(zip(lengths, futures, strict=True), 1):
            np.testing.assert_array_equal(future.result().arrays[0], [[2.0 * i] * length, [2.0 * i + 1] * length])
        # Longer rows were answered by now: these are padded to a whole step.
        later = [put(version, rows(1, width=5), "pads") for _ in range(2)]
        await settled()
        assert runners[0].runs[-1][0].shape == (2, 8)
        runners[0].answer()
        assert runners[0].runs[-1][0].shape == (2, 8)
        runners[0].answer()
        await settled()
        assert [future.result().arrays[0].shape for future in later] == [(1, 5), (1, 5)]

    with_version(tmp_path, steps)


class PackingRunner(FakeRunner):
    """Of two signatures: rows that may be padded, and the same end to end, at place 1."""

    async def start(self, trial_s: float, on_loaded: Callable[[], None]) -> ServedModel:
        await super().start(trial_s, on_loaded)
        x, y = tensor("x", (None,)), tensor("y", (None,))
        where = tensor("row_lengths", (None,), "int32")
        padded = next(s for s in MODEL.signatures if s.name == "pads").model_copy(update={"packed": 1})
        return MODEL.model_copy(update={"signatures": (padded, signature("serving_packed", (where, x), (y,)))})

    def answer(self, error: RequestError | None = None) -> None:
        _, arrays, done = self.given.pop(0)
        done(error or Outputs([arrays[-1] * 2], 1000))


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({}, None),
        ({"pads": True}, "rows of several lengths are padded"),
        ({"pads": True, "packed": 1}, "rows of several lengths lie end to end"),
    ],
)
def test_a_version_says_how_rows_of_several_lengths_run_together(
    tmp_path: Path, update: dict[str, object], said: str | None
) -> None:
    class Runner(PackingRunner):
        async def start(self, trial_s: float, on_loaded: Callable[[], None]) -> ServedModel:
            served = await super().start(trial_s, on_loaded)
            default = MODEL.signatures[0].model_copy(update=update)
            return served.model_copy(update={"signatures": (default, served.signatures[1])})

    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        assert version.rows_together == said

    with_version(tmp_path, steps, Runner)


def test_rows_of_several_lengths_lie_end_to_end_where_the_model_takes_them(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        (runner,) = runners
        put(version, rows(9, width=30), "pads")  # it has answered rows as long, then
        await settled()
        runner.answer()
        futures = [put(version, rows(i, i + 0.5, width=n), "pads") for i, n in enumerate((3, 5, 30), 1)]
        await settled()
        # Padded, the third would run by itself: see the test above.
        (place, (lengths, x), _) = runner.given[0]
        assert (place, lengths.tolist()) == (1, [3, 3, 5, 5, 30, 30])
        assert x.tolist() == [1] * 3 + [1.5] * 3 + [2] * 5 + [2.5] * 5 + [3] * 30 + [3.5] * 30 + [0] * 4
        runner.answer()
        await settled()
        for i, (length, future) in enumerate(zip((3, 5, 30), futures, strict=True), 1):
            np.testing.assert_array_equal(future.result().arrays[0], [[2.0 * i] * length, [2.0 * i + 1] * length])
            assert future.result().batch_rows == 6
        alone = put(version, rows(1, width=5), "pads")
        await settled()
        assert (runner.given[0][0], runner.given[0][1][0].shape) == (0, (1, 8)), "nothing beside it"
        runner.answer()
        assert alone.result().arrays[0].shape == (1, 5)

    with_version(tmp_path, steps, PackingRunner)


def test_rows_end_to_end_that_fail_run_again_each_by_itself(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        (runner,) = runners
        futures = [put(version, rows(i, width=n), "pads") for i, n in enumerate((3, 5), 1)]
        await settled()
        assert runner.given[0][0] == 1
        runner.answer(RequestError(Code.INVALID_ARGUMENT, "one of them is too long"))
        assert [given[0] for given in runner.given] == [0], "by the signature that it was sent to"
        runner.answer()
        runner.answer(RequestError(Code.INVALID_ARGUMENT, "too long"))
        await settled()
        assert futures[1].result().arrays[0].tolist() == [[4] * 5]
        assert isinstance(futures[0].exception(), RequestError)

    with_version(tmp_path, steps, PackingRunner)


def test_rows_longer_than_any_that_was_answered_spoil_no_others(tmp_path: Path) -> None:
    """A model may have a longest row that its signature does not tell: a batch with a longer one would run twice."""

    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        async def shapes(*widths: int, error: RequestError | None = None) -> list[tuple[int, ...]]:
            before = len(runners[0].runs)
            futures = [put(version, rows(1, width=width), "pads") for width in widths]
            await settled()
            while not all(future.done() for future in futures):
                runners[0].answer(error if runners[0].given[0][1][0].shape[1] > 16 else None)
                await settled()
            assert [future.exception() for future in futures] == [error if width > 16 else None for width in widths]
            return [run[0].shape for run in runners[0].runs[before:]]

        assert await shapes(9) == [(1, 9)]
        # Together, 9 and 17 cost fewer places than two steps.
        assert await shapes(9, 17, error=RequestError(Code.INVALID_ARGUMENT, "too long")) == [(1, 9), (1, 17)]
        assert await shapes(9, 17) == [(1, 9), (1, 17)]
        assert await shapes(9, 17) == [(2, 17)]  # it has answered such rows

    with_version(tmp_path, steps)


def test_a_batch_lies_ready_where_it_is_worth_a_step(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        put(version, rows(0, width=30), "pads")
        await settled()
        for i in range(4):
            put(version, rows(i, width=9), "pads")
        await settled()
        assert len(runners[0].runs) == 1  # 36 places wait, two steps cost 40: more may come
        put(version, rows(4, width=9), "pads")
        await settled()
        assert [run[0].shape for run in runners[0].runs] == [(1, 30), (5, 9)]
        for i in range(5):
            put(version, rows(i, width=9), "pads")
        await settled()
        assert len(runners[0].runs) == 2  # two at a time
        runners[0].answer()
        assert [run[0].shape for run in runners[0].runs] == [(1, 30), (5, 9), (5, 16)]

    with_version(tmp_path, steps)


def test_a_hand_over_is_what_a_batch_of_a_free_process_takes_beside_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0

    class Copying(FakeRunner):
        def run(self, place: int, arrays: list[np.ndarray], done: Done) -> None:
            nonlocal now_s
            now_s += 0.2
            super().run(place, arrays, done)

    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        nonlocal now_s
        monkeypatch.setattr("kcost.serving.model_version.time.monotonic", lambda: now_s)
        futures = [put(version, rows(i)) for i in range(4)]
        await settled()
        assert len(runners[0].given) == 2  # the second lies ready, since a whole batch waited
        now_s += 0.5
        runners[0].answer()
        runners[0].answer(RequestError(Code.INTERNAL, "no"))
        await settled()
        assert (version.hand_overs, version.hand_over_ns) == (1, 900_000_000 - 1000), "a fake runs for 1,000 ns"
        while runners[0].given:
            runners[0].answer()
        await settled()
        assert all(future.done() for future in futures)

    with_version(tmp_path, steps, Copying, batch_rows=2)


def test_a_batch_has_its_most_rows_and_one_shape(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        sizes = [(1, 1), (1, 1), (3, 1), (2, 1), (1, 2), (9, 1), (1, 2)]
        futures = [put(version, rows(*range(n), width=width)) for n, width in sizes]
        await settled()
        assert len(runners[0].runs) == 2  # the second lies ready, since a whole batch waited
        for _ in range(10):
            runners[0].answer()
        assert [run[0].shape for run in runners[0].runs] == [(2, 1), (2, 2), (3, 1), (2, 1), (9, 1)]
        await settled()
        for (n, width), future in zip(sizes, futures, strict=True):
            assert future.result().arrays[0].shape == (n, width)

    with_version(tmp_path, steps, batch_rows=4)


def test_what_cannot_be_taken_apart_runs_alone(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, [np.array([1.0, i], np.float32)], "whole") for i in range(4)]
        await settled()
        for _ in range(4):
            runners[0].answer()
        assert len(runners[0].runs) == 4
        await settled()
        assert [float(f.result().arrays[0]) for f in futures] == [1, 2, 3, 4]

    with_version(tmp_path, steps)


def test_a_full_queue_refuses(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(0))]
        await settled()
        futures += [put(version, rows(i)) for i in range(1, 4)]
        with pytest.raises(RequestError, match="queue of the model is full: 3 requests") as refused:
            put(version, rows(9))
        assert refused.value.http_status == 429
        assert (b"retry-after", b"1") in refused.value.headers
        runners[0].answer()
        runners[0].answer()
        await settled()
        assert [float(f.result().arrays[0][0, 0]) for f in futures] == [0, 2, 4, 6]
        put(version, rows(1))

    with_version(tmp_path, steps, queue=3)


def test_a_request_that_is_late_is_told_so_and_takes_no_place_in_a_batch(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(0))]
        await settled()
        futures += [put(version, rows(i)) for i in range(1, 4)]
        version.fail_late(now=time.monotonic() + 8)
        for future in futures:
            with pytest.raises(RequestError, match="no answer within 7 s") as late:
                future.result()
            assert late.value.http_status == 504
        runners[0].answer()
        await settled()
        assert len(runners[0].runs) == 1  # those in the queue were never run
        version.fail_late(now=0.0)
        assert float(await answered(put(version, rows(5)), runners[0])) == 10

    with_version(tmp_path, steps, deadline_s=7)


async def answered(future: asyncio.Future[Answered], runner: FakeRunner) -> float:
    await settled()
    runner.answer()
    return float((await future).arrays[0][0, 0])


def test_what_a_killed_process_was_given_is_run_again_by_itself(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(i)) for i in range(3)]
        await settled()
        futures += [put(version, rows(i)) for i in range(3, 8)]
        runners[0].end()
        await settled()
        for _ in range(4):
            runners[1].answer()
        await settled()
        assert [float(f.result().arrays[0][0, 0]) for f in futures] == [2.0 * i for i in range(8)]
        assert [len(run[0]) for run in runners[1].runs] == [1, 1, 1, 5]
        assert version.restarts == 1

    with_version(tmp_path, steps)


def test_a_process_that_the_system_has_no_room_for_is_started_later(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        (tmp_path / "m" / "1" / "full-0").touch()
        runners[0].end()
        future = put(version, rows(3))
        async with asyncio.timeout(20):
            while not runners[-1].given:
                await asyncio.sleep(0.02)
        assert len(runners) == 3
        assert await answered(future, runners[-1]) == 6

    with_version(tmp_path, steps)


def test_a_request_that_ends_its_process_twice_is_given_up_and_takes_no_other_with_it(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(i)) for i in range(3)]
        for _ in range(40):  # whatever is asked to run 1 ends the process
            await asyncio.sleep(0.01)
            runner = runners[-1]
            if runner.given and not runner.closed:
                if any((arrays[0] == 1).any() for _, arrays, _ in runner.given[:1]):
                    runner.end()
                else:
                    runner.answer()
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(outcomes[1], RequestError)
        assert outcomes[1].code == Code.INTERNAL
        assert "ended 2 times while it ran this request" in outcomes[1].message
        assert [float(outcomes[i].arrays[0][0, 0]) for i in (0, 2)] == [0.0, 4.0]
        assert version.state == "AVAILABLE"

    with_version(tmp_path, steps)


def test_an_error_in_a_batch_is_that_of_one_request(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(i)) for i in range(3)]
        await settled()
        wrong = RequestError(Code.INVALID_ARGUMENT, "7 is no token")
        for error in (wrong, None, wrong, None):  # of the batch, then of each by itself
            runners[0].answer(error)
        outcomes = [await asyncio.gather(f, return_exceptions=True) for f in futures]
        assert [isinstance(outcome[0], RequestError) for outcome in outcomes] == [False, True, False]

    with_version(tmp_path, steps)


def test_unloading_answers_what_was_accepted(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(i)) for i in range(4)]
        unloading = asyncio.create_task(version.unload())
        await settled()
        assert version.state == "UNLOADING"
        while not all(f.done() for f in futures):
            assert not runners[0].closed
            runners[0].answer()
            await settled()
        await unloading
        assert version.state == "END"
        assert runners[0].closed
        assert [float(f.result().arrays[0][0, 0]) for f in futures] == [0, 2, 4, 6]
        with pytest.raises(RequestError, match=r"Specific\(m, 1\)"):
            put(version, rows(1))

    with_version(tmp_path, steps)


def test_who_is_late_is_not_waited_for_by_an_unloading(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        future = put(version, rows(0))
        await settled()
        unloading = asyncio.create_task(version.unload())
        await settled()
        version.fail_late(now=time.monotonic() + 1001)
        await asyncio.wait_for(unloading, 5)
        assert isinstance(future.exception(), RequestError)

    with_version(tmp_path, steps, deadline_s=1000)


def test_outputs_that_cannot_be_cut_fail_those_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a padded signature has an output of one axis, which its trial did not have."""
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))

    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(i, width=5), "pads") for i in range(2)]
        await settled()
        _, arrays, done = runners[0].given.pop()
        done(Outputs([arrays[0][:, 0]], 1000))
        await settled()
        assert all(isinstance(future.exception(), RequestError) for future in futures)

    with_version(tmp_path, steps)


def test_an_unloading_that_was_cancelled_goes_on(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        future = put(version, rows(1))
        first = asyncio.create_task(version.unload())
        await settled()
        first.cancel()
        second = asyncio.create_task(version.unload())
        await settled()
        assert not runners[0].closed
        runners[0].answer()
        await second
        assert (version.state, float(future.result().arrays[0][0, 0])) == ("END", 2)

    with_version(tmp_path, steps)


def test_who_is_refused_is_not_waited_for(tmp_path: Path) -> None:
    """Neither in the queue nor in a process that never comes back."""

    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(0))]
        await settled()
        futures.append(put(version, rows(1)))
        unloading = asyncio.create_task(version.unload())
        await settled()
        assert not unloading.done()
        version.fail_all(lambda: RequestError(Code.UNAVAILABLE, "the end"))
        await asyncio.wait_for(unloading, 5)
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(o, RequestError) and o.http_status == 503 for o in outcomes)

    with_version(tmp_path, steps, deadline_s=1000)


def test_a_reply_that_raises_costs_no_other_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))
    outcomes: list[Answered | Exception] = []

    def breaks(_: Answered | Exception) -> None:
        raise MemoryError("no room for the answer")

    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        def ask(end: Callable[[Answered | Exception], None]) -> None:
            version.ask(version.signature(""), rows(1), CallbackReply(end))

        for end in (outcomes.append, breaks, outcomes.append):
            ask(end)
        await settled()
        runners[0].answer()
        await settled()
        assert [isinstance(outcome, Answered) for outcome in outcomes] == [True, True]
        for end in (breaks, outcomes.append):
            ask(end)
        version.fail_late(now=float("inf"))
        assert isinstance(outcomes[-1], RequestError)
        assert len(outcomes) == 3

    with_version(tmp_path, steps)
    assert "no room for the answer" in next((tmp_path / "logs").iterdir()).read_text()


def test_what_cannot_be_handed_to_a_process_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no memory for the arrays of a batch."""
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))

    class Small(FakeRunner):
        def run(self, place: int, arrays: list[np.ndarray], done: Done) -> None:
            if arrays[0].max() > 8:
                raise MemoryError("no room for the batch")
            super().run(place, arrays, done)

    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(0))]
        await settled()
        futures += [put(version, rows(i)) for i in (1, 9, 2)]
        runners[0].answer()  # the three are next, and answered each by itself
        for _ in range(10):
            runners[0].answer()
            await settled()
        answers = [None if future.exception() else float(future.result().arrays[0][0, 0]) for future in futures]
        assert answers == [0, 2, None, 4]
        assert "no room for the batch" in str(futures[2].exception())
        await asyncio.wait_for(version.unload(), 5)

    with_version(tmp_path, steps, Small)


def test_unloading_ends_by_the_deadline(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(i)) for i in range(4)]
        await version.unload()
        assert version.state == "END"
        version.fail_late(now=float("inf"))
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(o, RequestError) and o.http_status == 504 for o in outcomes)

    with_version(tmp_path, steps, deadline_s=0.05)


def test_a_process_that_never_comes_back_is_replaced(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        stuck = put(version, rows(0))
        await settled()
        waiting = put(version, rows(1))
        version.fail_late(now=time.monotonic() + 13)
        assert not runners[0].closed
        version.fail_late(now=time.monotonic() + 15)
        assert runners[0].closed
        await settled()
        assert len(runners) == 2
        assert version.restarts == 1
        for future in (stuck, waiting):
            with pytest.raises(RequestError, match="no answer within 7 s"):
                future.result()
        assert await answered(put(version, rows(4)), runners[1]) == 8

    with_version(tmp_path, steps, deadline_s=7)


def test_a_process_that_ends_while_another_one_loads_is_started_again(tmp_path: Path) -> None:
    folder = write_versions(tmp_path / "m", 1) / "1"
    runners: list[FakeRunner] = []
    second_may_load = asyncio.Event()

    class Slow(FakeRunner):
        async def start(self, trial_s: float, on_loaded: Callable[[], None]) -> ServedModel:
            if len(runners) == 2:
                await second_may_load.wait()
            return await super().start(trial_s, on_loaded)

    def new_runner(on_end: Callable[[], None]) -> FakeRunner:
        runners.append(Slow(folder, on_end))
        return runners[-1]

    async def run() -> None:
        version = ModelVersion("m", 1, Limits(processes=2), new_runner, lambda _: None)
        loading = asyncio.create_task(version.load())
        await settled()
        assert len(runners) == 2
        runners[0].end()
        await settled()
        second_may_load.set()
        await loading
        await settled()
        assert version.state == "AVAILABLE"
        assert sum(lane.runner is not None for lane in version._lanes) == 2
        await version.unload()

    asyncio.run(run())


def test_several_processes_share_the_queue(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = []
        for i in range(2):
            futures.append(put(version, rows(i)))
            await settled()
        assert [len(r.runs) for r in runners] == [1, 1]
        runners[1].end()
        await settled()
        assert len(runners[2].runs) == 1
        for runner in (runners[0], runners[2]):
            runner.answer()
        assert [float(f.result().arrays[0][0, 0]) for f in futures] == [0, 2]

    with_version(tmp_path, steps, processes=2)


def test_each_process_has_a_batch_before_one_has_two(tmp_path: Path) -> None:
    async def steps(version: ModelVersion, runners: list[FakeRunner]) -> None:
        futures = [put(version, rows(i, width=width), "pads") for i, width in enumerate((10, 40, 90, 200))]
        await settled()
        assert [[run[0].shape[1] for run in r.runs] for r in runners] == [[10, 90], [40, 200]]
        for runner in (*runners, *runners):
            runner.answer()
        await settled()
        assert [future.result().arrays[0].shape for future in futures] == [(1, 10), (1, 40), (1, 90), (1, 200)]

    with_version(tmp_path, steps, processes=2)

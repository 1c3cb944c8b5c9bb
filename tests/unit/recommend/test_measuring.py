"""How a recommendation spends its minutes, on simulated cells: its deadlines, slow ways, and a stop in the middle."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kcost.bench.pool import Prepared
from kcost.bench.store import open_run
from kcost.core.artifact import Model
from kcost.core.conversion import Runtime, RuntimePrecision
from kcost.core.disturbance import Disturbance
from kcost.core.plan import Method
from kcost.core.request import MeasureRequest
from kcost.core.result import Round
from kcost.cost.assumptions import Assumptions
from kcost.cost.pricebook import PriceBook
from kcost.cost.traffic import constant
from kcost.recommend.bounds import Work
from kcost.recommend.candidates import Candidate
from kcost.recommend.measuring import KINDS, MOST_AGAIN, Measuring
from kcost.recommend.one_plan import plan_of
from kcost.recommend.terms import Limits, Terms
from tests.unit.bench.simulated_runtimes import SimulatedRuntimes, converted, without_torch

BEST = "best so far"
"""What is told after a step begins so."""


def way(method: Method, **changes: Any) -> Candidate:
    fields: dict[str, Any] = {
        **{"backend": "fake", "method": method, "precision": "float32", "device": "cpu", "threads": 0},
        **{"batches": (1, 8), "effort": "first", "model": "big"},
    }
    return Candidate(**{**fields, **changes})


def onnx(**changes: Any) -> Candidate:
    return way("onnx", **{"backend": "torch", "effort": "convert", **changes})


class DrawnTimes(SimulatedRuntimes):
    """A pool whose steps take what is drawn for them: no answer of a test may hang on what else the machine does."""

    STEP_NS = 2e6

    def measure(self, request: MeasureRequest, session: str, number: int) -> Round:
        spec = request.spec  # not its cell_id, which has the path of the file in it
        drawn = random.Random(f"{spec.method} {spec.precision} {spec.batch} {number}")
        steps = (round(drawn.gauss(self.STEP_NS, 0.02 * self.STEP_NS)) for _ in range(5))
        return replace(super().measure(request, session, number), step_ns=tuple(steps))


@pytest.fixture
def recommends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Measuring]:
    """Begins to measure some ways, or goes on with it, under traffic that needs many instances."""
    without_torch(monkeypatch)
    monkeypatch.setattr("kcost.cost.verdict.disturbances", lambda cell, environment: ())
    monkeypatch.setattr("kcost.recommend.measuring.Pool", DrawnTimes)
    monkeypatch.setattr("kcost.recommend.measuring.most_at_once", lambda *_: 3)  # tests have one core
    (tmp_path / "big.keras").write_text(json.dumps({"step_s": 0.002}))
    limits, traffic = Limits(p99_ms=100, max_drop=0.02), constant(300_000)
    terms = Terms(traffic, Assumptions(work_hours=0), limits, PriceBook.read(), "aws", "us-east-1", None, 0)

    def begun(*candidates: Candidate, **changes: Any) -> Measuring:
        settings = {"round_s": 0.01, "warmup_s": 0.01, "warmup_max_s": 0.02}
        plan = plan_of(tmp_path / "big.keras", candidates, data=None, seed=0, settings=settings)
        return Measuring(candidates, plan, terms, tmp_path / "run", work=Work(0.0), worth=0.0, **changes)

    return begun


def rounds_in(folder: Path) -> dict[tuple[str, int], int]:
    """Method and batch size -> rounds, of the cells that have any."""
    return {(c.spec.method, c.spec.batch): len(c.rounds) for c in open_run(folder / "run").cells if c.rounds}


def test_the_first_ways_have_a_minute_however_few_the_minutes_are(recommends: Any, tmp_path: Path) -> None:
    recommends(way("eager"), way("predict"), seconds=1).spend()
    assert rounds_in(tmp_path) == {(method, batch): 3 for method in ("eager", "predict") for batch in (1, 8)}


def test_after_that_minute_plain_keras_is_got_ready_at_every_batch_size(
    recommends: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcost.recommend.measuring.FIRST_FIGURES_S", 0.0)
    recommends(way("eager"), way("predict"), seconds=1).spend()
    assert rounds_in(tmp_path) == {("eager", 1): 3, ("predict", 1): 3, ("predict", 8): 3}


def test_a_later_way_that_is_not_ready_when_the_minutes_end_gets_no_turn(recommends: Any, tmp_path: Path) -> None:
    now = [0.0]

    def tell(text: str) -> None:
        if text.startswith(BEST):
            now[0] = 600.0 if now[0] else 594.999  # 5 s are kept back

    late = {
        f"fake/{method} bfloat16": way(method, precision="bfloat16", effort="cheap") for method in ("eager", "predict")
    }
    measuring = recommends(way("eager"), way("predict"), *late.values(), seconds=600, tell=tell, clock=lambda: now[0])
    spent = measuring.spend()
    assert spent.failed == dict.fromkeys(late, "the minutes ended before it had its rounds")
    assert set(measuring.standings) == {"fake/eager float32", "fake/predict float32"}
    assert max(rounds_in(tmp_path).values()) > 3  # the others took their turns


def test_what_a_conversion_took_is_what_the_next_of_its_kind_is_expected_to_take(recommends: Any) -> None:
    now = [0.0]

    def slow(model: Model, runtime: Runtime, precision: RuntimePrecision, cache: Path) -> Path:
        now[0] += 0 if cache.exists() else 40  # later steps find it there
        return converted(model, runtime, precision, cache)

    ways = [way("eager"), way("predict"), onnx(), onnx(precision="int8_dynamic")]
    ways = [w.model_copy(update={"batches": (8,)}) for w in ways]
    measuring = recommends(*ways, seconds=100, converted=slow, clock=lambda: now[0])
    spent = measuring.spend()
    assert "torch/onnx float32" in measuring.standings
    # A guess of 27 s would fit into half of the 55 s that are left.
    why = r"it takes about 4\d s to get ready, with 55 s left: give more --minutes"
    assert re.fullmatch(why, spent.skipped["torch/onnx int8_dynamic"])


def test_one_that_was_stopped_goes_on_with_what_is_slow_and_keeps_its_rounds(
    recommends: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped_at(beginning: str) -> Callable[[str], None]:
        def tell(text: str) -> None:
            if text.startswith(beginning):
                raise KeyboardInterrupt

        return tell

    ways, order = (way("eager"), way("predict"), onnx()), list[str]()
    assert recommends(*ways, seconds=600, tell=stopped_at(KINDS["try"]), converted=converted).spend().interrupted
    before = open_run(tmp_path / "run").cells
    assert {c.spec.method for c in before} == {"eager", "predict"}

    class Recorded(DrawnTimes):
        def prepare(self, request: MeasureRequest) -> Prepared:
            order.append(request.spec.method)
            return super().prepare(request)

    def converts(model: Model, runtime: Runtime, precision: RuntimePrecision, cache: Path) -> Path:
        order.append("convert")
        return converted(model, runtime, precision, cache)

    monkeypatch.setattr("kcost.recommend.measuring.Pool", Recorded)
    measuring = recommends(*ways, seconds=600, tell=stopped_at(BEST), converted=converts)
    assert measuring.spend().waves[0].startswith("try: ")
    place = order.index("convert")
    assert set(order[:place]) <= {"eager", "predict"}
    assert "predict" in order[:place]
    assert set(order[place + 1 :]) == {"onnx"}
    assert set(measuring.standings) == {"fake/eager float32", "fake/predict float32", "torch/onnx float32"}
    after = {c.spec.cell_id: c.rounds for c in open_run(tmp_path / "run").cells}
    assert all(after[c.spec.cell_id][: len(c.rounds)] == c.rounds for c in before)


@pytest.mark.parametrize(
    ("examples", "more", "tried"),
    [
        (64, False, False),  # with none of them changed the bound is 2.5%, and the limit 2%
        (64, True, True),
        (100, False, True),
        (None, False, True),  # labelled ones: a score may also rise
    ],
)
def test_no_time_goes_to_a_precision_that_no_answers_could_allow(
    recommends: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: int | None, more: bool, tried: bool
) -> None:
    monkeypatch.setattr("kcost.recommend.standings._unlabelled", lambda cells: examples)
    lower = way("eager", precision="bfloat16", effort="cheap")
    rescore = (lambda candidates, count: {}) if more else None
    measuring = recommends(way("eager"), way("predict"), lower, seconds=600, rescore=rescore)
    spent = measuring.spend()
    measured = {c.spec.precision for c in open_run(tmp_path / "run").cells if c.rounds}
    assert measured == ({"float32", "bfloat16"} if tried else {"float32"})
    why = "a drop within 2.00% takes 81 examples to show, and 64 are at hand: give more with --data"
    assert spent.skipped == ({} if tried else {lower.name: why})
    assert measuring.undecidable == spent.skipped
    assert measuring.undecidable_notices == (() if tried else (f"No lower precision was tried: {why}.",))


def test_what_was_tried_before_is_not_said_to_be_untried(recommends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lower = [way(method, precision="bfloat16", effort="cheap") for method in ("eager", "predict")]
    recommends(way("eager"), way("predict"), lower[0], seconds=600).spend()
    monkeypatch.setattr("kcost.recommend.standings._unlabelled", lambda cells: 64)
    measuring = recommends(way("eager"), way("predict"), *lower, seconds=600)
    measuring.spend()
    assert set(measuring.undecidable) == {lower[1].name}
    assert [n.partition(":")[0] for n in measuring.undecidable_notices] == ["No further lower precision was tried"]


def beside_other_work(until: Callable[[tuple[str, int]], int]) -> Callable[..., tuple[Disturbance, ...]]:
    """Disturbances of cells, as long as they have fewer rounds than that number for their method and batch size."""
    one = Disturbance(kind="other-work", text="other work", number=0.5, limit=0.2, invalid=True, remedy="Again.")
    return lambda cell, _: (one,) if len(cell.rounds) < until((cell.spec.method, cell.spec.batch)) else ()


def test_what_other_work_disturbed_is_measured_again_until_it_no_longer_counts(
    recommends: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcost.cost.verdict.disturbances", lambda cell, environment: ())
    undisturbed = recommends(way("eager"), way("predict"), seconds=600).spend()
    assert not any(wave.startswith("again") for wave in undisturbed.waves)
    before = rounds_in(tmp_path)
    monkeypatch.setattr("kcost.cost.verdict.disturbances", beside_other_work(lambda which: before[which] + 1))
    spent = recommends(way("eager"), way("predict"), seconds=600).spend()
    assert [wave.partition(":")[0] for wave in spent.waves] == ["again"]
    after = rounds_in(tmp_path)
    grown = {which for which in after if after[which] != before[which]}
    assert {after[which] for which in grown} == {2 * max(before[which] for which in grown)}


def test_work_that_does_not_end_is_waited_for_no_longer_than_a_few_times(
    recommends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcost.cost.verdict.disturbances", beside_other_work(lambda _: 10**6))
    spent = recommends(way("eager"), way("predict"), seconds=600).spend()
    assert sum(wave.startswith("again") for wave in spent.waves) == MOST_AGAIN

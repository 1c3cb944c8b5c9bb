from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.errors import PriceError, SchemaError
from kcost.core.plan import Settings
from kcost.core.result import CellResult, Round, Run, Watch
from kcost.cost.pricebook import PriceBook
from kcost.cost.ranking import TailLatency, held_tail, percentiles_ms
from kcost.cost.verdict import Verdict, conclude, prices_for
from testing.quotas import stopped_by_quota
from testing.runs import Outputs, environment, plan, preparation, replaced, simulated_run

BOOK = PriceBook.read()


def verdict_of(run: Run, outputs: Outputs, **limits: Any) -> Verdict:
    return conclude(run, prices_for(run, BOOK), lambda c: outputs.get(c.spec.cell_id), **limits)


def find(run: Run, text: str) -> CellResult:
    (matching,) = (c for c in run.cells if c.spec.label == text)
    return matching


def timed(cell: CellResult, step_ms: float, rounds: int = 6, scatter: float = 0.0) -> tuple[Round, ...]:
    """Rounds with this step time, going up and down by `scatter` from round to round."""
    centres_ns = [int(1e6 * step_ms * (1 + scatter * (-1) ** n)) for n in range(rounds)]
    return tuple(Round(session="s", number=n, step_ns=(c,) * 3, load_1min=0.1) for n, c in enumerate(centres_ns))


def slower(run: Run, but: dict[str, float], step_ms: float = 1000.0, **how: Any) -> Run:
    """The run with every cell at `step_ms`, and those labelled in `but` at another step time."""
    cells = tuple(c.model_copy(update={"rounds": timed(c, but.get(c.spec.label, step_ms), **how)}) for c in run.cells)
    return run.model_copy(update={"cells": cells})


SMALL = plan(batches=(32,), phases=("inference",))
PREDICT = "inference tensorflow/predict float32 cpu batch 32"
GRAPH = "inference tensorflow/graph float32 cpu batch 32"
JIT = "inference jax/jit float32 cpu batch 32"
JIT_BF16 = "inference jax/jit bfloat16 cpu batch 32"
EAGER = "inference torch/eager float32 cpu batch 32"


def test_the_cheapest_is_told_with_how_many_times_cheaper_it_is() -> None:
    run, outputs = simulated_run(SMALL)
    verdict = verdict_of(slower(run, {JIT: 10.0, PREDICT: 42.0}), outputs)
    (conclusion,) = verdict.conclusions
    assert (conclusion.outcome, conclusion.best) == ("cheaper", find(run, JIT).spec.cell_id)
    assert conclusion.baseline == find(run, PREDICT).spec.cell_id
    assert conclusion.times_cheaper.value == pytest.approx(4.2)
    # 0.1008 USD an hour, 10 ms for 32 predictions
    usd = 0.1008 / 3600 * 0.010 / 32 * 1e6
    assert verdict.ranking("simulated-cnn", "inference").best.cost.usd == pytest.approx(usd)
    assert conclusion.sentence == (
        f"simulated-cnn: cheapest is jax/jit float32 at batch 32, ${usd * 1e3:.2f} per billion predictions; 4.20 times "
        "cheaper (95%: 4.20 to 4.20) than plain Keras predict (tensorflow, batch 32). [simulated]"
    )


def test_the_verdict_is_data_that_comes_back() -> None:
    verdict = verdict_of(*simulated_run(plan(models=("simulated-cnn", "simulated-bert"))))
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert verdict.model_dump()["schema"] == 2
    assert [(r.model, r.phase) for r in verdict.rankings] == [
        ("simulated-cnn", "inference"),
        ("simulated-cnn", "training"),
        ("simulated-bert", "inference"),
        ("simulated-bert", "training"),
    ]
    one_round = simulated_run(plan(settings=Settings(rounds=1)))
    assert Verdict.model_validate_json(verdict_of(*one_round).model_dump_json()) == verdict_of(*one_round)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_ranks_follow_cost_and_numbers_follow_the_simulation(seed: int) -> None:
    verdict = verdict_of(*simulated_run(SMALL, seed=seed))
    (ranking,) = verdict.rankings
    ranked = [c for c in ranking.cells if c.rank is not None]
    assert [c.rank for c in ranked] == list(range(1, len(ranked) + 1))
    assert [c.cost.usd for c in ranked] == sorted(c.cost.usd for c in ranked)
    for cell in ranked:
        ratio = ranking.cell(ranking.baseline).cost.usd / cell.cost.usd
        assert cell.times_cheaper.value == pytest.approx(ratio)  # the same rounds: pairing changes the interval alone
        assert cell.examples_per_s == pytest.approx(32 / cell.step_ms * 1e3)


def test_pairing_by_round_takes_out_what_hits_all_cells() -> None:
    run, outputs = simulated_run(SMALL)
    (ranking,) = verdict_of(slower(run, {JIT: 10.0, PREDICT: 40.0}, scatter=0.5), outputs).rankings
    ratio = ranking.best.times_cheaper
    assert (ratio.low, ratio.high) == (pytest.approx(4.0, rel=1e-5), pytest.approx(4.0, rel=1e-5))
    assert ranking.best.cost.low < 0.7 * ranking.best.cost.usd


def test_an_interval_with_one_in_it_cannot_tell() -> None:
    run, outputs = simulated_run(SMALL)
    run = slower(run, {PREDICT: 10.0})
    unsteady = find(run, JIT)
    run = replaced(run, unsteady.spec.cell_id, rounds=timed(unsteady, 9.9, scatter=0.3))
    (conclusion,) = verdict_of(run, outputs).conclusions
    assert conclusion.outcome == "can't tell"
    assert "can't tell whether jax/jit float32 at batch 32 is cheaper" in conclusion.sentence


def test_rounds_of_other_sessions_do_not_pair() -> None:
    run, outputs = simulated_run(SMALL)
    run = slower(run, {JIT: 10.0, PREDICT: 40.0})
    jit = find(run, JIT)
    other = tuple(replace(r, session="another day") for r in jit.rounds)
    run = replaced(run, jit.spec.cell_id, rounds=(*other, *jit.rounds[:2]))
    (conclusion,) = verdict_of(run, outputs).conclusions
    assert conclusion.outcome == "can't tell"
    assert conclusion.times_cheaper.rounds == 2
    assert "2 round(s) in common, and 3 are needed" in conclusion.sentence
    none_shared = replaced(run, jit.spec.cell_id, rounds=other)
    (conclusion,) = verdict_of(none_shared, outputs).conclusions
    assert (conclusion.outcome, conclusion.times_cheaper) == ("can't tell", None)


def test_cells_that_cannot_be_told_from_the_best_are_tied() -> None:
    run, outputs = simulated_run(SMALL)
    run = slower(run, {JIT: 10.0, PREDICT: 40.0, GRAPH: 20.0})
    eager = find(run, EAGER)
    run = replaced(run, eager.spec.cell_id, rounds=timed(eager, 10.5, scatter=0.2))
    verdict = verdict_of(run, outputs)
    assert verdict.rankings[0].tied_with_best == (eager.spec.cell_id,)
    assert "; tied with torch/eager float32 at batch 32." in verdict.conclusions[0].sentence


def test_plain_keras_may_be_the_cheapest() -> None:
    run, outputs = simulated_run(SMALL)
    (conclusion,) = verdict_of(slower(run, {PREDICT: 1.0}), outputs).conclusions
    assert conclusion.outcome == "baseline is cheapest"
    assert "plain Keras predict (tensorflow, batch 32) itself" in conclusion.sentence


@pytest.mark.parametrize(
    ("changes", "baseline"),
    [
        ({}, PREDICT),
        ({"batches": (1, 64, 128)}, "inference tensorflow/predict float32 cpu batch 128"),
        ({"backends": ("torch", "jax")}, "inference jax/predict float32 cpu batch 32"),
        ({"methods": ("jit", "graph")}, None),
    ],
)
def test_the_baseline_is_what_keras_does_by_itself(changes: dict[str, Any], baseline: str | None) -> None:
    run, outputs = simulated_run(plan(**{"batches": (32,), "phases": ("inference",), **changes}))
    verdict = verdict_of(run, outputs)
    baseline_id = verdict.rankings[0].baseline
    assert baseline_id == (None if baseline is None else find(run, baseline).spec.cell_id)
    assert (verdict.conclusions[0].outcome == "no baseline") == (baseline is None)


def test_a_float32_cell_with_other_outputs_is_not_ranked() -> None:
    run, outputs = simulated_run(SMALL)
    run = slower(run, {JIT: 1.0, EAGER: 2.0})
    jit = find(run, JIT).spec.cell_id
    outputs[jit] = {**outputs[jit], "outputs": outputs[jit]["outputs"] + np.float32(2e-4)}
    verdict = verdict_of(run, outputs)
    cell = verdict.rankings[0].cell(jit)
    assert (cell.rank, cell.standing) == (None, "outputs differ")
    assert verdict.rankings[0].best.label == EAGER
    (notice,) = (n for n in verdict.notices if n.code == "outputs-differ")
    assert (notice.cell, notice.limit) == (JIT, 1e-4)
    assert notice.number == pytest.approx(2e-4, rel=0.02)
    assert "was fed other inputs: measure into a new folder" in notice.remedy
    outputs[jit] = {**outputs[jit], "outputs": np.full_like(outputs[jit]["outputs"], np.nan)}
    broken = verdict_of(run, outputs).rankings[0].cell(jit)
    reason = "80 of 80 numbers of the output 'output' are NaN or infinite, over the probe"
    assert (broken.standing, broken.reason) == ("not finite", reason)


def test_a_lower_precision_is_ranked_by_its_score() -> None:
    run, outputs = simulated_run(SMALL)
    run = slower(run, {JIT_BF16: 1.0})
    cell_id = find(run, JIT_BF16).spec.cell_id
    reference = outputs[find(run, GRAPH).spec.cell_id]["predictions"]
    right = np.flatnonzero(reference == outputs[cell_id]["labels"])

    def with_wrong(count: int, *, labels: bool = True, **limits: Any):
        predictions = reference.copy()
        predictions[right[:count]] = (predictions[right[:count]] + 1) % 10
        arrays = {**outputs[cell_id], "predictions": predictions}
        if not labels:
            del arrays["labels"]
        return verdict_of(run, {**outputs, cell_id: arrays}, **limits)

    assert with_wrong(4).rankings[0].best.cell_id == cell_id  # 4 of 400: 1%
    assert with_wrong(5).rankings[0].cell(cell_id).standing == "score too low"
    dropped = with_wrong(6)
    assert dropped.rankings[0].cell(cell_id).standing == "score too low"
    assert "drops by 1.5% on 400 examples" in dropped.rankings[0].cell(cell_id).reason
    (notice,) = (n for n in dropped.notices if n.code == "score-drop")
    assert notice.number == pytest.approx(6 / 400)
    assert with_wrong(5, max_drop=0.02).rankings[0].best.cell_id == cell_id
    # Without labels the share of other answers bounds the drop.
    assert with_wrong(4, labels=False).rankings[0].best.cell_id == cell_id
    assert with_wrong(5, labels=False).rankings[0].cell(cell_id).standing == "score too low"
    unknown = verdict_of(run, {**outputs, cell_id: {"outputs": outputs[cell_id]["outputs"]}})
    assert unknown.rankings[0].cell(cell_id).standing == "score not known"


def test_without_outputs_float32_is_ranked_with_a_notice_and_lower_precision_is_not() -> None:
    run, _ = simulated_run(SMALL)
    cells = tuple(c.model_copy(update={"outputs_file": None}) for c in run.cells)
    verdict = verdict_of(run.model_copy(update={"cells": cells}), {})
    assert {c.precision for c in verdict.rankings[0].cells if c.rank is not None} == {"float32"}
    assert any(n.code == "outputs-not-compared" and n.number == len(cells) for n in verdict.notices)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threads": 1}, "threads: 1, not 2"),
        ({"tf32": True}, "tf32: True, not None"),
        ({"inputs_on": "device"}, "inputs_on: device, not host"),
    ],
)
def test_a_cell_with_other_settings_is_ranked_apart(changes: dict[str, Any], reason: str) -> None:
    run, outputs = simulated_run(SMALL)
    run = slower(run, {JIT: 1.0})
    jit = find(run, JIT)
    run = replaced(run, jit.spec.cell_id, preparation=preparation(jit.spec, **changes))
    main, apart = verdict_of(run, outputs).rankings
    assert (main.apart, apart.apart) == ((), (reason,))
    assert [c.label for c in apart.cells] == [JIT]
    assert all(c.cell_id != jit.spec.cell_id for c in main.cells)
    assert reason in verdict_of(run, outputs).conclusions[1].sentence


def test_another_environment_is_apart_and_told_by_what_differs() -> None:
    run, outputs = simulated_run(SMALL)
    other = environment(packages={"keras": "3.16.0", "jax": "0.10.0"}, cpu_model="Another CPU")
    jit = find(run, JIT)
    run = replaced(run, jit.spec.cell_id, environment_id=other.environment_id)
    run = run.model_copy(update={"environments": {**run.environments, other.environment_id: other}})
    apart = verdict_of(run, outputs).rankings[1].apart
    assert apart == ("environment: another cpu_model, packages.keras, packages.tensorflow, packages.torch",)
    assert other.differences(other) == ()


def test_cells_of_another_device_are_apart() -> None:
    run, outputs = simulated_run(plan(batches=(32,), phases=("inference",), devices=("cpu", "gpu")))
    main, gpu = verdict_of(run, outputs).rankings
    assert {c.device for c in main.cells} == {"cpu"}
    assert {c.device for c in gpu.cells} == {"gpu"}
    assert gpu.baseline is not None


def test_a_latency_limit_leaves_out_slow_cells_by_p95_where_p99_is_not_known() -> None:
    run, outputs = simulated_run(SMALL)
    run = slower(run, {JIT: 10.0, PREDICT: 40.0, EAGER: 20.0})
    verdict = verdict_of(run, outputs, p99_ms=15.0)
    assert [c.label for c in verdict.rankings[0].cells if c.rank is not None] == [JIT]
    assert verdict.rankings[0].cell(find(run, EAGER).spec.cell_id).reason == "p95 20.0 ms; the limit is 15 ms"
    unknown = [n for n in verdict.notices if n.code == "p99-unknown"]
    assert len(unknown) == len(run.cells)
    assert "18 steps do not show a p99" in unknown[0].text
    # PREDICT is still what the winner is compared with.
    assert verdict.conclusions[0].times_cheaper.value == pytest.approx(4.0)


def test_a_latency_limit_is_held_against_p99_where_it_is_known() -> None:
    run, outputs = simulated_run(SMALL)
    run = slower(run, {JIT: 10.0})
    jit = find(run, JIT)
    steps = (10_000_000,) * 98 + (90_000_000,) * 2  # 2% of steps are slow: p95 does not show them, p99 does
    rounds = tuple(Round(session="s", number=n, step_ns=steps) for n in range(7))
    run = replaced(run, jit.spec.cell_id, rounds=rounds)
    cell = verdict_of(run, outputs, p99_ms=15.0).rankings[0].cell(jit.spec.cell_id)
    assert (cell.standing, cell.step_p95_ms, cell.step_p99_ms) == ("too slow", 10.0, 90.0)
    assert cell.reason == "p99 90.0 ms; the limit is 15 ms"
    assert verdict_of(run, outputs).rankings[0].cell(jit.spec.cell_id).rank == 1


@given(st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=30), min_size=1, max_size=5))
def test_percentiles_are_numpys(step_ns: list[list[int]]) -> None:
    run, _ = simulated_run(SMALL)
    rounds = tuple(Round(session="s", number=i, step_ns=tuple(r)) for i, r in enumerate(step_ns))
    percentiles = percentiles_ms(run.cells[0].model_copy(update={"rounds": rounds}))
    expected = np.percentile(np.concatenate(step_ns), (50, 95, 99)) / 1e6
    assert (percentiles.p50, percentiles.p95, percentiles.p99) == pytest.approx(tuple(expected))


def test_training_is_ranked_in_dollars_of_a_run() -> None:
    run, outputs = simulated_run(plan())
    verdict = verdict_of(run, outputs)
    ranking = verdict.ranking("simulated-cnn", "training")
    assert ranking.cell(ranking.baseline).label == "training tensorflow/train_on_batch float32 cpu batch 32"
    assert list(ranking.best_by_backend()) == ["jax", "torch", "tensorflow"]
    assert all(c.cost.unit == "training run (10 epochs of 1,437 examples)" for c in ranking.cells)
    sentence = verdict.conclusions[1].sentence
    assert "what a model trained in bfloat16 scores was not measured" in sentence
    assert "plain Keras training (tensorflow, float32, batch 32)" in sentence
    assert any(n.code == "training-precision" for n in verdict.notices)


def test_what_is_doubtful_is_noticed_with_number_and_limit() -> None:
    run, outputs = simulated_run(SMALL)
    run = slower(run, {}, rounds=4)
    jit, graph, eager = (find(run, label) for label in (JIT, GRAPH, EAGER))
    busy = tuple(replace(r, load_1min=3.5) for r in jit.rounds)
    run = replaced(run, jit.spec.cell_id, rounds=busy)
    run = replaced(run, graph.spec.cell_id, rounds=timed(graph, 10.0, rounds=4, scatter=0.2))
    run = replaced(run, eager.spec.cell_id, status="oom", reason="asked for 80 GiB", rounds=())
    notices = verdict_of(run, outputs).notices
    notice_of = {(n.code, n.cell): n for n in notices}
    assert (notice_of["high-load", JIT].number, notice_of["high-load", JIT].limit) == (3.5, 2.5)
    assert notice_of["spread", GRAPH].number == pytest.approx(np.std([0.8, 1.2, 0.8, 1.2], ddof=1))
    assert notice_of["few-rounds", GRAPH].number == 4
    assert notice_of["failed", EAGER].text == "oom: asked for 80 GiB."
    assert {"simulated", "synthetic-data", "price-assumed"} <= {n.code for n in notices}
    assert all(n.remedy for n in notices)


def test_a_quiet_run_of_real_data_has_nothing_to_be_careful_with_but_the_price() -> None:
    run, outputs = simulated_run(plan(batches=(32,), phases=("inference",), precisions=("float32",)))
    (entry,) = run.index.models
    index = run.index.model_copy(update={"models": (entry.model_copy(update={"synthetic_data": False}),)})
    real = tuple(
        c.model_copy(update={"preparation": preparation(c.spec, simulated=False), "rounds": timed(c, 5.0)})
        for c in run.cells
    )
    verdict = verdict_of(run.model_copy(update={"index": index, "cells": real}), outputs)
    assert [n.code for n in verdict.notices] == ["price-assumed"]
    assert "[simulated]" not in verdict.conclusions[0].sentence


def test_a_run_without_a_measured_cell_has_no_ranking() -> None:
    run, outputs = simulated_run(SMALL)
    cells = tuple(c.model_copy(update={"status": "crash", "reason": "it fell over"}) for c in run.cells)
    verdict = verdict_of(run.model_copy(update={"cells": cells}), outputs)
    assert verdict.rankings == verdict.conclusions == ()
    assert sum(n.code == "failed" for n in verdict.notices) == len(cells)


def test_nothing_may_be_ranked() -> None:
    run, outputs = simulated_run(SMALL)
    verdict = verdict_of(run, outputs, p99_ms=1e-6)
    assert verdict.conclusions[0].outcome == "nothing ranked"
    assert verdict.rankings[0].best is None
    assert verdict.rankings[0].tied_with_best == ()


def test_an_ok_cell_without_what_it_needs_is_damage() -> None:
    run, outputs = simulated_run(SMALL)
    for changes in ({"preparation": None}, {"rounds": ()}):
        with pytest.raises(SchemaError, match=run.cells[0].spec.cell_id):
            verdict_of(replaced(run, run.cells[0].spec.cell_id, **changes), outputs)


def test_prices_for_takes_what_was_asked_for() -> None:
    run, _ = simulated_run(SMALL)
    (match,) = prices_for(run, BOOK, "aws", None, "c7i.xlarge").values()
    assert (match.price.instance, match.is_assumption) == ("c7i.xlarge", False)
    with pytest.raises(PriceError):
        prices_for(run, BOOK, "nobody")


def test_a_bare_model_is_said_to_have_made_up_inputs() -> None:
    run, outputs = simulated_run(SMALL)
    bare = run.index.models[0].model_copy(update={"dataset": None, "task": "unknown", "label_names": ()})
    run = run.model_copy(update={"index": run.index.model_copy(update={"models": (bare,)})})
    (notice,) = (n for n in verdict_of(run, outputs).notices if n.code == "synthetic-data")
    assert "inputs were made up" in notice.text


BUSY = Watch(wall_s=0.1, worker_cpu_s=0.1, parent_cpu_s=0.0, machine_busy_s=0.2)


def test_a_disturbed_cell_is_told_to_be_invalid_wherever_it_decides() -> None:
    run, outputs = simulated_run(SMALL)
    run = slower(run, {JIT: 10.0, PREDICT: 42.0})
    jit = find(run, JIT)
    run = replaced(run, jit.spec.cell_id, rounds=tuple(replace(r, watch=BUSY) for r in jit.rounds))
    verdict = verdict_of(run, outputs)
    reason = "other processes took 50.0% of the machine's CPU time: measure again while nothing else runs"
    assert f": INVALID: {reason}." in verdict.conclusions[0].sentence
    assert verdict.rankings[0].best.invalid is not None
    assert verdict.invalid is None, "one of its cells is not the run"
    assert [n.cell for n in verdict.notices if n.code == "invalid"] == [JIT]


def test_what_a_quota_stopped_is_not_said_to_be_beside_other_work() -> None:
    run, outputs = simulated_run(SMALL)
    (conclusion,) = verdict_of(stopped_by_quota(run), outputs).conclusions
    assert conclusion.outcome == "invalid"
    assert "a CPU quota of fewer cores than threads" in conclusion.sentence
    assert "measure with no more threads than the quota has cores" in conclusion.sentence
    assert "other work" not in conclusion.sentence


def test_a_ratio_that_is_known_less_closely_than_asked_is_told() -> None:
    run, outputs = simulated_run(plan(batches=(32,), phases=("inference",), settings=Settings(precision=0.01)))
    run = slower(run, {JIT: 10.0, PREDICT: 42.0})
    jit = find(run, JIT)
    run = replaced(run, jit.spec.cell_id, rounds=timed(jit, 10.0, scatter=0.2))
    (notice,) = (n for n in verdict_of(run, outputs).notices if n.code == "imprecise")
    assert (notice.cell, notice.limit) == (JIT, 0.01)


def test_the_tail_is_the_one_that_the_steps_show() -> None:
    run, outputs = simulated_run(SMALL, steps=20)
    cells = verdict_of(run, outputs).rankings[0].cells
    assert {c.tail.name for c in cells} == {"p90"}, "6 rounds of 20 steps"
    assert all(c.tail.low_ms <= c.tail.ms <= c.tail.high_ms for c in cells)
    few = verdict_of(*simulated_run(SMALL)).rankings[0].cells
    assert {c.tail for c in few} == {None}


@pytest.mark.parametrize(
    ("shown", "held"), [(None, "p95"), ("p90", "p95"), ("p95", "p95"), ("p97", "p97"), ("p99", "p99")]
)
def test_a_p99_limit_is_held_against_the_highest_tail_that_is_known_but_never_less_than_the_p95(
    shown: str | None, held: str
) -> None:
    known = None if shown is None else TailLatency(name=shown, ms=7.0, low_ms=6.0, high_ms=8.0)
    assert held_tail(known, 5.0) == (held, 5.0 if shown in (None, "p90") else 7.0)

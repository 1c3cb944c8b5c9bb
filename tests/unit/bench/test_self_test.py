"""The self-test: its maths on made-up numbers, and its short form on the simulated backend."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kcost.bench.self_test import MOVED, SHORT, Form, Move, SelfTest, busy_neighbours, moves, self_test
from kcost.core.errors import WorkerError
from kcost.core.result import Round, Run, Watch
from testing.runs import plan, simulated_run
from tests.unit.bench.plans import fake_plan
from tests.unit.bench.self_tests import move, pairs

TINY = Form(pairs=4, rounds=3)


def test_equals_win_as_seldom_as_their_confidence_says() -> None:
    report = SelfTest(simulated=True, pairs=pairs(1000, bias=0.0))
    assert 0.003 < report.false_winners / 1000 < 0.02
    assert report.passed


def test_a_harness_that_favours_one_turn_fails() -> None:
    report = SelfTest(simulated=True, pairs=pairs(200, bias=0.05))
    assert report.false_winners > 150
    assert not report.passed
    assert "beat themselves" in report.failures[0]


@pytest.mark.parametrize(
    ("one", "passed"), [(move(2.05), True), (move(1.95), True), (move(2.2), False), (move(2.2, "busy"), True)]
)
def test_a_ratio_holds_still_or_is_marked(one: Move, passed: bool) -> None:
    assert one.moved == pytest.approx(one.loaded / 2 - 1)
    report = SelfTest(simulated=True, pairs=pairs(20, 0.0), moves=(one,))
    assert report.passed is passed
    assert bool(report.failures) is not passed
    assert passed or f"{MOVED:.2f}" == "0.05"


def test_ratios_are_held_against_the_baseline_of_their_block() -> None:
    run, _ = simulated_run(plan(batches=(32,), phases=("inference",), precisions=("float32",), backends=("jax",)))
    busy = Watch(wall_s=0.1, worker_cpu_s=0.1, parent_cpu_s=0.0, machine_busy_s=0.2)

    def slower(r: Round) -> Round:
        return replace(r, step_ns=tuple(2 * ns for ns in r.step_ns), watch=busy)

    def loaded(method: str) -> Run:
        cells = tuple(
            c.model_copy(update={"rounds": tuple(map(slower, c.rounds))}) if c.spec.method == method else c
            for c in run.cells
        )
        return run.model_copy(update={"cells": cells})

    (one,) = moves(run, loaded("jit"))
    assert (one.cell, one.baseline) == (
        "inference jax/jit float32 cpu batch 32",
        "inference jax/predict float32 cpu batch 32",
    )
    assert one.moved == pytest.approx(1.0)
    assert "other processes took" in str(one.invalid)
    (other,) = moves(run, loaded("predict"))
    assert other.moved == pytest.approx(-0.5)
    assert other.invalid is not None, "a disturbed baseline is as bad"


def test_the_short_form_runs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = {p.pid for p in psutil.Process().children()}
    lines: list[str] = []
    report = self_test(
        fake_plan(tmp_path, {}, batches=[1], precisions=["float32"]),
        form=TINY,
        out=tmp_path / "out",
        on_progress=lambda done, total, text: lines.append(text),
    )
    assert report.simulated
    assert len(report.pairs) == 4
    assert {len(p.a_ns) for p in report.pairs} == {len(p.b_ns) for p in report.pairs} == {3}
    assert {p.cell for p in report.pairs} == {
        "inference fake/eager float32 cpu batch 1",
        "inference fake/predict float32 cpu batch 1",
    }
    (one,) = report.moves
    assert one.quiet > 0
    assert one.loaded > 0
    assert "each cell against itself" in lines
    assert {p.pid for p in psutil.Process().children()} == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["loaded", "pairs", "quiet"]
    document = report.model_dump(mode="json")
    assert document["false_winners"] == report.false_winners
    assert document["passed"] is report.passed


def test_the_form_for_continuous_integration_finds_few_winners_among_equals_and_marks_what_neighbours_move(
    tmp_path: Path,
) -> None:
    """The whole harness against itself, in the short form: simulated steps, real turns, real busy neighbours."""
    settings = {"rounds": 5, "round_s": 0.02, "warmup_s": 0.01, "timeout_s": 20}
    test_plan = fake_plan(tmp_path, {"step_s": 0.002}, batches=[1], precisions=["float32"], settings=settings)
    report = self_test(test_plan, form=SHORT)
    assert len(report.pairs) == SHORT.pairs
    # 95% intervals of equals have 9 winners among 24 once in 600,000 times; those of a broken harness have them always.
    assert report.false_winners <= 8
    (one,) = report.moves
    if len(os.sched_getaffinity(0)) <= 8:  # two neighbours take a fifth of at most that many cores
        assert "other processes took" in str(one.invalid)
        assert one.passed


def test_a_cell_that_fails_fails_the_self_test(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="oom"):
        self_test(fake_plan(tmp_path, {"oom": ["any"]}, batches=[1]), form=TINY, noisy=False)


def test_neighbours_are_busy_until_the_block_ends() -> None:
    before = set(psutil.Process().children())
    with busy_neighbours():
        started = set(psutil.Process().children()) - before
        assert len(started) == 2
        assert all(p.is_running() for p in started)
    assert set(psutil.Process().children()) == before

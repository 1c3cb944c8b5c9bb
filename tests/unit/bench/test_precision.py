"""How many rounds a cell gets when a precision is asked for."""

from __future__ import annotations

import math
from pathlib import Path

from kcost.bench.precision import due, half_width, ratio_to
from kcost.bench.runner import measure
from kcost.core.plan import Settings, baseline_of
from kcost.core.result import CellResult, Round, Run
from testing.runs import plan, simulated_run
from tests.unit.bench.plans import SETTINGS, by_label, fake_plan


def block(scatter: float, rounds: int = 4) -> list[CellResult]:
    """`predict`, the baseline, at 20 ms, and jit at 10 ms that goes up and down from round to round."""
    run, _ = simulated_run(plan(batches=(32,), backends=("jax",), precisions=("float32",), phases=("inference",)))
    jit, predict = sorted(run.cells, key=lambda c: c.spec.method)
    return [timed(jit, [10.0 * (1 + scatter * (-1) ** n) for n in range(rounds)]), timed(predict, [20.0] * rounds)]


def timed(cell: CellResult, step_ms: list[float], session: str = "s") -> CellResult:
    rounds = tuple(Round(session=session, number=n, step_ns=(int(ms * 1e6),)) for n, ms in enumerate(step_ms))
    return cell.model_copy(update={"rounds": rounds})


def methods(cells: list[CellResult]) -> list[str]:
    return [c.spec.method for c in cells]


def test_without_a_precision_a_cell_is_due_until_it_has_its_rounds() -> None:
    cells = block(0.5)
    assert due(cells, Settings(rounds=4)) == []
    assert methods(due([cells[0], timed(cells[1], [20.0])], Settings(rounds=4))) == ["predict"]


def test_a_ratio_that_is_not_known_closely_keeps_its_cell_and_the_baseline_in_turns() -> None:
    assert methods(due(block(0.2), Settings(rounds=4, precision=0.03))) == ["jit", "predict"]
    assert due(block(0.001), Settings(rounds=4, precision=0.03)) == []


def test_it_ends_at_the_most_rounds_and_with_the_time() -> None:
    assert due(block(0.2), Settings(rounds=4, precision=0.03, max_rounds=4)) == []
    assert due(block(0.2), Settings(rounds=4, precision=0.03), time_left=False) == []
    assert methods(due(block(0.2), Settings(rounds=9, precision=0.03), time_left=False)) == ["jit", "predict"]


def test_rounds_of_another_session_make_no_ratio() -> None:
    jit, predict = block(0.001)
    apart = timed(jit, [10.0] * 4, session="another")
    assert ratio_to(apart, predict) is None
    assert methods(due([apart, predict], Settings(rounds=4, precision=0.03))) == ["jit", "predict"]


def test_one_round_has_no_width() -> None:
    ratio = ratio_to(*block(0.0, rounds=1))
    assert ratio is not None
    assert half_width(ratio) == math.inf


def test_a_block_of_one_cell_has_nothing_to_be_compared_with() -> None:
    assert due(block(0.2)[:1], Settings(rounds=4, precision=0.01)) == []
    assert due([], Settings(precision=0.01)) == []
    assert baseline_of([]) is None


def count_rounds(run: Run) -> dict[str, int]:
    return {label: len(c.rounds) for label, c in by_label(run).items()}


def test_a_run_that_stays_imprecise_adds_rounds_up_to_the_most(tmp_path: Path) -> None:
    settings = {**SETTINGS, "precision": 1e-6, "max_rounds": 7}
    run = measure(fake_plan(tmp_path, {}, batches=[1], precisions=["float32"], settings=settings), tmp_path / "run")
    assert count_rounds(run) == {"eager float32 cpu batch 1": 7, "predict float32 cpu batch 1": 7}
    assert {c.status for c in run.cells} == {"ok"}


def test_no_round_begins_when_the_time_is_spent(tmp_path: Path) -> None:
    settings = {**SETTINGS, "precision": 1e-6, "minutes": 1e-6}
    run = measure(fake_plan(tmp_path, {}, batches=[1], settings=settings), tmp_path / "run")
    assert set(count_rounds(run).values()) == {3}


def test_asking_for_more_adds_to_what_is_there(tmp_path: Path) -> None:
    axes = {"batches": [1], "precisions": ["float32"]}
    first = measure(fake_plan(tmp_path, {}, **axes), tmp_path / "run")
    more = measure(fake_plan(tmp_path, {}, **axes, settings={**SETTINGS, "rounds": 5}), tmp_path / "run")
    assert set(count_rounds(more).values()) == {5}
    held = {c.spec.cell_id: c.rounds for c in first.cells}
    assert all(c.rounds[:3] == held[c.spec.cell_id] for c in more.cells)
    closer = {**SETTINGS, "rounds": 5, "precision": 1e-6, "max_rounds": 6}
    closest = measure(fake_plan(tmp_path, {}, **axes, settings=closer), tmp_path / "run")
    assert set(count_rounds(closest).values()) == {6}
    again = measure(fake_plan(tmp_path, {}, **axes, settings=closer), tmp_path / "run")
    assert again.cells == closest.cells


def test_a_fault_in_an_added_round_costs_its_own_cell_only(tmp_path: Path) -> None:
    script = {"crash": ["bfloat16/1"], "healthy_calls": 12, "step_s": 0.02}
    settings = {**SETTINGS, "warmup_s": 0, "warmup_max_s": 0, "precision": 1e-6, "max_rounds": 20}
    run = measure(fake_plan(tmp_path, script, batches=[1], methods=["eager"], settings=settings), tmp_path / "run")
    assert {label: c.status for label, c in by_label(run).items()} == {
        "eager bfloat16 cpu batch 1": "crash",
        "eager float32 cpu batch 1": "ok",
    }

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from kcost.bench.compare import compare
from kcost.bench.self_test import SelfTest
from kcost.core.result import Watch
from kcost.report.bench_terminal import show_comparison, show_self_test
from testing.runs import replaced
from tests.unit.bench.runs_to_compare import LABEL, PRICES, run_of, slowed
from tests.unit.bench.self_tests import move, pairs


def text_of(show: object, *shown: object) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    show(console, *shown)  # type: ignore[operator]
    return console.export_text()


def test_a_comparison_shows_each_cell_and_its_failures_last() -> None:
    comparison = compare(
        run_of(0), slowed(run_of(1), 1.5, LABEL, session="b"), fail_if="usd_per_million>5%", usd_per_hour=PRICES
    )
    lines = text_of(show_comparison, comparison).strip().splitlines()
    assert sum(LABEL in line for line in lines) == 2
    assert lines[-1].startswith(f"FAILED: simulated-cnn, {LABEL}: usd_per_million is 1.")
    assert any("not paired" in line for line in lines)
    assert "B cheaper" in lines[1]


def test_a_comparison_without_prices_shows_no_dollars_and_says_what_differs() -> None:
    run = run_of(0)
    fewer = run.model_copy(update={"cells": run.cells[1:]})
    text = text_of(show_comparison, compare(run, fewer, fail_if="median_ms>5%"))
    assert "USD" not in text
    assert f"only in A: simulated-cnn {run.cells[0].spec.label}" in text
    assert "No cell is over median_ms>5%." in text


def test_an_invalid_cell_is_loud() -> None:
    run = run_of(0)
    busy = Watch(wall_s=0.1, worker_cpu_s=0.1, parent_cpu_s=0.0, machine_busy_s=0.2)
    cell = run.cells[0]
    rounds = tuple(replace(r, watch=busy) for r in cell.rounds)
    text = text_of(
        show_comparison, compare(run, replaced(run, cell.spec.cell_id, rounds=rounds), fail_if="median_ms>5%")
    )
    assert f"INVALID: simulated-cnn, {cell.spec.label}: B: other processes took 50.0%" in text
    assert f"1 of {len(run.cells)} cells were not held against the limits." in text


def test_a_self_test_says_whether_it_passed() -> None:
    good = SelfTest(simulated=True, pairs=pairs(20, 0.0), moves=(move(2.2, "other work"),), quiet_invalid="busy")
    text = text_of(show_self_test, good)
    assert "of 20 cells measured against themselves had a winner [simulated]" in text
    assert "+10.0%" in text
    assert "INVALID: even the quiet run was disturbed: busy" in text
    assert text.strip().endswith("The self-test passed.")
    bad = text_of(show_self_test, SelfTest(simulated=True, pairs=pairs(100, 0.1), moves=(move(1.5),)))
    assert "FAILED: m c: its ratio moved by 25.0%" in bad
    assert bad.strip().endswith("The self-test failed.")

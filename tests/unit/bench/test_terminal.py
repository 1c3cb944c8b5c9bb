from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from kcost.bench.compare import Comparison, compare
from kcost.bench.self_test import SelfTest
from kcost.report.bench_terminal import compared, largest_first, show_comparison, show_self_test
from kcost.report.tables import ROWS
from testing.runs import disturbed
from testing.terminal import printed
from tests.unit.bench.runs_to_compare import LABEL, PRICES, run_of, slowed
from tests.unit.bench.self_tests import move, pairs


def text_of(show: object, *shown: object) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    show(console, *shown)  # type: ignore[operator]
    return console.export_text()


def test_a_comparison_says_what_fails_first_and_shows_all_on_request() -> None:
    comparison = compare(
        run_of(0), slowed(run_of(1), 1.5, LABEL, session="b"), fail_if="usd_per_million>5%", usd_per_hour=PRICES
    )
    lines = text_of(show_comparison, comparison).strip().splitlines()
    assert sum(LABEL.removeprefix("inference ") in line for line in lines) == 2
    assert lines[0].startswith(f"FAILED: simulated-cnn, {LABEL}: usd_per_million is 1.")
    assert lines[1].startswith(f"Of {len(comparison.changes)} cells that both runs hold, run B is dearer in 1 and")
    assert lines[1].endswith("can't be told apart.")
    assert LABEL.removeprefix("inference ") in lines[4], "the largest change first"
    assert any("not paired" in line for line in lines)
    assert "USD per" in lines[2]
    assert "B faster" not in lines[3]
    everything = text_of(lambda console, shown: show_comparison(console, shown, everything=True), comparison)
    assert "B faster" in everything
    assert "B cheaper" in everything


def test_a_comparison_fits_a_screen(many: Comparison) -> None:
    lines = printed(show_comparison, many)
    assert sum("paired" in line for line in lines) == ROWS
    assert f"and {len(many.changes) - ROWS} more: --all" in lines
    printed(show_comparison, many, everything=True)


@pytest.fixture
def many() -> Comparison:
    one = compare(run_of(0), run_of(1), usd_per_hour=PRICES)
    return one.model_copy(update={"changes": tuple(list(one.changes) * 20)[:40]})


def test_a_comparison_without_prices_shows_no_dollars_and_says_what_differs() -> None:
    run = run_of(0)
    fewer = run.model_copy(update={"cells": run.cells[1:]})
    text = text_of(show_comparison, compare(run, fewer, fail_if="median_ms>5%"))
    assert "USD" not in text
    assert f"only in A: simulated-cnn {run.cells[0].spec.label}" in text
    assert "No cell is over median_ms>5%." in text


def test_an_invalid_cell_is_loud_and_has_no_dollars() -> None:
    whole = run_of(0)
    run = whole.model_copy(update={"cells": whole.cells[:3]})
    cell = run.cells[0]
    b = disturbed(run, cell.spec.cell_id)
    comparison = compare(run, b, fail_if="median_ms>5%", usd_per_hour=PRICES)
    text = text_of(show_comparison, comparison)
    label = cell.spec.label.removeprefix("inference ")
    row = next(line for line in text.splitlines() if line.startswith(label))
    assert row.removeprefix(label).split() == ["-", "-", "measure", "again", "-", *row.split()[-2:]]
    assert sum("$" in line for line in text.splitlines()) == len(run.cells) - 1
    assert "USD per" in text
    assert f"INVALID: simulated-cnn, {cell.spec.label}: B: other processes took 50.0%" in text
    assert f"1 of {len(run.cells)} cells were not held against the limits." in text
    everything = text_of(lambda console, shown: show_comparison(console, shown, everything=True), comparison)
    row = next(line for line in everything.splitlines() if line.startswith(label))
    assert row.split()[-2:] == ["-", "-"], "no probability either"


def test_an_invalid_cell_stands_last_however_much_it_changed() -> None:
    run = run_of(0)
    spec = run.cells[0].spec
    comparison = compare(run, disturbed(slowed(run, 9.0, spec.label), spec.cell_id), usd_per_hour=PRICES)
    changes = largest_first(comparison.changes)
    assert changes[-1].cell == spec.label
    ratios = [abs(math.log(compared(change).ratio)) for change in changes[:-1]]
    assert ratios == sorted(ratios, reverse=True)


def test_a_self_test_says_whether_it_passed() -> None:
    good = SelfTest(simulated=True, pairs=pairs(20, 0.0), moves=(move(2.2, "other work"),), quiet_invalid="busy")
    text = text_of(show_self_test, good)
    assert "of 20 cells measured against themselves had a winner [simulated]" in text
    assert "+10.0%" in text
    assert "INVALID: even the quiet run was disturbed: busy" in text
    assert text.startswith("The self-test passed.")
    bad = text_of(show_self_test, SelfTest(simulated=True, pairs=pairs(100, 0.1), moves=(move(1.5),)))
    assert "FAILED: m c: its ratio moved by 25.0%" in bad
    assert bad.startswith("The self-test failed.")

"""The library's own hot paths, without any framework: expanding a plan, storing and reading runs, statistics over
samples, ranking, and the page of a report. The cells are drawn from a generator; see stored_cells.py for a large run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost.bench.compare import compare
from kcost.bench.store import RunStore, open_run
from kcost.core.plan import Plan, Settings, expand
from kcost.core.result import Run
from kcost.core.scores import entity_f1
from kcost.core.stats import location, median_per_round, paired_ratio, tail
from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import Verdict, conclude, prices_for
from kcost.report.page import render
from testing.runs import MODELS, SHA256, plan, simulated_run, write_run

CELLS = 1020
BATCHES = tuple(range(1, 31))

Stored = tuple[Path, Run]


@pytest.fixture(scope="module")
def wide() -> Plan:
    return plan(models=tuple(MODELS), batches=BATCHES, settings=Settings())


@pytest.fixture(scope="module")
def stored(wide: Plan, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A run of 1,020 cells with all that a worker and its parent write down."""
    run, outputs = simulated_run(wide, steps=None)
    path = tmp_path_factory.mktemp("hot") / "run"
    write_run(path, run, outputs)
    return path, run


def verdict_of(stored: Stored) -> Verdict:
    path, run = stored
    return conclude(run, prices_for(run, PriceBook.read()), RunStore(path).read_outputs)


def test_expand_a_plan(benchmark: Any, wide: Plan) -> None:
    specs = benchmark(expand, wide, dict.fromkeys(MODELS, SHA256))
    assert len({s.cell_id for s in specs}) == CELLS


def test_open_a_run(benchmark: Any, stored: Stored) -> None:
    path, run = stored
    assert len(benchmark(open_run, path).cells) == len(run.cells) == CELLS


def test_store_a_cell_again(benchmark: Any, stored: Stored) -> None:
    """What happens after each turn of a cell."""
    path, run = stored
    store = RunStore(path)
    benchmark(store.write_cell, run.cells[0])
    assert store.read_cell(run.cells[0].spec.cell_id) == run.cells[0]


def test_rank_a_run_in_dollars(benchmark: Any, stored: Stored) -> None:
    verdict = benchmark.pedantic(verdict_of, (stored,), rounds=5, warmup_rounds=1)
    assert sum(len(r.cells) for r in verdict.rankings) == CELLS


def test_draw_the_page(benchmark: Any, stored: Stored) -> None:
    page = benchmark.pedantic(render, (stored[1], verdict_of(stored)), rounds=5, warmup_rounds=1)
    assert b"simulated-bert" in page


def test_compare_two_runs(benchmark: Any, stored: Stored) -> None:
    _, run = stored
    prices = dict.fromkeys(run.environments, 0.1)
    comparison = benchmark.pedantic(
        compare, (run, run), {"fail_if": "usd_per_million>3%", "usd_per_hour": prices}, rounds=5, warmup_rounds=1
    )
    assert len(comparison.changes) == CELLS
    assert not comparison.failed


STATISTICS: dict[str, tuple[Callable[[Any], Any], Callable[[np.random.Generator], Any]]] = {
    "medians of 10 rounds of 10 steps": (
        median_per_round,
        lambda rng: [tuple(map(int, r)) for r in rng.integers(1e6, 2e6, (10, 10))],
    ),
    "interval of 10 medians": (location, lambda rng: rng.uniform(1e6, 2e6, 10)),
    "ratio over 10 rounds": (lambda v: paired_ratio(*v), lambda rng: rng.uniform(1e6, 2e6, (2, 10))),
    "p99 of 10,000 steps": (tail, lambda rng: [int(v) for v in rng.exponential(1e6, 10_000)]),
    "entity F1 of 400 sentences": (
        lambda tags: entity_f1(*tags, split="test"),
        lambda rng: rng.choice(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], (2, 400, 12)).tolist(),
    ),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics(benchmark: Any, name: str) -> None:
    benchmark.group = "statistics"
    function, made = STATISTICS[name]
    values = made(np.random.default_rng(0))
    assert benchmark(function, values) is not None

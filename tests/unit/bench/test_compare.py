from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from kcost.bench.compare import METRICS, Comparison, compare, parse_limits
from kcost.core.errors import InputError
from kcost.core.result import Watch
from testing.runs import environment, replaced
from tests.unit.bench.runs_to_compare import LABEL, PRICES, run_of, slowed


def test_a_run_against_itself_is_paired_and_the_same() -> None:
    run = run_of(0)
    comparison = compare(run, run, fail_if="median_ms>0%,usd_per_million>0%", usd_per_hour=PRICES)
    assert len(comparison.changes) == len(run.cells)
    assert {c.how for c in comparison.changes} == {"paired"}
    assert {c.median_ms.ratio for c in comparison.changes} == {1.0}
    assert {c.probability_b_faster for c in comparison.changes} == {0.5}
    assert not comparison.failed


def test_rounds_of_two_sessions_are_independent() -> None:
    comparison = compare(run_of(0), slowed(run_of(1), 1.0, session="next"))
    assert {c.how for c in comparison.changes} == {"independent"}
    assert all(c.median_ms.low < 1 < (c.median_ms.high or 0) for c in comparison.changes)


def test_a_clear_growth_fails_and_names_its_cell() -> None:
    run = run_of(0)
    comparison = compare(run, slowed(run_of(1), 1.5, LABEL, session="next"), fail_if="median_ms>5%")
    assert [f.cell for f in comparison.failures] == [LABEL]
    assert comparison.failed
    assert "limit median_ms>5%" in comparison.failures[0].reason
    change = next(c for c in comparison.changes if c.cell == LABEL)
    assert change.median_ms.ratio == pytest.approx(1.5, rel=0.1)
    assert change.probability_b_faster < 1e-4


def test_a_growth_within_the_limit_does_not_fail() -> None:
    run = run_of(0)
    assert not compare(run, slowed(run, 1.04), fail_if="median_ms>5%").failed
    assert compare(run, slowed(run, 1.06), fail_if="median_ms>5%").failed


def test_a_growth_that_may_be_noise_does_not_fail() -> None:
    run = run_of(0)
    cell = next(c for c in run.cells if c.spec.label == LABEL)
    noisy = tuple(
        replace(r, step_ns=tuple(int(ns * (1.6 if i % 2 else 0.7)) for ns in r.step_ns), session="b")
        for i, r in enumerate(cell.rounds)
    )
    other = replaced(run, cell.spec.cell_id, rounds=noisy)
    comparison = compare(run, other, fail_if="median_ms>1%")
    change = next(c for c in comparison.changes if c.cell == LABEL)
    assert change.median_ms.ratio > 1.01
    assert not comparison.failed


def test_equal_runs_seldom_fail_whatever_the_number_of_cells() -> None:
    failed = 0
    for seed in range(40):
        a, b = run_of(2 * seed), slowed(run_of(2 * seed + 1), 1.0, session="b")
        failed += compare(a, b, fail_if="median_ms>0%").failed
    # Expected 5% or fewer of 40; cells of a simulated run share their drift, which lumps false alarms together.
    assert failed <= 6


def test_dollars_follow_time_and_price() -> None:
    run = run_of(0)
    comparison = compare(run, slowed(run, 2.0), usd_per_hour=PRICES)
    for change in comparison.changes:
        usd = change.usd_per_million
        assert usd is not None
        assert usd.ratio == pytest.approx(2.0, rel=1e-3)
        assert usd.b / usd.a == pytest.approx(2.0, rel=1e-3)
        assert change.probability_b_cheaper == pytest.approx(0.0, abs=1e-6)
    cell = next(c for c in comparison.changes if c.cell == LABEL)
    assert cell.usd_per_million is not None
    assert cell.usd_per_million.a == pytest.approx(cell.median_ms.a / 1e3 * 0.36 / 3600 / 32 * 1e6)


def test_a_cheaper_machine_makes_slower_cells_cheaper() -> None:
    other = environment(host="other")
    b = slowed(run_of(0, machine=other), 1.2)
    prices = {**PRICES, other.environment_id: 0.18}
    comparison = compare(run_of(0), b, usd_per_hour=prices, allow_different=True)
    assert comparison.differences == ("host",)
    for change in comparison.changes:
        assert change.probability_b_faster < 0.01
        assert (change.probability_b_cheaper or 0) > 0.99


def test_different_environments_are_refused_by_name() -> None:
    b = run_of(0, machine=environment(packages={"keras": "3.16.0"}, git_revision="abc"))
    with pytest.raises(InputError, match=r"packages\.jax, packages\.keras, packages\.tensorflow, packages\.torch"):
        compare(run_of(0), b)


def test_another_revision_and_another_model_file_may_differ() -> None:
    b = run_of(1, machine=environment(git_revision="abc"))
    cells = tuple(c.model_copy(update={"spec": c.spec.model_copy(update={"model_sha256": "f" * 64})}) for c in b.cells)
    models = tuple(m.model_copy(update={"sha256": "f" * 64}) for m in b.index.models)
    index = b.index.model_copy(update={"models": models})
    comparison = compare(run_of(0), b.model_copy(update={"cells": cells, "index": index}))
    assert len(comparison.changes) == len(cells)
    assert comparison.differences == ()


def test_cells_of_one_run_alone_are_named() -> None:
    run = run_of(0)
    fewer = run.model_copy(update={"cells": run.cells[1:]})
    assert compare(run, fewer).only_in_a == (f"simulated-cnn {run.cells[0].spec.label}",)
    assert compare(fewer, run).only_in_b == (f"simulated-cnn {run.cells[0].spec.label}",)
    with pytest.raises(InputError, match="none in common"):
        compare(run, run.model_copy(update={"cells": ()}))


def test_a_cell_that_was_lost_fails_where_a_limit_was_given() -> None:
    run = run_of(0)
    b = replaced(run, run.cells[0].spec.cell_id, status="crash", reason="killed by SIGKILL")
    comparison = compare(run, b, fail_if="median_ms>50%")
    assert [f.reason for f in comparison.failures] == ["measured in A, crash in B: killed by SIGKILL"]
    assert not compare(run, b).failed


def test_an_invalid_cell_is_not_judged_and_is_named() -> None:
    run = run_of(0)
    cell = next(c for c in run.cells if c.spec.label == LABEL)
    busy = Watch(wall_s=0.1, worker_cpu_s=0.1, parent_cpu_s=0.0, machine_busy_s=0.2)
    rounds = tuple(replace(r, watch=busy) for r in slowed(run, 3.0).cells[0].rounds)
    b = replaced(run, cell.spec.cell_id, rounds=rounds)
    comparison = compare(run, b, fail_if="median_ms>5%", usd_per_hour=PRICES)
    assert comparison.not_judged == (f"simulated-cnn {LABEL}",)
    assert not comparison.failed
    change = next(c for c in comparison.changes if c.cell == LABEL)
    assert str(change.invalid).startswith("B: other processes took")
    assert (change.usd_per_million, change.probability_b_cheaper) == (None, None)
    assert all(c.usd_per_million is not None for c in comparison.changes if c is not change)


def test_one_round_is_too_little_to_judge() -> None:
    run = run_of(0)
    one = replaced(run, run.cells[0].spec.cell_id, rounds=run.cells[0].rounds[:1])
    comparison = compare(run, slowed(one, 9.0, run.cells[0].spec.label, session="b"), fail_if="median_ms>5%")
    assert len(comparison.not_judged) == 1
    change = next(c for c in comparison.changes if c.rounds_b == 1)
    assert (change.median_ms.low, change.median_ms.high) == (0.0, None)


def test_a_comparison_is_plain_data() -> None:
    comparison = compare(run_of(0), run_of(0), fail_if="median_ms>5%")
    document = comparison.model_dump(mode="json")
    assert (document["failed"], document["fail_if"]) == (False, ["median_ms>5%"])
    assert Comparison.model_validate({k: v for k, v in document.items() if k != "failed"}) == comparison


@given(st.sampled_from(METRICS), st.integers(0, 500))
def test_limits_come_back_as_they_were_written(metric: str, percent: int) -> None:
    (limit,) = parse_limits(f" {metric} > {percent} % ")
    assert str(limit) == f"{metric}>{percent}%"


@given(st.text(max_size=30))
def test_no_text_ends_in_another_error(text: str) -> None:
    try:
        parse_limits(text)
    except InputError as error:
        assert "METRIC>NUMBER%" in str(error)  # noqa: PT017 -- most texts are refused, some are empty


@pytest.mark.parametrize(
    "text", ["p99>3%", "median_ms<3%", "median_ms>3", "median_ms>-3%", "median_ms>x%", "median_ms"]
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="METRIC>NUMBER%"):
        parse_limits(text)


def test_a_limit_in_dollars_needs_prices() -> None:
    assert parse_limits(None) == parse_limits(" , ") == ()
    with pytest.raises(InputError, match="needs prices"):
        compare(run_of(0), run_of(0), fail_if="usd_per_million>3%")

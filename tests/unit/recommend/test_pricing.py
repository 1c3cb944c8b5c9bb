"""From a simulated run to judged ways, standings, and a ranking in dollars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.result import CellResult, Run
from kcost.cost.assumptions import Assumptions
from kcost.cost.pricebook import PriceBook
from kcost.cost.traffic import constant
from kcost.recommend.bounds import Work
from kcost.recommend.candidates import Candidate, Listed, Machine, list_candidates
from kcost.recommend.composing import compose
from kcost.recommend.pricing import Priced, price, uncredited
from kcost.recommend.spent import Spent
from kcost.recommend.standings import Capacities, Judged, floor_of, judge, standings_of
from kcost.recommend.terms import ENDLESS, Limits, Terms, expected_total_usd
from kcost.risk.figures import Figure
from testing.runs import environment, plan, simulated_run
from tests.unit.recommend.answers import answer

CANDIDATES = tuple(
    c
    for c in list_candidates(
        Machine(backends=("tensorflow", "jax", "torch"), runtimes=(), cores=2, cpu_features=("avx512_bf16",)),
        batches=(1, 32),
        calibration=True,
    ).candidates
    if c.effort != "compile" and not c.threads
)
BOOK = PriceBook.read()
CAPACITIES = Capacities(0)
"""Simulated once for all tests."""


def terms(qps: float = 3_000, p99_ms: float = 100.0, max_drop: float = 0.05, **changes: Any) -> Terms:
    return Terms(
        traffic=constant(qps),
        assumed=Assumptions(**changes),
        limits=Limits(p99_ms=p99_ms, max_drop=max_drop),
        book=BOOK,
        provider="aws",
        region="us-east-1",
        instance=None,
        seed=0,
    )


@pytest.fixture(scope="module")
def simulated() -> tuple[Run, Callable[[CellResult], Any]]:
    run, outputs = simulated_run(plan(phases=("inference",), precisions=("float32", "bfloat16")))
    return run, lambda cell: outputs.get(cell.spec.cell_id)


def judged_of(simulated: tuple[Run, Callable[[CellResult], Any]], some: Terms) -> Judged:
    return judge(*simulated, some, CANDIDATES)


def priced_of(judged: Judged, some: Terms, **changes: Any) -> Priced:
    priced = price(judged, some, CAPACITIES, draws=1_000, **changes)
    assert priced is not None
    return priced


def test_examples_without_labels_are_counted_and_labelled_ones_are_not(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    run, outputs = simulated
    assert judged_of(simulated, terms()).unlabelled is None

    def without_labels(cell: CellResult) -> Any:
        arrays = outputs(cell)
        return None if arrays is None else {n: a for n, a in arrays.items() if "labels" not in n}

    assert judged_of((run, without_labels), terms()).unlabelled == len(outputs(run.cells[0])["labels"])
    assert judged_of((run, lambda cell: None), terms()).unlabelled is None  # nothing was answered


def test_each_candidate_has_its_own_way_under_its_own_name(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    judged = judged_of(simulated, terms())
    assert judged.ways.keys() | judged.refused.keys() == {c.name for c in CANDIDATES}
    assert judged.ways["tensorflow/predict float32"].is_plain
    assert all(way.name == name and way.service.sizes == (1, 32) for name, way in judged.ways.items())


def test_a_lower_precision_is_held_to_the_bound_of_its_drop(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    lower = {c.name for c in CANDIDATES if c.precision == "bfloat16"}
    judged = judged_of(simulated, terms(max_drop=0.0))
    assert judged.drops.keys() == lower
    assert lower <= judged.refused.keys()
    for name, drop in judged.drops.items():
        allowed = judged_of(simulated, terms(max_drop=min(1.0, drop.bound + 1e-9)))
        assert name in allowed.ways
    undecided = judged.undecided
    assert all(d.value <= 0 < d.bound for d in undecided.values())


def test_the_ranking_is_by_cost_and_its_chances_are_shares_of_the_draws(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    priced = priced_of(judged_of(simulated, terms()), terms())
    totals = [r.usd_with_errors for r in priced.ranked]
    assert totals == sorted(totals)
    assert sum(r.probability for r in priced.ranked) == pytest.approx(1)
    assert priced.ranked[0].name.startswith("jax/jit")
    plain = next(r for r in priced.ranked if r.is_plain)
    assert priced.saved is not None
    assert priced.saved.value == pytest.approx(plain.usd_per_month.value - priced.ranked[0].usd_per_month.value)
    assert priced.doubt.expected_loss_usd >= 0


def test_where_one_instance_does_today_s_way_stays(simulated: tuple[Run, Callable[[CellResult], Any]]) -> None:
    priced = priced_of(judged_of(simulated, terms(qps=1)), terms(qps=1))
    assert priced.ranked[0].is_plain
    assert priced.saved is None


def test_of_equal_bills_float32_goes_before_a_lower_precision(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    few = terms(qps=1, work_hours=0.0)
    rows = priced_of(judged_of(simulated, few), few).ranked
    tied = [r for r in rows if r.usd_total.value == rows[0].usd_total.value]
    assert rows[0].is_plain
    assert [r.drop is not None for r in tied] == sorted(r.drop is not None for r in tied)


def test_errors_count_in_the_ranking(simulated: tuple[Run, Callable[[CellResult], Any]]) -> None:
    judged = judged_of(simulated, terms())
    before = priced_of(judged, terms()).ranked[0].name

    def figure(usd: float) -> Figure:
        return Figure(name="loss_usd_per_million", value=usd, low=usd, high=usd, count=9, unit="examples")

    errors = {name: figure(1e6 if name == before else 1.0) for name in judged.ways}
    priced = priced_of(judged, terms(), errors=errors)
    assert priced.ranked[0].name != before
    shown = priced.ranked[0].errors_usd_per_month
    assert shown is not None
    assert shown.value == pytest.approx(3_000 * 3600 * 730 / 1e6)


def test_a_lower_precision_is_not_credited_with_answers_that_are_right_by_chance(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    drops = judged_of(simulated, terms()).drops

    def figure(usd: float) -> Figure:
        return Figure(name="loss_usd_per_million", value=usd, low=usd, high=usd, count=9, unit="examples")

    lucky, worse = list(drops)[:2]
    figures = uncredited({"jax/jit float32": figure(10), lucky: figure(9), worse: figure(12)}, drops)
    assert {n: f.value for n, f in figures.items()} == {"jax/jit float32": 10, lucky: 10, worse: 12}
    assert uncredited({lucky: figure(9)}, drops)[lucky].value == 9


def test_what_was_disturbed_has_no_price(simulated: tuple[Run, Callable[[CellResult], Any]]) -> None:
    judged = judged_of(simulated, terms())
    best = priced_of(judged, terms()).ranked[0].name
    priced = priced_of(judged._replace(invalid={best: "beside other work"}), terms())
    assert best not in {r.name for r in priced.ranked}
    assert price(judged._replace(invalid=dict.fromkeys(judged.ways, "so")), terms(), CAPACITIES) is None


def test_nothing_is_priced_where_what_was_disturbed_is_cheaper_all_the_same(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    judged = judged_of(simulated, terms())
    ranked = priced_of(judged, terms()).ranked
    cheap, dear = ranked[0], ranked[-1]
    assert cheap.usd_total.high < dear.usd_total.low
    two = judged._replace(ways={n: w for n, w in judged.ways.items() if n in (cheap.name, dear.name)})
    assert price(two._replace(invalid={cheap.name: "beside other work"}), terms(), CAPACITIES) is None
    left = price(two._replace(invalid={dear.name: "beside other work"}), terms(), CAPACITIES)
    assert left is not None
    assert [r.name for r in left.ranked] == [cheap.name]


def test_labels_that_would_decide_a_cheaper_way_have_a_worth(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    some = terms(qps=100_000)
    judged = judged_of(simulated, some)
    cheaper = next((n for n in judged.drops if n.startswith("jax/jit")), None)
    assert cheaper is not None
    limit = judged.drops[cheaper].bound - 1e-4
    strict = some._replace(limits=Limits(p99_ms=100, max_drop=max(limit, 0.0)))
    refused = judged_of(simulated, strict)
    assert cheaper in refused.undecided
    doubt = priced_of(refused, strict, usd_per_label=0.1).doubt
    assert doubt.labels is not None
    assert doubt.labels_usd == pytest.approx(0.1 * doubt.labels)
    assert doubt.labels_worth_usd is not None
    assert doubt.labels_worth_usd > 0


def test_standings_hold_the_price_and_a_way_that_is_too_slow_costs_infinitely_much(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    some = terms(p99_ms=5.0)
    standings = standings_of(judged_of(simulated, some), some, CAPACITIES)
    assert standings["tensorflow/predict float32"].value_usd == float("inf")
    assert all(s.low_usd <= s.value_usd <= s.high_usd for s in standings.values())
    assert all(s.rounds == 6 for s in standings.values())


@settings(max_examples=30)
@given(st.floats(1, 1e5), st.floats(1.01, 10))
def test_a_faster_replica_never_costs_more(rate: float, factor: float) -> None:
    some, here = terms(), environment()
    from kcost.recommend.standings import offers_of

    offers = offers_of(some, here)
    slow, fast = (expected_total_usd(some, offers, r, is_plain=False) for r in (rate, rate * factor))
    assert fast <= slow * (1 + 1e-9)
    assert expected_total_usd(some, offers, ENDLESS, is_plain=False) <= fast * (1 + 1e-9)


def test_a_bound_is_below_what_was_measured_and_falls_with_fewer_flops(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    some = terms(qps=1e6)
    judged = judged_of(simulated, some)
    floor = floor_of(some, environment(), CANDIDATES, Work(1e6))
    heavy = floor_of(some, environment(), CANDIDATES, Work(1e9))
    standings = standings_of(judged, some, CAPACITIES)
    for name in judged.ways:
        assert floor.usd <= floor.by_candidate[name] <= heavy.by_candidate[name]
        assert floor.by_candidate[name] <= standings[name].value_usd
    unknown = floor_of(some, environment(), CANDIDATES, Work(0))
    assert set(unknown.by_candidate.values()) == {unknown.usd}
    assert np.isfinite(floor.usd)


def test_what_computes_dense_products_alone_in_int8_is_bound_by_its_convolutions_in_float32() -> None:
    ways = {
        precision: Candidate(
            backend="torch", method="onnx", precision=precision, device="cpu", threads=0, batches=(8,), effort="convert"
        )
        for precision in ("float32", "int8", "int8_dynamic")
    }
    some = terms(qps=1e6)
    dense, convolutions = Work(1e9), Work(1e9, convolution_flops=1e9)

    def bound(precision: str, work: Work) -> float:
        return floor_of(some, environment(), list(ways.values()), work).by_candidate[ways[precision].name]

    assert bound("int8_dynamic", dense) == bound("int8", dense) < bound("float32", dense)
    assert bound("int8_dynamic", convolutions) == bound("float32", convolutions) > bound("int8", convolutions)


def without_large_batches_of_plain_keras(run: Run, **changes: Any) -> Run:
    cells = (c.model_copy(update=changes) if (c.spec.method, c.spec.batch) == ("predict", 32) else c for c in run.cells)
    return run.model_copy(update={"cells": tuple(cells)})


def saving_sentence(judged: Judged, priced: Priced) -> str:
    """The sentence on the saving."""
    nothing: dict[str, Any] = {"gates": (), "notices": (), "projected": (), "made": (), "made_at": "now"}
    listed, spent = Listed(candidates=CANDIDATES, left_out=()), Spent({}, {}, (), 1.0, None, False)
    return compose(answer().request, "m", listed, judged, priced, spent, **nothing).words[1]


def test_no_saving_is_told_against_plain_keras_at_fewer_batch_sizes(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    run, outputs = simulated
    whole = judged_of(simulated, terms())
    assert "saves $" in saving_sentence(whole, priced_of(whole, terms()))
    cut = judged_of((without_large_batches_of_plain_keras(run, status="partial", rounds=()), outputs), terms())
    assert cut.lacking("tensorflow/predict float32", "jax/jit float32") == (32,)
    priced = priced_of(cut, terms())
    plain = next(r for r in priced.ranked if r.is_plain)
    assert priced.saved is None
    why = f"not measured at batch 32, as {priced.ranked[0].name} was: the same command with more --minutes goes on."
    assert saving_sentence(cut, priced).endswith(f"no saving can be told: it was {why}")
    assert plain.batch_limit == 1


def test_a_saving_is_told_where_plain_keras_cannot_run_at_a_batch_size(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    run, outputs = simulated
    failed = judged_of((without_large_batches_of_plain_keras(run, status="oom", rounds=()), outputs), terms())
    priced = priced_of(failed, terms())
    assert priced.saved is not None
    assert "saves $" in saving_sentence(failed, priced)


def test_a_way_whose_outputs_differ_says_that_it_may_have_been_fed_others(
    simulated: tuple[Run, Callable[[CellResult], Any]],
) -> None:
    """As where a run goes on under another seed: what it holds by then is the reference."""
    run, outputs = simulated

    def answered(cell: CellResult) -> Any:
        arrays = outputs(cell)
        return arrays if cell.spec.method != "jit" else {**arrays, "outputs": arrays["outputs"] + np.float32(0.1)}

    refused = judge(run, answered, terms(), CANDIDATES).refused["jax/jit float32"]
    assert refused.startswith("outputs differ: by up to 0.1")
    assert refused.endswith("was fed other inputs: measure into a new folder)")

"""Seconds on another size of the same family: what is known of them, and that they stand marked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, strategies as st
from typer.testing import CliRunner

import kcost
from kcost.cli import app
from kcost.core.errors import InputError
from kcost.core.plan import Settings
from kcost.core.result import Run
from kcost.cost.assumptions import Assumptions
from kcost.cost.budget import Budget
from kcost.cost.instances import offers_for
from kcost.cost.notices import SEVERITY, Code
from kcost.cost.pricebook import PriceBook
from kcost.cost.scaling import fewer_cores, on_offers, workers_sd
from kcost.cost.serving_ways import Way, serving_ways
from kcost.cost.sizing import rates_of
from kcost.cost.traffic import constant
from kcost.cost.uncertainty import Medians, causes_in, draw, only, spend, without
from kcost.cost.verdict import conclude, prices_for
from testing.budgets import option
from testing.runs import environment, plan, simulated_run, write_run

HERE = {"provider": "aws", "region": "us-east-1"}
BOOK = PriceBook.read()


def run_of(cores: int, threads: tuple[int, ...] = (0,)) -> tuple[Run, dict[str, dict[str, np.ndarray]]]:
    small = plan(
        backends=("tensorflow", "jax"),
        phases=("inference",),
        methods=("predict", "jit"),
        precisions=("float32",),
        threads=threads,
        settings=Settings(rounds=6),
    )
    return simulated_run(small, machine=environment(cores=cores))


def ways_of(run: Run, outputs: dict[str, dict[str, np.ndarray]]) -> list[Way]:
    verdict = conclude(run, prices_for(run, BOOK, **HERE), lambda cell: outputs.get(cell.spec.cell_id))
    return serving_ways(run, verdict, (), 0.0)[0]


def budget(folder: Path, cores: int, instance: str | None, threads: tuple[int, ...] = (0,)) -> Budget:
    store = write_run(folder / f"run-{cores}-{len(threads)}", *run_of(cores, threads))
    return kcost.estimate_budget(store.path, qps=500, p99_ms=2_000, instance=instance, **HERE)


@given(st.integers(2, 256), st.integers(1, 255))
def test_no_step_gains_more_from_cores_than_there_are(cores: int, vcpus: int) -> None:
    vcpus = min(vcpus, cores - 1)
    scaling = fewer_cores(cores, vcpus, 0.1)
    assert scaling.low == pytest.approx(1)
    assert scaling.high == pytest.approx(cores / vcpus)
    assert 1 < scaling.times < cores / vcpus
    assert f"--threads {vcpus}" in scaling.why


def test_what_was_measured_with_so_many_threads_is_the_value() -> None:
    scaling = fewer_cores(4, 2, 0.1, with_threads=1.3)
    assert scaling.times == 1.3
    assert (scaling.low, scaling.high) == (pytest.approx(1.3 / 1.1), pytest.approx(1.3 * 1.1))
    assert scaling.high - scaling.low < fewer_cores(4, 2, 0.1).high - fewer_cores(4, 2, 0.1).low


@given(st.integers(1, 64), st.floats(0, 2))
def test_workers_side_by_side_are_doubted_by_doubling(workers: int, spread: float) -> None:
    assert workers_sd(1, spread) == 0
    assert workers_sd(2 * workers, spread) == pytest.approx(workers_sd(workers, spread) + workers_sd(2, spread))


def test_a_smaller_instance_takes_longer_and_a_machine_of_its_size_does_not() -> None:
    run, outputs = run_of(4)
    ways = ways_of(run, outputs)
    for instance, times in (("m7i.large", math.sqrt(2)), ("m7i.xlarge", 1.0), ("m7i.2xlarge", 1.0)):
        offers = {w.name: offers_for(w.environment, BOOK, instance=instance, **HERE) for w in ways}
        for before, after in zip(ways, on_offers(ways, offers, 0.1), strict=True):
            assert after.service.mean_s(32) == pytest.approx(before.service.mean_s(32) * times)
            assert (after.scaling is None) is (times == 1.0)
            for key, ns in before.medians_ns[32].items():
                assert after.medians_ns[32][key] == pytest.approx(ns * times)
        once = on_offers(ways, offers, 0.1)
        assert [w.medians_ns for w in on_offers(once, offers, 0.1)] == [w.medians_ns for w in once], "not twice"


def test_threads_that_were_measured_say_how_a_step_scales() -> None:
    run, outputs = run_of(4, (0, 2))
    slower = {
        c.spec.cell_id: tuple(
            type(r)(session=r.session, number=r.number, step_ns=tuple(3 * ns for ns in r.step_ns)) for r in c.rounds
        )
        for c in run.cells
        if c.spec.threads == 2
    }
    cells = tuple(c.model_copy(update={"rounds": slower.get(c.spec.cell_id, c.rounds)}) for c in run.cells)
    ways = ways_of(run.model_copy(update={"cells": cells}), outputs)
    offers = {w.name: offers_for(w.environment, BOOK, instance="m7i.large", **HERE) for w in ways}
    scaled = [w for w in on_offers(ways, offers, 0.1) if w.scaling is not None]
    assert {w.spec.threads for w in scaled} == {0}, "two threads fit on two vCPUs as they are"
    assert all(w.scaling is not None and w.scaling.times == pytest.approx(3, rel=0.1) for w in scaled)


def test_an_instance_that_is_smaller_is_not_offered_beside_others() -> None:
    machine = environment(cores=3)
    offers = offers_for(machine, BOOK, **HERE)
    assert len(offers) == 1 or all((o.price.vcpus or 0) >= 3 for o in offers)


def test_a_scaled_bill_is_marked_wider_and_says_why(tmp_path: Path) -> None:
    own, smaller, larger = (budget(tmp_path / str(i), 4, name) for i, name in enumerate(
        ("m7i.xlarge", "m7i.large", "m7i.2xlarge")))  # fmt: skip

    def width(one: Budget) -> float:
        month = one.options[0].usd_per_month
        return month.high / month.low

    assert {p.bill.option.basis for p in own.options} == {"measured"}
    for scaled in (smaller, larger):
        assert {p.bill.option.basis for p in scaled.options} == {"scaled"}
        assert "scaled" in scaled.sentence.split("]")[0]
        assert all(p.bill.option.scaling_sd > 0 for p in scaled.options)
    assert "times as long" in smaller.options[0].bill.option.basis_why
    assert "scaling" in {s.cause for s in smaller.tornado}
    assert "scaling" not in {s.cause for s in own.tornado}
    by_name = {p.bill.option.name: p.bill.option.queries_per_s_at_full_load for p in own.options}
    for priced in smaller.options:
        full = priced.bill.option.queries_per_s_at_full_load
        assert full == pytest.approx(by_name[priced.bill.option.name] / math.sqrt(2), rel=0.01)


def test_scaling_is_a_cause_of_its_own_and_changes_no_other_draw() -> None:
    plain = [option(), option("b")]
    scaled = [option(scaling_sd=0.3), option("b")]
    medians: list[Medians] = [{}, {}]
    assumed, rates = Assumptions(), rates_of(constant(5_000))
    without_scaling, with_scaling = (draw(o, medians, assumed, 2_000, 1) for o in (plain, scaled))
    for name in ("step", "capacity", "price", "traffic", "work"):
        np.testing.assert_array_equal(getattr(without_scaling, name), getattr(with_scaling, name))
    assert causes_in(without_scaling) == ("step time", "capacity", "traffic", "price", "work")
    assert "scaling" in causes_in(with_scaling)
    alone = only(with_scaling, "scaling")
    assert np.log(alone.scaling[:, 0].std() / 0.3) == pytest.approx(0, abs=0.1)
    totals = spend(scaled, rates, assumed, alone).total
    assert totals[:, 0].std() > 0 == totals[:, 1].std()
    assert spend(scaled, rates, assumed, without(alone, "scaling")).total.std(axis=0).max() == 0


def test_dollars_of_another_machine_are_marked_in_the_table_and_noticed(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run", *run_of(4))
    shown = CliRunner().invoke(app, ["cost", str(store.path), "--instance", "m7i.large", "--region", "us-east-1"])
    assert shown.exit_code == 0, shown.output
    verdict = kcost.estimate_cost(store.path, instance="m7i.large", **HERE)
    assert "price-of-another-size" in {n.code for n in verdict.notices}
    assert {r.mark for r in verdict.rankings} == {""}, "made-up seconds are called simulated"
    real = [r.model_copy(update={"cells": tuple(c.model_copy(
        update={"cost": c.cost.model_copy(update={"basis": "scaled"})}) for c in r.cells)})
        for r in verdict.rankings]  # fmt: skip
    assert {r.mark for r in real} == {" [scaled]"}


def test_every_notice_has_its_place() -> None:
    assert set(SEVERITY) == set(get_args(Code))


def test_the_doubt_of_workers_is_an_assumption_with_an_option() -> None:
    listed = {a.name: a for a in Assumptions().listed()}
    assert listed["scaling_spread"].option == "--scaling-spread"
    with pytest.raises(InputError, match="scaling_spread"):
        kcost.estimate_budget("nowhere", qps=1, p99_ms=10, assumptions={"scaling_spread": -1})

"""The invoice beside its forecast: by how much they differ, and through what, with nothing left over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

import kcost
from kcost.api.forecasts import read_forecasts
from kcost.bench.store import RunStore
from kcost.core import schema
from kcost.core.errors import InputError
from kcost.cost.assumptions import Assumptions
from kcost.cost.budget import make_budget
from kcost.cost.forecast import Forecast, difference, forecast_of_budget
from kcost.cost.invoice import NS_PER_HOUR, Meter
from kcost.cost.traffic import constant
from testing.budgets import option

POSITIVE = st.floats(1e-6, 1e6)
SHARES = st.floats(1e-4, 1.0)
PLAN = Forecast(way="tensorflow/saved_model", source="f", usd_per_hour=0.36, machine_s=0.002, batch=32, busy_share=0.4)


@given(POSITIVE, POSITIVE, SHARES, POSITIVE, POSITIVE, st.none() | SHARES)
def test_nothing_of_the_difference_is_left_over(
    usd: float, machine_s: float, busy: float, other_usd: float, other_s: float, other_busy: float | None
) -> None:
    plan = PLAN.model_copy(update={"usd_per_hour": other_usd, "machine_s": other_s, "busy_share": other_busy})
    apart = difference(plan, usd_per_hour=usd, machine_s=machine_s, busy_share=busy, together=1.0)
    actual = usd / 3600 * machine_s * 1e6 / (1.0 if other_busy is None else busy)
    forecast = plan.usd_per_million if other_busy is None else plan.usd_per_million_with_idle
    assert forecast is not None
    assert apart.times == pytest.approx(actual / forecast)
    assert apart.times == pytest.approx(apart.price_times * apart.machine_s_times * apart.idle_times)


def test_the_reasons_are_told_in_words_the_largest_first() -> None:
    why = difference(PLAN, usd_per_hour=0.36, machine_s=0.006, busy_share=0.04, together=1.1).why
    assert why == (
        "30.0 times the forecast: the machine was busy 4.00% of the time, not 40.0% (10.0 times dearer); "
        "a request took 6.00 ms of the machine, not 2.00 ms: "
        "1.1 were under way together, where batches of 32 are full (3.00 times dearer)"
    )
    assert difference(PLAN, usd_per_hour=0.36, machine_s=0.002, busy_share=0.4, together=9).why == "as forecast"
    dear = difference(PLAN, usd_per_hour=0.72, machine_s=0.001, busy_share=0.4, together=9).why
    assert dear.startswith("as forecast: a request took 1.00 ms of the machine, not 2.00 ms (2.00 times cheaper); ")
    assert "the machine costs $0.720 an hour, not $0.360 (2.00 times dearer)" in dear


def test_an_invoice_has_its_forecast_by_model_version_and_caller() -> None:
    other = PLAN.model_copy(update={"way": "of version 2"})
    meter = Meter(0.36, 0, {("m", ""): PLAN, ("m", "2"): other})
    now = 0
    for version, caller in (("1", "a"), ("1", "b"), ("2", "a")):
        number = meter.arrive(("m", version, caller), now)
        meter.to_model(number, now)
        now += 4_000_000
        meter.leave(number, now, failed=False)
    meter.leave(meter.arrive(("n", "1", "a"), now), now, failed=False)
    now += 48_000_000
    bill = meter.invoice(now)
    assert bill.busy_share == pytest.approx(0.2)
    assert bill.together == pytest.approx(1.0)
    lines = {(line.model, line.version, line.caller): line for line in bill.lines}
    ways = {key: line.forecast and line.forecast.way for key, line in lines.items()}
    assert ways == {
        ("m", "1", "a"): PLAN.way,
        ("m", "1", "b"): PLAN.way,
        ("m", "2", "a"): "of version 2",
        ("n", "1", "a"): None,
    }
    line = lines["m", "1", "a"]
    assert line.forecast is not None
    assert (line.forecast.machine_s_times, line.forecast.idle_times) == pytest.approx((2.0, 2.0))
    with_idle = sum(x.usd_per_million_with_idle * x.requests / 1e6 for x in bill.lines)
    assert with_idle == pytest.approx(bill.total_usd) == pytest.approx(0.36 * now / NS_PER_HOUR)


def budget_file(path: Path, *names: str) -> Path:
    options = [option(name, model="digits", queries_per_s_at_full_load=80.0 + i) for i, name in enumerate(names)]
    schema.write(path, make_budget(options, {}, constant(20.0), Assumptions(), draws=100))
    return path


def test_a_budget_gives_the_way_that_an_export_is_served_as(tmp_path: Path) -> None:
    names = ("torch/eager float32", "tensorflow/saved_model float32", "torch/onnx int8")
    file = budget_file(tmp_path / "budget.json", *names)
    forecasts = read_forecasts([str(file), f"served/2={file}@onnx"], 0.2)
    assert {key: f.way for key, f in forecasts.items()} == {("digits", ""): names[1], ("served", "2"): names[2]}
    forecast = forecasts["digits", ""]
    assert forecast.machine_s == pytest.approx(1 / 81)
    budget = make_budget([option(model="digits")], {}, constant(20.0), Assumptions(), draws=100)
    bill, plain = budget.options[0].bill, forecast_of_budget(budget, None, "f")
    assert plain.usd_per_million == pytest.approx(bill.usd_per_million_full)
    assert plain.usd_per_million_with_idle == pytest.approx(bill.usd_per_million)


def test_forecasts_that_are_refused(tmp_path: Path) -> None:
    file = budget_file(tmp_path / "budget.json", "a/saved_model float32", "b/saved_model bfloat16")
    (tmp_path / "empty").mkdir()
    for texts, message in (
        ([str(file)], "2 ways of .*budget.json: b/saved_model bfloat16, a/saved_model float32"),
        ([f"m={file}@int8"], "'int8', which is in the names of 0 ways"),
        ([f"m={file}@bfloat16", f"m={file}@float32"], "the second of m"),
        ([str(tmp_path / "none.json")], "none.json: No such file"),
        ([str(tmp_path / "empty")], "empty"),
    ):
        with pytest.raises(InputError, match=message):
            read_forecasts(texts, 0.2)


def test_a_run_gives_its_cheapest_batch_and_no_idle_time() -> None:
    folder = Path(kcost.__file__).parents[1] / "docs" / "runs" / "digits-cnn"
    run = RunStore(folder).load()
    seconds = {
        cell.spec.batch: float(np.mean(np.concatenate([r.step_ns for r in cell.rounds]))) / 1e9 / cell.spec.batch
        for cell in run.measured(phase="inference")
        if (cell.spec.backend, cell.spec.method) == ("torch", "predict")
    }
    ((model, version), forecast) = next(iter(read_forecasts([f"{folder}@torch/predict"], 0.36).items()))
    assert (model, version) == ("digits-cnn", "")
    assert forecast.machine_s == pytest.approx(min(seconds.values()))
    assert forecast.batch == min(seconds, key=lambda batch: seconds[batch])
    assert (forecast.usd_per_hour, forecast.usd_per_million_with_idle) == (0.36, None)
    apart = difference(forecast, usd_per_hour=0.36, machine_s=forecast.machine_s, busy_share=0.001, together=1.0)
    assert (apart.why, apart.idle_times) == ("as forecast", 1.0)

"""The short calls: what they hand on, and what they call things; on the simulated backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kcost
import kcost.api.optimize
import kcost.api.shipping
from kcost.api.short import _stem
from kcost.core.errors import PlanError
from kcost.report.measured_results import ShownVerdict

QUICK = {"rounds": 3, "round_s": 0.01, "warmup_s": 0.0}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of the simulated backend, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("fake.keras").write_text("{}")
    return Path("fake.keras")


def test_the_cheapest_way_is_found_in_a_run_folder_that_goes_on(model: Path) -> None:
    verdict = kcost.find_cheapest(model, backends=["fake"], batches=[4], precisions=["float32"], settings=QUICK)
    assert isinstance(verdict, ShownVerdict)
    rows = verdict.records()
    assert {(row["model"], row["phase"], row["batch"]) for row in rows} == {("fake", "inference", 4)}
    assert all(row["usd_basis"] == ("simulated" if row["valid"] else None) for row in rows), (
        "no dollars beside other work"
    )
    first = kcost.open_run("fake-run")
    again = kcost.find_cheapest(
        model, "fake-run", backends=["fake"], batches=[4], precisions=["float32"], settings=QUICK
    )
    assert kcost.open_run("fake-run").cells == first.cells, "nothing is measured again"
    assert again.records() == rows


def test_a_wrong_axis_is_refused_as_a_plan_refuses_it(model: Path) -> None:
    with pytest.raises(PlanError, match="colour"):
        kcost.find_cheapest(model, backends=["fake"], colour=["red"])
    assert not Path("fake-run").exists()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("my.keras", "my"),
        ("folder/digits-cnn", "digits-cnn"),
        ("package.module:make", "make"),
        (Path("a b.keras"), "a b"),
    ],
)
def test_what_a_model_is_called(given: Path | str, name: str) -> None:
    assert _stem(given) == name


def test_a_served_name_is_one_that_requests_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: dict[str, Any] = {}

    def export(model: object, out: object, **named: Any) -> None:
        passed.update(named)
        raise RuntimeError("far enough")

    monkeypatch.setattr(kcost.api.shipping, "export", export)
    for given, name in (("My model (2).keras", "My-model-2"), ("my.keras", "my"), ("...keras", "model")):
        with pytest.raises(RuntimeError, match="far enough"):
            kcost.make_servable(given)
        assert passed["name"] == name


def test_making_cheaper_takes_int8_where_nothing_else_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: dict[str, Any] = {}

    def run_optimize(model: object, out: Path, **named: Any) -> str:
        passed.update(named, out=out)
        return "the payoff"

    monkeypatch.setattr(kcost.api.optimize, "run_optimize", run_optimize)
    assert kcost.make_cheaper("my.keras", rounds=2) == "the payoff"
    assert passed == {
        "out": Path("my-cheaper"), "quantize": "dynamic", "max_drop": 0.01, "backend": None, "data": None, "rounds": 2,
        "on_progress": passed["on_progress"],
    }  # fmt: skip

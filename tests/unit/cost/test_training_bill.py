"""What training costs, by hand; what was not measured is left out and said; and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kcost
from kcost.cli import app
from kcost.core.errors import InputError
from kcost.core.result import CellResult, ModelEntry, Round
from kcost.cost.machine_match import Match
from kcost.cost.price_rules import Price
from kcost.cost.training_bill import TrainingBill, TrainingReport, training_bill
from testing.runs import environment, plan, simulated_run, write_run

PRICE = Price(
    provider="somewhere", instance="one.large", region="r1", vcpus=2, memory_gib=8, on_demand_usd_per_hour=3.6,
    spot_usd_per_hour=1.8, spot_interruptions_per_hour=2.0, source="a test", as_of=None,
)  # fmt: skip
HERE = Match(price=PRICE, why="as asked", is_assumption=False, same_machine=True, same_family=True)
ENTRY = ModelEntry(
    name="m", path="m", sha256="0", task="t", dataset="d", synthetic_data=False, train_examples=100, train_epochs=10,
    train_once_s=5.0, train_epoch_s=0.5,
)  # fmt: skip
RUN, OUTPUTS = simulated_run(plan(phases=("training",), backends=("jax",)))


def cell(*step_s: float) -> CellResult:
    """A measured training cell at batch 32: the seconds of a step in each round."""
    base = RUN.cells[0]
    assert base.preparation is not None
    rounds = tuple(Round(session="s", number=i, step_ns=(round(s * 1e9),) * 3) for i, s in enumerate(step_s))
    return base.model_copy(
        update={
            "spec": base.spec.model_copy(update={"batch": 32}),
            "preparation": base.preparation.model_copy(update={"simulated": False}),
            "rounds": rounds,
        }
    )


def bill(match: Match = HERE, entry: ModelEntry = ENTRY, **changes: float) -> TrainingBill:
    return training_bill(cell(0.5, 0.5, 0.5), environment(), entry, match, **changes)  # type: ignore[arg-type]


def test_a_search_by_hand() -> None:
    """40 steps of 0.5 s, 5 s before them and 10 x 0.5 s beside the epochs' are 30 s; 12 of them 0.1 hours."""
    made = bill(trials=12)
    assert {p.part: p.usd for p in made.parts} == pytest.approx({"steps": 0.24, "beside the steps": 0.12})
    assert made.hours == pytest.approx(0.1)
    assert (made.usd, made.low, made.high) == (pytest.approx(0.36), pytest.approx(0.36), pytest.approx(0.36))
    assert made.basis == "measured here"
    assert any("storage" in one for one in made.leaves_out)
    assert bill(trials=12, epochs=20, examples=200).hours == pytest.approx(12 * (7 * 20 * 0.5 + 5 + 10) / 3600)


def test_on_spot_each_interruption_takes_minutes_and_half_of_an_epoch() -> None:
    """0.1 hours with 2 interruptions an hour: 0.2 of them, each 0.1 hours and 1.5 s."""
    made = bill(HERE.model_copy(update={"pay": "spot"}), trials=12)
    restarts = next(p for p in made.parts if p.part == "restarts on spot")
    assert restarts.hours == pytest.approx(0.2 * (0.1 + 1.5 / 3600))
    assert made.usd == pytest.approx((0.1 + restarts.hours) * 1.8)
    quiet = PRICE.model_copy(update={"spot_interruptions_per_hour": None})
    unknown = bill(HERE.model_copy(update={"pay": "spot", "price": quiet}))
    assert any("interruptions" in one for one in unknown.leaves_out)


def test_storage_is_paid_as_long_as_it_lasts() -> None:
    made = bill(trials=12, storage_gib=73.0, usd_per_gib_month=0.1)
    assert made.parts[-1].usd == pytest.approx(73 * 0.1 * 0.1 / 730)
    assert made.leaves_out == ()
    assert made.hours == pytest.approx(0.1), "not twice"


def test_what_nobody_measured_is_left_out_and_said() -> None:
    made = bill(entry=ENTRY.model_copy(update={"train_once_s": None, "train_epoch_s": None}))
    assert [p.part for p in made.parts] == ["steps"]
    assert any("reading, evaluating and saving" in one for one in made.leaves_out)


def test_fewer_cores_widen_the_bill() -> None:
    half = HERE.model_copy(
        update={"price": PRICE.model_copy(update={"vcpus": 1}), "same_machine": False, "same_family": True}
    )
    made = bill(half, entry=ENTRY.model_copy(update={"train_once_s": 0.0, "train_epoch_s": 0.0}))
    whole = bill(entry=ENTRY.model_copy(update={"train_once_s": 0.0, "train_epoch_s": 0.0}))
    assert made.basis == "scaled"
    assert made.low == pytest.approx(whole.usd)
    assert made.high == pytest.approx(2 * whole.usd)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "1 or more trials"),
        ({"epochs": -1}, "1 or more epochs"),
        ({"storage_gib": 5.0}, "--usd-per-gib-month"),
        ({"storage_gib": -5.0, "usd_per_gib_month": 0.1}, "0 or more"),
        ({"usd_per_gib_month": 0.1}, "no --storage-gib"),
    ],
)
def test_bad_input_is_refused_by_name(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bill(**changes)
    with pytest.raises(InputError, match="--examples and --epochs"):
        bill(entry=ENTRY.model_copy(update={"train_epochs": None}))


def test_the_command_says_the_answer_first(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN, OUTPUTS).path
    arguments = ["training-cost", str(folder), "--trials", "20", "--provider", "aws", "--region", "us-east-1"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    report = kcost.estimate_training(folder, trials=20, provider="aws", region="us-east-1")
    assert " ".join(outcome.stdout.split()).startswith(report.sentence)
    assert report.sentence.startswith("[simulated] 20 trainings of ")
    assert [b.usd for b in report.bills] == sorted(b.usd for b in report.bills)
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert TrainingReport.model_validate(json.loads(as_json.stdout)) == report
    inference, outputs = simulated_run(plan(phases=("inference",), backends=("jax",)))
    with pytest.raises(InputError, match="--phases training"):
        kcost.estimate_training(write_run(tmp_path / "other", inference, outputs).path)

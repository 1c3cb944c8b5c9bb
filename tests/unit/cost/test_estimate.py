import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import InputError
from kcost.core.result import CellResult, ModelEntry, Round
from kcost.cost.inference import usd_per_million
from kcost.cost.machine_match import Match
from kcost.cost.price_rules import Price
from kcost.cost.training import usd_of_training, usd_per_run
from testing.runs import MODELS, plan, simulated_run

PRICE = Price(
    provider="somewhere",
    instance="one.large",
    region="r1",
    vcpus=2,
    memory_gib=8,
    on_demand_usd_per_hour=3.6,
    source="a test",
    as_of=None,
)
NAMED = Match(price=PRICE, why="as asked", is_assumption=False, same_machine=True)

RUN, _ = simulated_run(plan())


def cell(step_ns: list[list[int]], batch: int = 1, phase: str = "inference", *, simulated: bool = False) -> CellResult:
    base = next(c for c in RUN.cells if c.spec.phase == phase)
    return base.model_copy(
        update={
            "spec": base.spec.model_copy(update={"batch": batch}),
            "preparation": base.preparation.model_copy(update={"simulated": simulated}),
            "rounds": tuple(Round(session="s", number=i, step_ns=tuple(r)) for i, r in enumerate(step_ns)),
        }
    )


def test_a_million_predictions_by_hand() -> None:
    # 3.6 USD an hour is 0.001 USD a second; 32 predictions take 0.064 s; a million take 2,000 s.
    cost = usd_per_million(cell([[64_000_000] * 3] * 4, batch=32), NAMED)
    assert cost.usd == pytest.approx(2.0)
    assert (cost.low, cost.high) == (pytest.approx(2.0), pytest.approx(2.0))
    assert (cost.unit, cost.utilisation, cost.basis) == ("million predictions", 1.0, "measured here")
    assert cost.usd_per_hour == 3.6
    assert cost.assumptions == ("The machine is paid for by the hour and busy for 100% of the time.",)


def test_a_training_run_by_hand() -> None:
    # 100 examples in batches of 32 are 4 steps an epoch; 10 epochs of 4 steps of 0.5 s are 20 s.
    cost = usd_per_run(cell([[500_000_000]] * 3, batch=32, phase="training"), NAMED, train_examples=100, epochs=10)
    assert cost.usd == pytest.approx(0.020)
    assert cost.unit == "training run (10 epochs of 100 examples)"


def test_training_of_unknown_size_is_per_million_examples() -> None:
    entry = ModelEntry(name="m", path="m", sha256="0", task="unknown", dataset=None, synthetic_data=False)
    cost = usd_of_training(cell([[1_000_000]] * 3, phase="training"), NAMED, entry)
    assert cost.unit == "million training examples"
    assert cost.usd == pytest.approx(1.0)
    known = usd_of_training(cell([[1_000_000]] * 3, phase="training"), NAMED, MODELS["simulated-cnn"])
    assert "10 epochs of 1,437 examples" in known.unit
    assert known.usd == pytest.approx(14370 * 1e-3 * 1e-3)


def test_one_round_has_no_upper_bound() -> None:
    cost = usd_per_million(cell([[1, 2, 3]]), NAMED)
    assert (cost.low, cost.high) == (0.0, None)


def test_what_the_figure_rests_on_is_said() -> None:
    nearest = Match(price=PRICE, why="the nearest", is_assumption=True, same_machine=True)
    assert "the nearest" in usd_per_million(cell([[5]]), nearest).assumptions
    other = Match(price=PRICE, why="as asked, another size", is_assumption=False, same_machine=False)
    cost = usd_per_million(cell([[5]]), other)
    assert cost.basis == "projected"
    assert "as asked, another size" in cost.assumptions
    simulated = usd_per_million(cell([[5]], simulated=True), NAMED)
    assert simulated.basis == "simulated"
    assert any("made up" in a for a in simulated.assumptions)


@pytest.mark.parametrize("utilisation", [0.0, -0.5, 1.5, math.nan])
def test_utilisation_outside_its_range_is_refused(utilisation: float) -> None:
    with pytest.raises(InputError, match="Utilisation"):
        usd_per_million(cell([[5]]), NAMED, utilisation=utilisation)


def test_what_was_not_measured_has_no_cost() -> None:
    with pytest.raises(InputError, match="rounds"):
        usd_per_million(cell([]), NAMED)
    with pytest.raises(InputError, match="at least one example"):
        usd_per_run(cell([[5]], phase="training"), NAMED, train_examples=0, epochs=1)


rounds = st.lists(st.lists(st.integers(1, 10**12), min_size=1, max_size=5), min_size=2, max_size=6)
dollars = st.floats(1e-3, 1e3)


@given(rounds, dollars, st.integers(1, 4096), st.floats(0.01, 1))
def test_the_cost_is_its_formula_and_lies_in_its_interval(step_ns, usd_per_hour, batch, utilisation) -> None:
    match = NAMED.model_copy(update={"price": PRICE.model_copy(update={"on_demand_usd_per_hour": usd_per_hour})})
    cost = usd_per_million(cell(step_ns, batch), match, utilisation=utilisation)
    typical_s = float(np.exp(np.mean([np.log(np.median(r)) for r in step_ns]))) / 1e9
    assert cost.usd == pytest.approx(usd_per_hour / 3600 * typical_s / batch * 1e6 / utilisation, rel=1e-9)
    assert cost.high is None or cost.low * (1 - 1e-9) <= cost.usd <= cost.high * (1 + 1e-9)


@given(rounds, st.integers(1, 8))
def test_a_part_of_an_instance_costs_that_part(step_ns, count) -> None:
    whole = usd_per_million(cell(step_ns), NAMED)
    part = usd_per_million(cell(step_ns), NAMED.model_copy(update={"share": 1 / count}))
    assert part.usd * count == pytest.approx(whole.usd)


@given(st.integers(1, 10**6), st.integers(1, 100), st.integers(1, 512))
def test_a_training_run_pays_for_whole_batches(examples, epochs, batch) -> None:
    step = cell([[10**6]] * 2, batch, phase="training")
    cost = usd_per_run(step, NAMED, train_examples=examples, epochs=epochs)
    steps = sum(1 for _ in range(0, examples, batch)) * epochs
    assert cost.usd == pytest.approx(steps * 1e-3 * 1e-3)

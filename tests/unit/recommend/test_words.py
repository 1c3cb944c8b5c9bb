"""What a recommendation says, of rankings that are made up."""

from __future__ import annotations

from typing import Any

import pytest

from kcost.cost.uncertainty import Band, Swing
from kcost.recommend.answer import Ranked, outcome_of, words_of
from kcost.recommend.doubt import CauseOfDoubt, Doubt
from kcost.report.recommend_terminal import row_of
from tests.unit.recommend.ways import NO_DOUBT, band, budget, way


def words(*ranked: Ranked, doubt: Doubt = NO_DOUBT, saved: Band | None = None, **changes: Any) -> tuple[str, ...]:
    swings = (Swing(cause="traffic", low_usd=-5, high_usd=40), Swing(cause="price", low_usd=1, high_usd=2))
    plain = next((r for r in ranked if r.is_plain), None)
    return words_of("m", ranked, plain, saved, doubt, budget(**changes), swings, "it was not measured")


def test_a_decision_says_what_where_how_much_and_how_sure() -> None:
    ranked = (way("jit", 50, 0.99), way("plain", 150, 0.01, instances=6))
    sentences = words(*ranked, saved=band(100))
    assert outcome_of(ranked) == "decided"
    assert sentences[0] == (
        "Run m as jit on 2 instances aws m7i.large us-east-1, batches of up to 8: $50.0 a month ($45.0 to $55.0)."
    )
    assert "saves $100.00 a month ($90.0 to $110.00) against plain Keras predict" in sentences[1]
    assert "which takes 6 instances. Over 365 days that is" in sentences[1]
    assert sentences[2] == "It is the cheapest of 2 with 99% probability."
    assert "no doubt to pay for" in sentences[3]
    assert "traffic (-$5.00 to $40.0, which turns it around)" in sentences[4]


def test_a_doubt_has_a_price_and_what_would_take_it_away() -> None:
    doubt = Doubt(
        expected_loss_usd=30,
        by_cause=(CauseOfDoubt(cause="step time", usd=20), CauseOfDoubt(cause="traffic", usd=0)),
        measuring_usd=0.02,
        measuring_minutes=4,
        labels=340,
        labels_usd=41,
        labels_for="onnx int8",
        labels_worth_usd=900,
    )
    sentences = words(way("jit", 50, 0.6), way("eager", 52, 0.4), doubt=doubt)
    assert sentences[2].startswith("can't tell for sure: it is the cheapest of 2 with 60% probability; next eager 40%")
    assert "The doubt costs $30" in sentences[3]
    assert "4.0 more minutes of measuring cost $0.0200 of machine time" in sentences[3]
    assert "About 340 more labels ($41.0) would decide onnx int8, worth $900.00" in sentences[3]


def test_more_measuring_is_not_offered_where_it_would_not_help() -> None:
    doubt = Doubt(expected_loss_usd=30, by_cause=(CauseOfDoubt(cause="traffic", usd=30),))
    assert "More measuring would not lower it." in words(way("jit", 50, 0.6), way("eager", 52, 0.4), doubt=doubt)[3]


@pytest.mark.parametrize(
    ("ranked", "outcome", "sentence"),
    [
        ((way("plain", 50, 0.5), way("jit", 50, 0.5)), "same bill", "this one as it runs today"),
        ((way("jit", 50, 0.5), way("xla", 50, 0.5)), "same bill", "this one as it has most room, in float32"),
        ((way("jit", 50, 1.0),), "only one", "the only way"),
        ((way("jit", 50, 0.7), way("xla", 51, 0.3)), "can't tell", "next xla 30%"),
    ],
)
def test_how_sure_it_is(ranked: tuple[Ranked, ...], outcome: str, sentence: str) -> None:
    assert outcome_of(ranked) == outcome
    assert sentence in words(*ranked)[2]


def test_without_plain_keras_no_saving_is_made_up() -> None:
    assert words(way("jit", 50, 1.0))[1].endswith("no saving can be told: it was not measured.")
    assert "today's way" in words(way("plain", 50, 1.0))[1]


def test_what_was_not_measured_on_the_machine_says_so_first() -> None:
    assert words(way("jit", 50, 1.0, basis="projected"))[0].startswith("[projected] Run m")
    assert words(way("jit", 50, 1.0, basis="simulated"), simulated=True)[0].startswith("[simulated] Run m")


@pytest.mark.parametrize(
    ("basis", "mark"), [("measured", ""), ("scaled", " \\[scaled]"), ("projected", " \\[projected]")]
)
def test_a_way_whose_seconds_are_of_another_machine_is_marked_where_it_stands(basis: str, mark: str) -> None:
    assert row_of(way("jit", 50, 0.9, basis=basis))[0] == f"jit{mark}"
    first = words(way("jit", 50, 0.99, basis=basis), way("plain", 150, 0.01), saved=band(100))[0]
    assert first.startswith("Run" if basis == "measured" else f"[{basis}] Run")

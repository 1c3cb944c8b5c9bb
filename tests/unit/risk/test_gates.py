"""Gates: parsing, answers, and how many labels would decide."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import InputError
from kcost.risk.figures import Figure, share
from kcost.risk.gates import POWER, Gates, judge, no_evidence, parse_gates, power


def figure(value: float, half: float, count: int = 100) -> Figure:
    return Figure(name="x", value=value, low=value - half, high=value + half, count=count, unit="examples")


def test_limits_are_read() -> None:
    gates = parse_gates(
        'min_score = 0.9\nallowed_licences = ["MIT"]\nusd_per_label = 0.12\n[loss]\nwrong_usd = 0.5', "gates.toml"
    )
    assert gates.limits == ("min_score", "allowed_licences")
    assert gates.loss is not None
    assert gates.loss.wrong_usd == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "which sets none"),
        ("usd_per_label = 1.0", "which sets none"),
        ("min_scor = 0.9", "Did you mean 'min_score'?"),
        ("zzz = 1", "'zzz' in gates.toml"),
        ("min_score = ", "gates.toml: "),
        ("min_score = 1.5", "min_score: Input should be less than or equal to 1"),
        ('min_score = "high"', "min_score: Input should be a valid number"),
        ("min_score = nan", "min_score: "),
        ("[loss]\nwrong = 1", "loss.wrong: Extra inputs are not permitted"),
        ("max_loss_usd_per_million = 5.0", "without a table [loss]"),
        ("allowed_licences = []", "allowed_licences: "),
    ],
)
def test_bad_gates_are_one_clear_message(text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_gates(text, "gates.toml")
    assert message in str(raised.value)


@given(st.text())
def test_any_text_is_gates_or_an_input_error(text: str) -> None:
    with contextlib.suppress(InputError):
        assert isinstance(parse_gates(text, "x"), Gates)


def test_a_gate_passes_or_fails_where_the_whole_interval_does() -> None:
    assert judge("g", figure(0.5, 0.1), 0.6, at_most=True).answer == "pass"
    assert judge("g", figure(0.5, 0.1), 0.3, at_most=True).answer == "fail"
    assert judge("g", figure(0.5, 0.1), 0.4, at_most=False).answer == "pass"
    assert judge("g", figure(0.5, 0.1), 0.7, at_most=False).answer == "fail"
    assert judge("g", figure(0.5, 0.1), 0.55, at_most=True).answer == "can't tell"


def test_what_would_decide_is_told_with_its_price() -> None:
    verdict = judge("g", figure(0.5, 0.1), 0.55, at_most=True, usd_per_label=0.5)
    assert verdict.more_labels is not None
    assert verdict.more_labels_usd == verdict.more_labels / 2
    price = f"${verdict.more_labels / 2:,.0f}"
    assert verdict.sentence == f"can't tell: {verdict.more_labels:,} more labels ({price}) would decide"
    assert verdict.more_labels_if_estimate_holds is not None
    assert verdict.more_labels_if_estimate_holds < verdict.more_labels
    part = judge("g", figure(0.5, 0.1), 0.55, at_most=True, share_of_labels=0.1)
    assert part.more_labels == pytest.approx(10 * verdict.more_labels, abs=10)


def test_labels_do_not_decide_what_they_do_not_narrow() -> None:
    verdict = judge("p99", figure(50, 5), 52, at_most=True, labelled=False)
    assert verdict.more_labels is None
    assert verdict.sentence == "can't tell: the interval reaches over the limit"
    assert no_evidence("p99", 50, "give --run").sentence == "can't tell: give --run"


@given(st.floats(0, 1.9), st.floats(1.001, 1000))
def test_more_labels_decide_more(gap: float, times: float) -> None:
    assert 0 <= power(gap, times) <= 1
    assert power(gap, times * 1.5) >= power(gap, times) - 1e-9


def test_the_power_is_that_of_a_simulation() -> None:
    """The truth normal around the figure, and the new labels around the truth."""
    rng = np.random.default_rng(0)
    gap, times = 0.8, 6.0
    truth = rng.normal(gap, 1, 100_000)
    new = rng.normal(truth, 1 / np.sqrt(times - 1))
    pooled = (gap + (times - 1) * new) / times
    decided = np.abs(pooled) > 1.959964 / np.sqrt(times)
    assert power(gap, times) == pytest.approx(decided.mean(), abs=0.005)


def test_as_many_labels_as_told_decide_about_as_often_as_told() -> None:
    """True shares around the limit; where 400 labels leave it open, as many more as told are drawn as well."""
    rng = np.random.default_rng(1)
    decided = []
    while len(decided) < 400:
        truth = rng.uniform(0.8, 1.0)
        right = int(rng.binomial(400, truth))
        verdict = judge("min_score", share("accuracy", right, 400, "examples"), 0.9, at_most=False)
        if verdict.more_labels is None:
            continue
        more = right + int(rng.binomial(verdict.more_labels, truth))
        after = judge("min_score", share("accuracy", more, 400 + verdict.more_labels, "examples"), 0.9, at_most=False)
        decided.append(after.answer != "can't tell")
    assert abs(np.mean(decided) - POWER) < 0.06


def test_a_model_at_the_limit_seldom_passes() -> None:
    rng = np.random.default_rng(2)
    right = rng.binomial(500, 0.9, 2000)
    passed = [
        judge("min_score", share("accuracy", int(r), 500, "examples"), 0.9, at_most=False).answer == "pass"
        for r in right
    ]
    assert np.mean(passed) <= 0.035

"""Reports over made-up predictions, and every limit held against them."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from kcost.core.predictions import Predictions, SplitPredictions
from kcost.report.risk_terminal import show_risk
from kcost.risk.decide import Measured, decide
from kcost.risk.figures import Figure
from kcost.risk.gates import Gates, parse_gates
from kcost.risk.leakage import leaked_texts
from kcost.risk.personal_data import count_personal_data
from kcost.risk.report import RiskReport, Surroundings
from testing.terminal import printed
from tests.unit.risk.reports import predictions, report


@pytest.mark.parametrize("kind", ["multiclass", "tags"])
def test_a_report_comes_back_from_json_and_fits_a_screen(kind: str) -> None:
    risk_report = report(kind=kind)
    assert RiskReport.model_validate_json(risk_report.model_dump_json()) == risk_report
    lines = printed(show_risk, risk_report)
    assert len(lines) <= 24
    assert any("accuracy" in line or "entity_f1" in line for line in lines)


@pytest.mark.parametrize(
    ("limit", "answer"),
    [
        ("min_score = 0.5", "pass"),
        ("min_score = 0.99", "fail"),
        ("max_calibration_error = 0.2", "pass"),
        ("max_overfitting_gap = 0.2", "pass"),
        ("max_label_noise = 0.2", "pass"),
        ("max_score_drop = 0.01", "can't tell"),
        ("min_worst_slice_score = 0.5", "can't tell"),
        ("min_attacked_score = 0.5", "can't tell"),
        ("max_leaked_share = 0.5", "can't tell"),
        ("max_personal_data = 0", "pass"),
        ("max_p99_ms = 5.0", "can't tell"),
        ("max_usd_per_million = 5.0", "can't tell"),
        ("max_memory_mib = 5.0", "can't tell"),
        ('allowed_licences = ["MIT"]', "pass"),
        ('allowed_licences = ["CC0"]', "fail"),
        ("max_loss_usd_per_million = 1.0\n[loss]\nwrong_usd = 1.0", "fail"),
        ("max_loss_usd_per_million = 900000.0\n[loss]\nwrong_usd = 1.0", "pass"),
    ],
)
def test_each_limit_has_its_answer(limit: str, answer: str) -> None:
    (verdict,) = report(limit).verdicts
    assert verdict.answer == answer
    assert verdict.gate == limit.partition(" ")[0]


def test_every_limit_that_can_be_set_has_a_rule() -> None:
    names = [n for n in Gates.model_fields if n.startswith(("min_", "max_", "allowed_"))]
    text = "".join(f"{n} = {'[1]' if n == 'allowed_licences' else 1}\n" for n in names).replace("[1]", '["MIT"]')
    risk_report = report(text + "[loss]\nwrong_usd = 1.0")
    assert {v.gate for v in risk_report.verdicts} == set(names)


def test_failures_stand_first_and_decide() -> None:
    risk_report = report('min_score = 0.5\nmax_p99_ms = 5.0\nallowed_licences = ["CC0"]')
    assert [v.answer for v in risk_report.verdicts] == ["fail", "can't tell", "pass"]
    assert risk_report.failed
    assert risk_report.undecided


def test_evidence_from_elsewhere_is_held_against_its_limits() -> None:
    gates = parse_gates("max_p99_ms = 5.0\nmax_usd_per_million = 2.0\nmax_memory_mib = 100.0", "g")
    measured = Measured(
        p99_ms=Figure(name="p99_ms", value=4, low=3.5, high=4.5, count=900, unit="steps"),
        usd_per_million=Figure(name="usd", value=2, low=1, high=3, count=10, unit="rounds"),
        memory_mib=120.0,
    )
    verdict_of = {v.gate: v for v in decide(report(), gates, measured).verdicts}
    assert verdict_of["max_p99_ms"].answer == "pass"
    assert verdict_of["max_usd_per_million"].answer == "can't tell"
    assert verdict_of["max_usd_per_million"].more_labels is None
    assert verdict_of["max_memory_mib"].answer == "fail"


def test_a_model_that_cannot_be_attacked_leaves_its_gate_open() -> None:
    gates = parse_gates("min_attacked_score = 0.2", "g")
    (verdict,) = decide(report(), gates, Measured(not_attacked_because="it has no place for it")).verdicts
    assert verdict.sentence == "can't tell: it has no place for it"


def test_the_worst_slice_decides_and_a_slice_alone_among_many_does_not_fail() -> None:
    answers = predictions().splits["test"]
    bad = ~answers.right | (np.random.default_rng(0).random(1500) < 0.05)
    around = Surroundings(columns={"part": np.where(bad, "bad", "good")})
    (verdict,) = report("min_worst_slice_score = 0.6", around).verdicts
    assert (verdict.answer, verdict.slice) == ("fail", "part=bad")
    even = Surroundings(columns={"part": np.where(np.arange(1500) % 2, "odd", "even")})
    (verdict,) = report("min_worst_slice_score = 0.6", even).verdicts
    assert verdict.answer == "pass"


def test_flips_groups_leaks_and_personal_data_are_told() -> None:
    before = predictions()
    changed = before.splits["test"]
    better = SplitPredictions(changed.labels, changed.labels, changed.log_probabilities, changed.rows, changed.examples)
    around = Surroundings(
        columns={"part": np.where(changed.right, "x", "y")},
        groups=("part",),
        before=("float32", Predictions(before.header, {"test": better}, "2" * 64)),
        leakage=leaked_texts(["a b c"], ["a b c", "d e f"]),
        personal_data=count_personal_data(["ann@example.org"]),
    )
    risk_report = report("max_score_drop = 0.01\nmax_leaked_share = 0.1\nmax_personal_data = 0", around)
    assert [v.answer for v in risk_report.verdicts] == ["fail"] * 3
    console = Console(width=100)
    with console.capture() as captured:
        show_risk(console, risk_report, everything=True)
    for text in ("from float32", "accuracy differs by part", "stand in train", "1 e-mail addresses"):
        assert text in captured.get()


def test_a_run_that_was_disturbed_decides_nothing() -> None:
    gates = parse_gates("max_p99_ms = 5.0\nmax_usd_per_million = 1.0\nmax_memory_mib = 10.0", "gates.toml")
    disturbed = Measured(not_measured_because="it was measured beside other work")
    decided = decide(report(), gates, disturbed)
    assert {(v.answer, v.because) for v in decided.verdicts} == {("can't tell", "it was measured beside other work")}
    unnamed = decide(report(), gates, Measured())
    assert all("--run" in (v.because or "") for v in unnamed.verdicts)

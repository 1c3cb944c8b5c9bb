"""Gates on time and dollars of a recommendation: of the answer as it is served, not of a step."""

from __future__ import annotations

import pytest

from kcost.cost.traffic import constant
from kcost.cost.uncertainty import Band
from kcost.recommend.served_gates import SERVED_GATES, served_verdicts
from kcost.risk.gates import Gates
from tests.unit.recommend.ways import way

MILLIONS = 200 * 730 * 3600 / 1e6
"""Requests of a month at 200 a second."""


@pytest.mark.parametrize(("p99_ms", "answer"), [(4.9, "pass"), (5.0, "pass"), (5.1, "fail")])
def test_the_p99_is_that_of_the_queue(p99_ms: float, answer: str) -> None:
    row = way("torch/eager float32", 100.0, 1.0, p99_ms=p99_ms)
    verdict = served_verdicts(Gates(max_p99_ms=5.0), row, constant(200))["max_p99_ms"]
    assert verdict.answer == answer
    assert f"{p99_ms:.3g} ms from arrival to answer, simulated" in verdict.sentence


def test_a_way_whose_queue_was_not_simulated_cannot_tell() -> None:
    row = way("torch/eager float32", 100.0, 1.0, p99_ms=None)
    assert served_verdicts(Gates(max_p99_ms=5.0), row, constant(200))["max_p99_ms"].answer == "can't tell"


@pytest.mark.parametrize(("limit", "answer"), [(0.25, "pass"), (0.2, "can't tell"), (0.1, "fail")])
def test_dollars_are_those_of_the_month_over_its_requests(limit: float, answer: str) -> None:
    month = Band(value=0.2 * MILLIONS, low=0.15 * MILLIONS, high=0.25 * MILLIONS)
    row = way("torch/eager float32", 100.0, 1.0).model_copy(update={"usd_per_month": month})
    verdict = served_verdicts(Gates(max_usd_per_million=limit), row, constant(200))["max_usd_per_million"]
    assert verdict.answer == answer
    assert "$0.2 (90%: $0.15 to $0.25)" in verdict.sentence


def test_what_is_no_measurement_says_its_basis() -> None:
    row = way("torch/eager float32", 100.0, 1.0).model_copy(update={"basis": "projected"})
    verdicts = served_verdicts(Gates(max_p99_ms=5.0, max_usd_per_million=1.0), row, constant(200))
    assert set(verdicts) == set(SERVED_GATES)
    assert all("projected" in verdict.sentence for verdict in verdicts.values())


def test_other_gates_are_left_to_others() -> None:
    assert served_verdicts(Gates(min_score=0.9, max_memory_mib=1), way("a", 1.0, 1.0), constant(200)) == {}

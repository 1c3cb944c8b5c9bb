"""Gates of a new version: against truths that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.risk.rollout import RolloutCounts, RolloutLimits, judge_rollout

LIMITS = RolloutLimits()


def counted(rng: np.random.Generator, requests: int, disagreement: float, failed: float, ratio: float) -> RolloutCounts:
    wrong = int(rng.binomial(requests, failed))
    logs = rng.normal(math.log(ratio), 0.3, requests - wrong)
    return RolloutCounts(
        requests=requests,
        failed=wrong,
        rows=requests - wrong,
        otherwise=int(rng.binomial(requests - wrong, disagreement)),
        log_ratio_sum=float(logs.sum()),
        log_ratio_squares=float((logs**2).sum()),
    )


@pytest.mark.parametrize(
    ("truth", "decision"),
    [
        ((0.001, 0.0001, 1.0), "promote"),
        ((0.08, 0.0001, 1.0), "roll back"),
        ((0.001, 0.05, 1.0), "roll back"),
        ((0.001, 0.0001, 1.6), "roll back"),
    ],
)
def test_clear_cases(truth: tuple[float, float, float], decision: str) -> None:
    rng = np.random.default_rng(0)
    assert judge_rollout(counted(rng, 2000, *truth), LIMITS).decision == decision


def test_nothing_is_decided_from_nothing() -> None:
    judgement = judge_rollout(RolloutCounts(), LIMITS)
    assert (judgement.decision, judgement.slower) == ("can't tell", None)
    assert judge_rollout(RolloutCounts(requests=5, rows=5), LIMITS).decision == "can't tell"


def test_a_version_at_its_limit_is_rarely_promoted() -> None:
    rng = np.random.default_rng(1)
    promoted = [judge_rollout(counted(rng, 1000, 0.02, 0.0, 1.0), LIMITS).decision == "promote" for _ in range(300)]
    assert np.mean(promoted) <= 0.08


@given(st.integers(0, 300), st.data())
def test_more_disagreement_never_makes_it_surer(rows: int, data: st.DataObject) -> None:
    few = data.draw(st.integers(0, rows))
    more = data.draw(st.integers(few, rows))
    counts = RolloutCounts(requests=rows, rows=rows, log_ratio_squares=float(rows))
    judgements = [judge_rollout(counts.model_copy(update={"otherwise": n}), LIMITS) for n in (few, more)]
    assert judgements[0].probability >= judgements[1].probability
    assert all(0 <= p <= 1 for t in judgements for p in (t.probability, *t.holds.values()))

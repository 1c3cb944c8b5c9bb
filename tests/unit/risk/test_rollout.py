"""Gates of a new version: against truths that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.risk.rollout import WRONG, RolloutCounts, RolloutLimits, judge_rollout

LIMITS = RolloutLimits()
Truth = tuple[float, float, float, float]
"""Share of rows otherwise, share of requests that fail, ratio of latencies, ratio of costs."""

GOOD: Truth = (0.001, 0.0001, 1.0, 1.0)


def counted(rng: np.random.Generator, requests: int, truth: Truth, rows: int = 1) -> RolloutCounts:
    disagreement, failed, slower, dearer = truth
    wrong = int(rng.binomial(requests, failed))
    pairs = requests - wrong
    logs = rng.normal(math.log(slower), 0.3, pairs)
    old = rng.gamma(4, 0.001, pairs)
    new = dearer * old * rng.lognormal(-0.02, 0.2, pairs)
    return RolloutCounts(
        requests=requests,
        failed=wrong,
        rows=pairs * rows,
        row_squares=pairs * rows**2,
        otherwise=rows * int(rng.binomial(pairs, disagreement)),
        pairs=pairs,
        log_ratio_sum=float(logs.sum()),
        log_ratio_squares=float((logs**2).sum()),
        new_s=float(new.sum()),
        old_s=float(old.sum()),
        new_squares=float((new**2).sum()),
        old_squares=float((old**2).sum()),
        products=float((new * old).sum()),
    )


@pytest.mark.parametrize(
    ("truth", "decision", "gate"),
    [
        (GOOD, "promote", None),
        ((0.08, 0.0001, 1.0, 1.0), "roll back", "disagreement"),
        ((0.001, 0.05, 1.0, 1.0), "roll back", "failed"),
        ((0.001, 0.0001, 1.6, 1.0), "roll back", "latency"),
        ((0.001, 0.0001, 1.0, 1.6), "roll back", "cost"),
    ],
)
def test_clear_cases(truth: Truth, decision: str, gate: str | None) -> None:
    judged = judge_rollout(counted(np.random.default_rng(0), 2000, truth), LIMITS)
    assert judged.decision == decision
    assert gate in (None, judged.weakest_first[0])
    assert judged.slower == pytest.approx(truth[2], rel=0.05)
    assert judged.dearer == pytest.approx(truth[3], rel=0.05)


def test_nothing_is_decided_from_nothing() -> None:
    judged = judge_rollout(RolloutCounts(), LIMITS)
    assert (judged.decision, judged.slower, judged.dearer) == ("can't tell", None, None)
    assert (judged.wrong_promotion, judged.wrong_roll_back) == (1.0, 1.0)
    few = RolloutCounts(requests=5, rows=5, row_squares=5, pairs=5, new_s=1.0, old_s=1.0)
    assert judge_rollout(few, LIMITS).decision == "can't tell"


def decisions_on_the_way(rng: np.random.Generator, truth: Truth) -> set[str]:
    """What somebody gets to see who looks after every 40 requests of 1,200."""
    seen, counts = set(), RolloutCounts()
    for _ in range(30):
        counts = counts.plus(counted(rng, 40, truth))
        seen.add(judge_rollout(counts, LIMITS).decision)
    return seen


@pytest.mark.parametrize(
    "truth", [(0.02, 0.0, 1.0, 1.0), (0.0, 0.01, 1.0, 1.0), (0.0, 0.0, 1.2, 1.0), (0.0, 0.0, 1.0, 1.2)]
)
def test_a_version_at_a_limit_is_rarely_decided_on_however_often_one_looks(truth: Truth) -> None:
    rng = np.random.default_rng(1)
    runs = [decisions_on_the_way(rng, truth) for _ in range(100)]
    for decision in ("promote", "roll back"):
        assert np.mean([decision in seen for seen in runs]) <= WRONG + 0.045  # two standard errors of 100 runs


def test_rows_of_one_request_are_no_independent_evidence() -> None:
    """A request of 64 rows that all differ is one sign, not 64."""
    counts = counted(np.random.default_rng(2), 40, GOOD).model_copy(
        update={"rows": 40 * 64, "row_squares": 40 * 64.0**2, "otherwise": 64}
    )
    alone = counts.model_copy(update={"rows": 40, "row_squares": 40.0, "otherwise": 1})
    one, other = judge_rollout(counts, LIMITS), judge_rollout(alone, LIMITS)
    assert one.holds["disagreement"] == pytest.approx(other.holds["disagreement"])
    assert (one.disagreement.low, one.disagreement.high) == pytest.approx(
        (other.disagreement.low, other.disagreement.high)
    )
    assert one.decision == "can't tell"


def test_versions_that_never_differ_are_judged_without_a_spread() -> None:
    counts = RolloutCounts(requests=900, rows=900, row_squares=900.0, pairs=900, new_s=9.0, old_s=9.0)
    alike = counts.model_copy(update={"new_squares": 0.09, "old_squares": 0.09, "products": 0.09})
    assert judge_rollout(alike, LIMITS).decision == "promote"
    dearer = alike.model_copy(update={"new_s": 18.0, "new_squares": 0.36, "products": 0.18})
    assert judge_rollout(dearer, LIMITS).decision == "roll back"


@given(st.integers(0, 300), st.data())
def test_more_disagreement_never_makes_it_surer(rows: int, data: st.DataObject) -> None:
    few = data.draw(st.integers(0, rows))
    more = data.draw(st.integers(few, rows))
    counts = RolloutCounts(requests=rows, rows=rows, row_squares=float(rows), pairs=rows, log_ratio_squares=float(rows))
    judged = [judge_rollout(counts.model_copy(update={"otherwise": n}), LIMITS) for n in (few, more)]
    assert judged[0].probability >= judged[1].probability
    assert judged[0].wrong_promotion <= judged[1].wrong_promotion + 1e-12
    for j in judged:
        assert all(0 <= p <= 1 for p in (j.probability, j.wrong_promotion, j.wrong_roll_back, *j.holds.values()))


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.floats(1e-6, 0.999))
def test_any_counts_are_judged(failed: int, more: int, limit: float) -> None:
    counts = RolloutCounts(requests=failed + more, failed=failed)
    judged = judge_rollout(counts, RolloutLimits(max_failed=limit))
    assert all(0 <= p <= 1 for p in (judged.probability, judged.wrong_promotion, judged.wrong_roll_back))

"""Drops, speeds and a verdict on them that are made up."""

from __future__ import annotations

from kcost.core.score_drop import ScoreDrop
from kcost.cost.payoff import Size, Speed
from kcost.cost.ranking import Ratio

BIG = Size(file_bytes=1000, parameters=10, peak_host_bytes=None)


def drop(value: float, bound: float) -> ScoreDrop:
    return ScoreDrop(
        score="accuracy",
        before=0.9,
        after=0.9 - value,
        value=value,
        bound=bound,
        p_value=None,
        method="by hand",
        count=100,
        unit="examples",
    )


def speed(batch: int, times: float, *, half: float = 0.01) -> Speed:
    return Speed(
        batch=batch,
        method="graph",
        before_ms=float(batch),
        after_ms=batch / times,
        times_faster=Ratio(value=times, low=times - half, high=times + half, rounds=10),
        before_usd_per_million=1.0,
        after_usd_per_million=1 / times,
    )

"""Made-up candidates whose true costs are known, measured by drawing: what the schedule is held against."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from kcost.core.stats import location
from kcost.recommend.schedule import RUNGS, Arm, Standing, Wave, leader, next_wave, survivors

ROUND_S = 0.45
"""Of one arm: three batch sizes of 0.15 s."""

START_S = 10.0
"""Of the workers of a wave."""

EXHAUSTIVE_ROUNDS = 10
"""What `kcost bench` gives each cell."""


class Truth(NamedTuple):
    """What is true of simulated candidates."""

    arms: tuple[Arm, ...]
    usd: dict[str, float]
    """Arm -> its true cost."""
    noise: float
    """Of a round, as the deviation of its logarithm."""
    drift: float
    """Of the machine from round to round, which all arms share."""


class Outcome(NamedTuple):
    """What a schedule came to."""

    chosen: str | None
    loss: float
    """True cost of the chosen over the best's, less one."""
    seconds: float
    exhaustive_s: float
    first_figures_s: float
    """When the first wave had its rounds."""

    @property
    def share_of_time(self) -> float:
        """Of what measuring everything takes."""
        return self.seconds / self.exhaustive_s


def case(seed: int, cheap: int = 9, costly: int = 9) -> Truth:
    """Simulated candidates: some at hand at once, others behind a conversion of 20 to 100 seconds.

    The bound of a costly one is between a fifth and nine tenths of its true cost: a bound never says how much above it
    the truth lies.
    """
    rng = np.random.default_rng(seed)
    usd = {f"cheap {i}": float(1_000 * math.exp(rng.normal(0, 0.7))) for i in range(cheap)}
    usd |= {f"costly {i}": float(1_000 * math.exp(rng.normal(-0.2, 0.7))) for i in range(costly)}
    arms = [
        Arm(f"cheap {i}", float(rng.uniform(2, 8)), first=i < 3, is_plain=i == 0) for i in range(cheap)
    ]  # three batch sizes, each warmed up
    for i in range(costly):
        name = f"costly {i}"
        bound = usd[name] * float(rng.uniform(0.2, 0.9))
        arms.append(Arm(name, float(rng.uniform(20, 100)), costly=True, bound_usd=bound))
    return Truth(tuple(arms), usd, noise=float(rng.uniform(0.01, 0.08)), drift=float(rng.uniform(0, 0.05)))


def run(truth: Truth, minutes: float, seed: int = 0) -> Outcome:
    """Lets the schedule spend the minutes on simulated candidates."""
    rng = np.random.default_rng([seed, 1])
    by_name = {arm.name: arm for arm in truth.arms}
    logs: dict[str, list[float]] = {}
    seconds, first_s = 0.0, math.inf
    while True:
        standings = _standings(truth, logs)
        wave, _ = next_wave(truth.arms, standings, (), 60 * minutes - seconds)
        if wave is None:
            break
        seconds += START_S + sum(by_name[n].setup_s if n not in logs else 2.0 for n in wave.names)
        seconds += _take_turns(truth, wave, logs, rng)
        first_s = min(first_s, seconds)
    exhaustive_s = START_S + sum(a.setup_s + EXHAUSTIVE_ROUNDS * ROUND_S for a in truth.arms)
    chosen = leader(_standings(truth, logs))
    best = min(truth.usd.values())
    loss = math.inf if chosen is None else truth.usd[chosen] / best - 1
    return Outcome(chosen, loss, seconds, exhaustive_s, first_s)


def _take_turns(truth: Truth, wave: Wave, logs: dict[str, list[float]], rng: np.random.Generator) -> float:
    """The rounds of a wave, with halving at each rung, as `recommend.measuring` gives them; seconds."""
    live, done, seconds = list(wave.names), 0, 0.0
    target = {n: max(wave.rounds, len(logs.get(n, ())) + RUNGS[0]) for n in wave.names}
    while live:
        drift = rng.normal(0, truth.drift)
        for name in live:
            logs.setdefault(name, []).append(math.log(truth.usd[name]) + drift + rng.normal(0, truth.noise))
            seconds += ROUND_S
        done += 1
        if done in RUNGS:
            kept = survivors(_standings(truth, logs), live)
            live = [n for n in live if n in kept]
        live = [n for n in live if len(logs[n]) < target[n]]
    return seconds


def _standings(truth: Truth, logs: dict[str, list[float]]) -> dict[str, Standing]:
    standings = {}
    for name, values in logs.items():
        mean = float(np.mean(values))
        interval = location(np.exp(values))
        value = math.exp(mean)
        high = interval.high if math.isfinite(interval.high) else math.inf
        standings[name] = Standing(min(interval.low, value), value, max(high, value), len(values))
    return standings

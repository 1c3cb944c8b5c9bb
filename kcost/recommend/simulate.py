"""Made-up candidates whose true costs are known, measured by drawing: what the schedule is held against."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from kcost.core.stats import location
from kcost.recommend.schedule import RUNGS, WORTH_TRYING, Arm, Standing, Wave, leader, next_wave, survivors

SIZES = 3
"""Batch sizes of an arm."""

SCREENED_SIZE = 1
"""The one that ways are screened at."""

ROUND_S = 0.15
"""Of one arm at one batch size."""

START_S = 10.0
"""Of the workers of the first wave."""

NEXT_START_S = 3.0
"""Of the worker of a later wave: those that run already go on."""

EXHAUSTIVE_ROUNDS = 10
"""What `kcost bench` gives each cell."""

CONVERTING = 0.7
"""Part of the time that a conversion takes until it is ready, which is spent once for all batch sizes."""


class Truth(NamedTuple):
    """What is true of simulated candidates."""

    arms: tuple[Arm, ...]
    usd: dict[str, tuple[float, ...]]
    """Arm -> its true cost at each batch size."""
    converted: frozenset[str]
    """Arms whose time to get ready is spent once, for the most part, in the place of once a batch size."""
    noise: float
    """Of a round, as the deviation of its logarithm."""
    drift: float
    """Of the machine from round to round, which all arms share."""

    def least_usd(self, name: str) -> float:
        """What an arm costs at its best batch size."""
        return min(self.usd[name])


class Outcome(NamedTuple):
    """What a schedule came to."""

    chosen: str | None
    loss: float
    """True cost of the chosen over the best's, less one."""
    seconds: float
    exhaustive_s: float
    first_figures_s: float
    """When the first wave had its rounds."""
    tried: int
    """Arms behind a conversion or a compilation that were got ready."""

    @property
    def share_of_time(self) -> float:
        """Of what measuring everything takes."""
        return self.seconds / self.exhaustive_s


def case(seed: int, cheap: int = 9, costly: int = 9) -> Truth:
    """Simulated candidates: some at hand at once, others behind a conversion or compilation of 20 to 100 seconds.

    Every bound is between a fifth and nine tenths of the true cost: a bound never says how much above it the truth
    lies. Six of ten arms are best at the batch size that they are screened at; at the others each costs more, by half a
    normal of 0.25 in logarithms.
    """
    rng = np.random.default_rng(seed)
    usd = {f"cheap {i}": float(1_000 * math.exp(rng.normal(0, 0.7))) for i in range(cheap)}
    usd |= {f"costly {i}": float(1_000 * math.exp(rng.normal(-0.2, 0.7))) for i in range(costly)}
    setup_s = {name: float(rng.uniform(2, 8) if name.startswith("cheap") else rng.uniform(20, 100)) for name in usd}
    arms = tuple(
        Arm(
            name,
            setup_s[name],
            first=name in ("cheap 0", "cheap 1", "cheap 2"),
            is_plain=name == "cheap 0",
            costly=name.startswith("costly"),
            bound_usd=usd[name] * float(rng.uniform(0.2, 0.9)),
        )
        for name in usd
    )
    by_size = {name: _by_size(least, rng) for name, least in usd.items()}
    converted = frozenset(f"costly {i}" for i in range(costly) if i % 3)
    return Truth(arms, by_size, converted, noise=float(rng.uniform(0.01, 0.08)), drift=float(rng.uniform(0, 0.05)))


def _by_size(least_usd: float, rng: np.random.Generator) -> tuple[float, ...]:
    best = SCREENED_SIZE if rng.random() < 0.6 else int(rng.choice([s for s in range(SIZES) if s != SCREENED_SIZE]))
    more = np.abs(rng.normal(0, 0.25, SIZES))
    return tuple(least_usd if s == best else float(least_usd * math.exp(more[s])) for s in range(SIZES))


Rounds = dict[tuple[str, int], list[float]]
"""Arm and batch size -> logarithms of the costs that its rounds showed."""


def run(truth: Truth, minutes: float, seed: int = 0, worth: float = WORTH_TRYING) -> Outcome:
    """Lets the schedule spend the minutes on simulated candidates."""
    rng = np.random.default_rng([seed, 1])
    by_name = {arm.name: arm for arm in truth.arms}
    logs: Rounds = {}
    seconds, first_s = 0.0, math.inf
    while True:
        standings = _standings(truth, logs)
        wave, _ = next_wave(truth.arms, standings, (), 60 * minutes - seconds, worth=worth)
        if wave is None:
            break
        seconds += NEXT_START_S if logs else START_S
        cells = [(n, s) for n in wave.names for s in _sizes_of(n, wave, standings)]
        seconds += sum(_setup_s(by_name[n], s, truth, logs) for n, s in cells)
        seconds += _take_turns(truth, wave, cells, logs, rng)
        first_s = min(first_s, seconds)
    exhaustive_s = START_S + sum(a.setup_s + EXHAUSTIVE_ROUNDS * SIZES * ROUND_S for a in truth.arms)
    chosen = leader(_standings(truth, logs))
    best = min(truth.least_usd(name) for name in truth.usd)
    loss = math.inf if chosen is None else truth.least_usd(chosen) / best - 1
    tried = sum(a.costly and (a.name, SCREENED_SIZE) in logs for a in truth.arms)
    return Outcome(chosen, loss, seconds, exhaustive_s, first_s, tried)


def _sizes_of(name: str, wave: Wave, standings: dict[str, Standing]) -> tuple[int, ...]:
    """The batch sizes at which an arm takes turns in a wave."""
    narrow = wave.narrow and (name not in standings or standings[name].narrow)
    return (SCREENED_SIZE,) if narrow else tuple(range(SIZES))


def _setup_s(arm: Arm, size: int, truth: Truth, logs: Rounds) -> float:
    """What getting a batch size of an arm ready takes; nothing where its worker holds it already."""
    if (arm.name, size) in logs:
        return 0.0
    if arm.name not in truth.converted:
        return arm.setup_s / SIZES
    once = 0.0 if any((arm.name, s) in logs for s in range(SIZES)) or size != SCREENED_SIZE else CONVERTING
    return arm.setup_s * (once + (1 - CONVERTING) / SIZES)


def _take_turns(
    truth: Truth, wave: Wave, cells: list[tuple[str, int]], logs: Rounds, rng: np.random.Generator
) -> float:
    """The rounds of a wave, with halving at each rung, as `recommend.turns` gives them; seconds."""
    live, done, seconds = list(wave.names), 0, 0.0
    target = {cell: max(wave.rounds, len(logs.get(cell, ())) + RUNGS[0]) for cell in cells}
    while turns := [c for c in cells if c[0] in live and len(logs.get(c, ())) < target[c]]:
        drift = rng.normal(0, truth.drift)
        for name, size in turns:
            shown = math.log(truth.usd[name][size]) + drift + rng.normal(0, truth.noise)
            logs.setdefault((name, size), []).append(shown)
            seconds += ROUND_S
        done += 1
        if done in RUNGS:
            kept = survivors(_standings(truth, logs), live)
            live = [n for n in live if n in kept]
    return seconds


def _standings(truth: Truth, logs: Rounds) -> dict[str, Standing]:
    standings = {}
    for name in truth.usd:
        mine = {s: logs[name, s] for s in range(SIZES) if (name, s) in logs}
        if not mine:
            continue
        values = min(mine.values(), key=lambda v: float(np.mean(v)))
        interval = location(np.exp(values))
        value = math.exp(float(np.mean(values)))
        high = interval.high if math.isfinite(interval.high) else math.inf
        rounds = min(len(v) for v in mine.values())
        standings[name] = Standing(min(interval.low, value), value, max(high, value), rounds, narrow=len(mine) < SIZES)
    return standings

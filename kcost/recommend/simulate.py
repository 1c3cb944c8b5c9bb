"""Made-up candidates whose true costs are known, measured by drawing: what the schedule is held against."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from kcost.core.stats import location
from kcost.recommend.schedule import AT_ONCE, RUNGS, WORTH_TRYING, Arm, Standing, Wave, leader, next_wave, survivors

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

CORES = 2
"""That arms are got ready on at the same time."""

BESIDE = 1.2
"""Times as long as alone that getting an arm ready takes while others are: an assumption."""

EXHAUSTIVE_ROUNDS = 10
"""What `kcost bench` gives each cell."""

CONVERTING = 0.7
"""Part of the time that a conversion takes until it is ready, which is spent once for all batch sizes."""


class Piece(NamedTuple):
    """Work that is done once, whatever it gets ready: a worker, a conversion, a cell."""

    name: str
    seconds: float


class Truth(NamedTuple):
    """What is true of candidates: made up, or recorded where everything was measured."""

    arms: tuple[Arm, ...]
    usd: dict[str, tuple[float, ...]]
    """Arm -> its true cost at each batch size; an arm that is not here cannot be measured, or answers too badly."""
    pieces: dict[tuple[str, int], tuple[Piece, ...]]
    """Arm and batch size -> what is done to get it ready."""
    noise: float
    """Of a round, as the deviation of its logarithm."""
    drift: float
    """Of the machine from round to round, which all arms share."""
    sizes: int = SIZES
    screened_size: int = SCREENED_SIZE
    start_s: float = START_S
    next_start_s: float = NEXT_START_S
    round_s: float = ROUND_S
    floor_usd: float = 0.0
    """The smallest bill there is. What is above it goes with the time of a step, and is what rounds spread."""
    untried: frozenset[str] = frozenset()
    """Arms that no time goes to, as nothing that they answer could allow them."""
    measured_s: float | None = None
    """What measuring every arm took, where that was recorded."""

    def least_usd(self, name: str) -> float:
        """What an arm costs at its best batch size."""
        return min(self.usd[name])

    def seconds_of(self, names: Collection[str], rounds: int) -> float:
        """What getting arms ready at every batch size takes, with their rounds."""
        cells = [(n, s) for n in names for s in range(self.sizes)]
        return self.start_s + sum(ready_s(self, cells, set())) + rounds * len(cells) * self.round_s

    @property
    def exhaustive_s(self) -> float:
        """What measuring every arm takes."""
        if self.measured_s is not None:
            return self.measured_s
        return self.seconds_of([a.name for a in self.arms], EXHAUSTIVE_ROUNDS)

    @property
    def oracle_s(self) -> float:
        """What it takes who knows the winner: it alone and plain Keras, each with the rounds of a screening."""
        winner = min(self.usd, key=self.least_usd)
        return self.seconds_of({winner, *(a.name for a in self.arms if a.is_plain)}, RUNGS[1])


def together_s(each_s: Iterable[float]) -> float:
    """Seconds of arms that are got ready at the same time."""
    busy = [s for s in each_s if s]
    return max([sum(busy) / CORES, *busy]) * (1.0 if len(busy) < 2 else BESIDE)


def ready_s(truth: Truth, cells: Iterable[tuple[str, int]], done: set[str]) -> Iterator[float]:
    """The seconds of each piece of work that is not done yet; it is then."""
    for cell in cells:
        for piece in truth.pieces[cell]:
            if piece.name not in done:
                done.add(piece.name)
                yield piece.seconds


class Outcome(NamedTuple):
    """What a schedule came to."""

    chosen: str | None
    loss: float
    """True cost of the chosen over the best's, less one."""
    seconds: float
    exhaustive_s: float
    first_figures_s: float
    """When the first wave had its rounds."""
    order: tuple[str, ...]
    """Arms behind a conversion or a compilation that were got ready, in that order."""

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
    pieces = {(a.name, s): _pieces(a, s, a.name in converted) for a in arms for s in range(SIZES)}
    return Truth(arms, by_size, pieces, noise=float(rng.uniform(0.01, 0.08)), drift=float(rng.uniform(0, 0.05)))


def _pieces(arm: Arm, size: int, is_converted: bool) -> tuple[Piece, ...]:
    """What a simulated arm takes: of a conversion most is done once for all batch sizes."""
    if not is_converted:
        return (Piece(f"{arm.name} {size}", arm.setup_s / SIZES),)
    conversion = Piece(arm.name, CONVERTING * arm.setup_s)
    return (conversion, Piece(f"{arm.name} {size}", (1 - CONVERTING) * arm.setup_s / SIZES))


def _by_size(least_usd: float, rng: np.random.Generator) -> tuple[float, ...]:
    best = SCREENED_SIZE if rng.random() < 0.6 else int(rng.choice([s for s in range(SIZES) if s != SCREENED_SIZE]))
    more = np.abs(rng.normal(0, 0.25, SIZES))
    return tuple(least_usd if s == best else float(least_usd * math.exp(more[s])) for s in range(SIZES))


Rounds = dict[tuple[str, int], list[float]]
"""Arm and batch size -> logarithms of the costs that its rounds showed."""


def run(truth: Truth, minutes: float, seed: int = 0, worth: float = WORTH_TRYING, at_once: int = AT_ONCE) -> Outcome:
    """Lets the schedule spend the minutes on candidates whose truth is known."""
    rng = np.random.default_rng([seed, 1])
    logs: Rounds = {}
    done: set[str] = set()
    order: list[str] = []
    failed: set[str] = set()
    setup_s: dict[str, float] = {}
    seconds, first_s = 0.0, math.inf
    while True:
        standings = _standings(truth, logs)
        open_ = [a for a in truth.arms if a.name not in truth.untried]
        arms = [a._replace(setup_s=setup_s.get(a.kind or a.name, a.setup_s)) for a in open_]
        left_s = 60 * minutes - seconds
        wave, _ = next_wave(arms, standings, failed, left_s, floor_usd=truth.floor_usd, worth=worth, at_once=at_once)
        if wave is None:
            break
        seconds += truth.next_start_s if logs else truth.start_s
        cells = [(n, s) for n in wave.names for s in _sizes_of(truth, n, wave, standings)]
        each_s = {n: sum(ready_s(truth, [c for c in cells if c[0] == n], done)) for n in wave.names}
        seconds += together_s(each_s.values()) if wave.kind == "try" else sum(each_s.values())
        order += [a.name for a in truth.arms if a.costly and a.name in wave.names and a.name not in standings]
        failed |= {n for n in wave.names if n not in truth.usd}
        seconds += _take_turns(truth, wave, [c for c in cells if c[0] not in failed], logs, rng)
        first_s = min(first_s, seconds)
        if wave.kind == "try":
            setup_s |= {a.kind or a.name: each_s[a.name] for a in arms if each_s.get(a.name)}
    chosen = leader(_standings(truth, logs))
    best = min(truth.least_usd(name) for name in truth.usd)
    loss = math.inf if chosen is None else truth.least_usd(chosen) / best - 1
    return Outcome(chosen, loss, seconds, truth.exhaustive_s, first_s, tuple(order))


def _sizes_of(truth: Truth, name: str, wave: Wave, standings: dict[str, Standing]) -> tuple[int, ...]:
    """The batch sizes at which an arm takes turns in a wave."""
    narrow = wave.narrow and (name not in standings or standings[name].narrow)
    return (truth.screened_size,) if narrow else tuple(range(truth.sizes))


def _take_turns(
    truth: Truth, wave: Wave, cells: list[tuple[str, int]], logs: Rounds, rng: np.random.Generator
) -> float:
    """The rounds of a wave, with halving at each rung, as `recommend.turns` gives them; seconds."""
    live, done, seconds = list(wave.names), 0, 0.0
    plain = {a.name for a in truth.arms if a.is_plain}
    target = {cell: max(wave.rounds, len(logs.get(cell, ())) + RUNGS[0]) for cell in cells}
    while turns := [c for c in cells if c[0] in live and len(logs.get(c, ())) < target[c]]:
        drift = rng.normal(0, truth.drift)
        for name, size in turns:
            above = (truth.usd[name][size] - truth.floor_usd) * math.exp(drift + rng.normal(0, truth.noise))
            logs.setdefault((name, size), []).append(math.log(truth.floor_usd + above))
            seconds += truth.round_s
        done += 1
        if done in RUNGS:
            kept = survivors(_standings(truth, logs), live)
            live = [n for n in live if n in kept or n in plain]
    return seconds


def _standings(truth: Truth, logs: Rounds) -> dict[str, Standing]:
    standings = {}
    for name in truth.usd:
        mine = {s: logs[name, s] for s in range(truth.sizes) if (name, s) in logs}
        if not mine:
            continue
        values = min(mine.values(), key=lambda v: float(np.mean(v)))
        interval = location(np.exp(values))
        value = math.exp(float(np.mean(values)))
        high = interval.high if math.isfinite(interval.high) else math.inf
        rounds, narrow = min(len(v) for v in mine.values()), len(mine) < truth.sizes
        standings[name] = Standing(min(interval.low, value), value, max(high, value), rounds, narrow=narrow)
    return standings

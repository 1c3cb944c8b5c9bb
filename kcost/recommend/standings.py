"""What each candidate costs under the traffic, from the rounds so far: the schedule and the prices rest on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from kcost.core.conversion import DENSE_ALONE
from kcost.core.errors import InputError
from kcost.core.plan import Precision
from kcost.core.probe import Probe
from kcost.core.result import Environment, Run
from kcost.core.stats import location, median_per_round
from kcost.cost.capacity import MOST_BUSY, Capacity, find_capacity
from kcost.cost.instances import Offer, offers_for
from kcost.cost.quality import ReadOutputs
from kcost.cost.ranking import FULL_PRECISION, OTHER_INPUTS, RankedCell
from kcost.cost.scaling import on_offers
from kcost.cost.serving_ways import Way, serving_ways
from kcost.cost.verdict import Verdict, conclude, prices_for
from kcost.recommend.bounds import (
    BYTES_A_WEIGHT,
    FASTEST_MHZ,
    Roof,
    Work,
    most_per_s,
    peak_flops_per_s,
    peak_of_parts,
    probed_roof,
)
from kcost.recommend.candidates import Candidate
from kcost.recommend.drop import DropBound, drop_bound
from kcost.recommend.schedule import Standing, leader
from kcost.recommend.terms import ENDLESS, Terms, expected_total_usd
from kcost.recommend.variants import VARIANTS, MadeVariant


class Judged(NamedTuple):
    """A run as the limits on answers leave it."""

    ways: dict[str, Way]
    """Candidate -> its step times, of the cells that may be used."""
    refused: dict[str, str]
    """Candidate -> why no cell of it may be."""
    drops: dict[str, DropBound]
    """Candidate of lower precision -> its worst batch size's drop."""
    undecided: dict[str, DropBound]
    """Those among the refused whose drop is within the limit, but its bound is not: more labels would tell."""
    undecided_ways: dict[str, Way]
    """Their step times."""
    invalid: dict[str, str]
    """Candidate -> why its figures are not to be believed."""
    verdict: Verdict
    unmeasured: dict[str, frozenset[int]]
    """Candidate -> batch sizes at which it was neither measured nor failed, where there are such: the minutes ended."""
    unlabelled: int | None = None
    """Examples without labels that cells are held against each other on; None where there are labels, or no answers."""

    def lacking(self, name: str, beside: str) -> tuple[int, ...]:
        """Batch sizes at which one way was measured, and another may yet turn out cheaper than it seems."""
        return tuple(sorted(self.unmeasured.get(name, frozenset()) & self.ways[beside].medians_ns.keys()))


class Capacities:
    """The capacity of each candidate, simulated once for as many rounds as it has."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._known: dict[tuple[str, int, float], Capacity | None] = {}
        self._latest: dict[str, Capacity | None] = {}

    def of(self, name: str, way: Way, p99_s: float) -> Capacity | None:
        """The highest rate at which one replica holds the limit; None where none does."""
        steps = sum(len(s) for s in way.service.samples_s.values())
        key = (name, steps, p99_s)
        if key not in self._known:
            self._known[key] = find_capacity(way.service, p99_s, self._seed)
        self._latest[name] = self._known[key]
        return self._known[key]

    def batch_limit(self, name: str) -> int | None:
        """The batch limit of a candidate whose capacity was asked for; None where it has none."""
        latest = self._latest.get(name)
        return None if latest is None else latest.batch_limit


def judge(
    run: Run,
    read_outputs: ReadOutputs,
    terms: Terms,
    candidates: Sequence[Candidate],
    made: Mapping[str, MadeVariant] = MappingProxyType({}),
    rescored: Mapping[str, DropBound] = MappingProxyType({}),
) -> Judged:
    """Holds each measured candidate against the limits on its answers.

    Every cell is taken here, INVALID ones too: `invalid` names these.

    Args:
        made: the versions of the model that were made, by variant. What they lost is what is held against the limit:
            a cell of theirs is compared with another of the same version.
        rescored: candidate -> its drop on more examples than its cells answered, which is what counts then.
    """
    matched = prices_for(run, terms.book, terms.provider, terms.region, terms.instance)
    verdict = conclude(run, matched, read_outputs, max_drop=terms.limits.max_drop)
    cells = {c.cell_id: c for r in verdict.rankings if r.phase == "inference" for c in r.cells}
    specs = {c.spec.cell_id: c.spec for c in run.measured(phase="inference")}
    refused: dict[str, str] = {}
    drops: dict[str, DropBound] = {}
    undecided: dict[str, DropBound] = {}
    invalid: dict[str, str] = {}
    usable: set[str] = set()
    for candidate in candidates:
        mine = [cells[i] for i, spec in specs.items() if i in cells and candidate.has(spec)]
        version = None if candidate.variant is None else made.get(candidate.variant)
        if version is not None and version.drop.bound > terms.limits.max_drop:
            drops[candidate.name] = version.drop
            refused[candidate.name] = drop_told(version.drop, terms.limits.max_drop)
            if version.drop.value <= terms.limits.max_drop:
                undecided[candidate.name] = version.drop
            continue
        if not mine:
            continue
        good = [c for c in mine if c.standing == "ranked"]
        worst = _worst_drop(mine) if version is None else version.drop
        worst = rescored.get(candidate.name, worst)
        if worst is not None:
            drops[candidate.name] = worst
        if not good:
            why = f" ({OTHER_INPUTS})" if mine[0].standing == "outputs differ" else ""
            refused[candidate.name] = f"{mine[0].standing}: {mine[0].reason}{why}"
        elif worst is not None and worst.bound > terms.limits.max_drop:
            refused[candidate.name] = drop_told(worst, terms.limits.max_drop)
            if worst.value <= terms.limits.max_drop:
                undecided[candidate.name] = worst
        else:
            usable |= {c.cell_id for c in good}
        disturbed = [c.invalid for c in good if c.invalid is not None]
        if disturbed:
            invalid[candidate.name] = f"INVALID: {disturbed[0]}"
    held = {c.cell_id for c in cells.values() if c.standing == "ranked"}
    hand_over_s = terms.assumed.hand_over_ms / 1e3
    every = _on_instances(_ways(run, verdict, candidates, held, hand_over_s), terms)
    return Judged(
        ways=_on_instances(_ways(run, verdict, candidates, usable, hand_over_s), terms),
        refused=refused,
        drops=drops,
        undecided=undecided,
        undecided_ways={name: every[name] for name in undecided if name in every},
        invalid=invalid,
        verdict=verdict,
        unmeasured=_unmeasured(run, candidates),
        unlabelled=_unlabelled(list(cells.values())),
    )


def _unmeasured(run: Run, candidates: Sequence[Candidate]) -> dict[str, frozenset[int]]:
    done = [c.spec for c in run.present if c.status != "partial"]
    sizes = {c.name: frozenset(c.batches) - {s.batch for s in done if c.has(s)} for c in candidates}
    return {name: lacking for name, lacking in sizes.items() if lacking}


def _unlabelled(cells: Sequence[RankedCell]) -> int | None:
    """Examples without labels that the answers of cells were compared on."""
    if any(c.quality.scores for c in cells):
        return None
    return max((c.quality.agreement_count for c in cells), default=0) or None


def _worst_drop(cells: Sequence[RankedCell]) -> DropBound | None:
    """Of the cells that compute in less than float32, the one that may have lost most."""
    lower = [c for c in cells if not set(c.dtype.split(" and ")) <= FULL_PRECISION]
    bounds = [b for c in lower if (b := drop_bound(c.quality)) is not None]
    return max(bounds, key=lambda b: b.bound, default=None)


def drop_told(drop: DropBound, limit: float) -> str:
    """Why a drop refuses a candidate."""
    what = "score" if drop.basis == "labels" else "answers"
    reason = (
        f"{what} may drop by up to {drop.bound:.2%} (bound of 95%, {drop.count} examples); the limit is {limit:.2%}"
    )
    more = drop.more_labels(limit)
    if drop.value > limit or more is None:
        return reason
    return (
        f"can't tell: {reason}; about {more:,} more {'labels' if drop.basis == 'labels' else 'examples'} would decide"
    )


def _ways(
    run: Run, verdict: Verdict, candidates: Sequence[Candidate], usable: set[str], hand_over_s: float
) -> dict[str, Way]:
    """The ways of serving by candidate; those that were disturbed among them, of which `invalid` tells."""
    rankings = tuple(
        r.model_copy(update={"cells": tuple(_as_valid(c, usable) for c in r.cells)}) for r in verdict.rankings
    )
    try:
        names = tuple({r.model: None for r in rankings})
        ways, _ = serving_ways(run, verdict.model_copy(update={"rankings": rankings}), names, hand_over_s)
    except InputError:  # not one cell may be used: each says why
        return {}
    named = {}
    for way in ways:
        for candidate in candidates:
            if candidate.has(way.spec):
                named[candidate.name] = way._replace(name=candidate.name, is_plain=candidate.is_plain)
    return named


def _on_instances(ways: dict[str, Way], terms: Terms) -> dict[str, Way]:
    """The ways with the seconds of the instances that serve them, where these have fewer vCPUs than the machine."""
    offers = {name: offers_of(terms, way.environment, way.peak_bytes) for name, way in ways.items()}
    return {way.name: way for way in on_offers(list(ways.values()), offers, terms.assumed.scaling_spread)}


def _as_valid(cell: RankedCell, usable: set[str]) -> RankedCell:
    if cell.cell_id in usable:
        return cell.model_copy(update={"valid": True, "invalid": None})
    if cell.standing == "ranked":
        return cell.model_copy(update={"standing": "score too low", "rank": None})
    return cell


def offers_of(terms: Terms, environment: Environment, peak_bytes: int | None = None) -> list[Offer]:
    """Instances that could serve what was measured on a machine."""
    return offers_for(
        environment,
        terms.book,
        provider=terms.provider,
        region=terms.region,
        instance=terms.instance,
        peak_bytes=peak_bytes,
    )


def standings_of(judged: Judged, terms: Terms, capacities: Capacities) -> dict[str, Standing]:
    """Expected cost over the horizon of each usable candidate, from step times with a 95% interval.

    A candidate that would be too dear even if no request ever waited is not simulated: its cost is then that bound's.
    One that cannot hold the p99 costs infinitely much.
    """
    standings: dict[str, Standing] = {}
    p99_s = terms.limits.p99_ms / 1e3
    unlimited = {name: _at_most(way, p99_s) for name, way in judged.ways.items()}
    for name in sorted(judged.ways, key=lambda n: (-unlimited[n], n)):
        way = judged.ways[name]
        offers = offers_of(terms, way.environment, way.peak_bytes)
        rounds = min(len(r) for r in way.medians_ns.values())
        if not unlimited[name]:
            standings[name] = Standing(math.inf, math.inf, math.inf, rounds)
            continue
        quick = _standing(way, terms, offers, unlimited[name], 1.0, rounds, max(way.service.sizes))
        best = leader(standings)
        if best is not None and quick.low_usd > standings[best].high_usd:
            standings[name] = quick
            continue
        capacity = capacities.of(name, way, p99_s)
        if capacity is None:
            standings[name] = Standing(math.inf, math.inf, math.inf, rounds)
            continue
        standings[name] = _standing(
            way, terms, offers, capacity.queries_per_s, capacity.elasticity, rounds, capacity.batch_limit
        )
    return standings


def _at_most(way: Way, p99_s: float) -> float:
    """Requests a second that no queue could better: of the batch sizes whose fastest step is within the limit."""
    fitting = [b for b, s in way.service.samples_s.items() if float(np.min(s)) <= p99_s]
    return max((MOST_BUSY * b / way.service.mean_s(b) for b in fitting), default=0.0)


def _standing(
    way: Way, terms: Terms, offers: list[Offer], rate: float, elasticity: float, rounds: int, batch: int
) -> Standing:
    step = location(list(way.medians_ns[batch].values()))
    slower = step.high / step.value if math.isfinite(step.high) else math.inf
    faster = step.value / step.low if step.low > 0 else math.inf

    def usd(at: float) -> float:
        return expected_total_usd(terms, offers, at, is_plain=way.is_plain)

    value = usd(rate)
    low = usd(min(ENDLESS, rate * faster**elasticity)) if math.isfinite(faster) else 0.0
    high = usd(rate / slower**elasticity) if math.isfinite(slower) else math.inf
    return Standing(min(low, value), value, max(high, value), rounds)


class Floor(NamedTuple):
    """The least that ways can cost, whatever is measured."""

    usd: float
    by_candidate: dict[str, float]


def floor_of(
    terms: Terms,
    environment: Environment,
    candidates: Sequence[Candidate],
    work: Work,
    mhz: float | None = None,
    made: Mapping[str, MadeVariant] = MappingProxyType({}),
    probe: Probe | None = None,
) -> Floor:
    """The bill of ways that are never the limit, and of each candidate on the roof of the machine.

    Args:
        work: of the model as it is; without it no bound but the smallest bill is known.
        mhz: the highest clock that was seen; None takes one that no processor exceeds.
        made: the versions of the model that were made, by variant: what they do is known, of others it is guessed low.
        probe: of this machine; None, or one of another number of threads, takes the processor's peak on paper.
    """
    offers = offers_of(terms, environment)
    least = expected_total_usd(terms, offers, ENDLESS, is_plain=False)
    bounds = {}
    for candidate in candidates:
        mine = _work_of(candidate, work, made)
        if not mine.flops_per_example or candidate.device != "cpu":
            bounds[candidate.name] = least
            continue
        precision = _fastest_precision(candidate)
        roof = _roof_of(candidate, precision, mine, environment, mhz, probe)
        if mine.convolution_flops and (candidate.method, candidate.precision) in DENSE_ALONE:
            plain = _roof_of(candidate, "float32", mine, environment, mhz, probe)
            part = mine.convolution_flops / mine.flops_per_example
            roof = roof._replace(flops_per_s=peak_of_parts(roof.flops_per_s, plain.flops_per_s, part))
        rate = min(ENDLESS, most_per_s(mine, candidate.batches, roof, precision))
        bounds[candidate.name] = expected_total_usd(terms, offers, rate, is_plain=False)
    return Floor(least, bounds)


def _roof_of(
    candidate: Candidate,
    precision: Precision,
    work: Work,
    environment: Environment,
    mhz: float | None,
    probe: Probe | None,
) -> Roof:
    """What bounds a candidate whose products run in a precision."""
    cores = candidate.threads or environment.default_threads
    weight_bytes = work.weight_bytes * BYTES_A_WEIGHT[precision] / BYTES_A_WEIGHT["float32"]
    if probe is not None and (roof := probed_roof(probe, precision, cores, weight_bytes)) is not None:
        return roof
    return Roof(peak_flops_per_s(precision, cores, environment.cpu_features, mhz or FASTEST_MHZ))


def _work_of(candidate: Candidate, work: Work, made: Mapping[str, MadeVariant]) -> Work:
    if candidate.variant is None:
        return work
    if (version := made.get(candidate.variant)) is not None:
        return Work(version.flops_per_example, version.weight_bytes)
    kept = next(v.share_kept for v in VARIANTS if v.name == candidate.variant)
    return Work(work.flops_per_example * kept, int(work.weight_bytes * kept), work.convolution_flops * kept)


def _fastest_precision(candidate: Candidate) -> Precision:
    """What the products may run in: layers in int8 lie in a file that is run as float32."""
    is_int8 = any(v.is_int8 for v in VARIANTS if v.name == candidate.variant)
    return "int8" if is_int8 else candidate.precision


def fastest_mhz(run: Run) -> float | None:
    """The highest clock that turns of a run showed; None where the system does not tell."""
    clocks = [r.watch.cpu_mhz for c in run.cells for r in c.rounds if r.watch is not None and r.watch.cpu_mhz]
    return max(clocks, default=None)


def step_ms(run: Run, candidate: Candidate) -> dict[int, float]:
    """Batch size -> typical step of a candidate's measured cells, milliseconds."""
    mine = [c for c in run.cells if c.rounds and candidate.has(c.spec)]
    return {c.spec.batch: location(median_per_round([r.step_ns for r in c.rounds])).value / 1e6 for c in mine}

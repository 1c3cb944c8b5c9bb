"""Cells of one model and phase in the order of what they cost, and which may stand in that order at all."""

from __future__ import annotations

import itertools
import math
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from kcost.core.disturbance import Disturbance
from kcost.core.plan import Backend, Device, Method, Phase, Precision, baseline_of, dtype_text
from kcost.core.result import CellResult
from kcost.core.run_cost import NOT_MEASURED, step_energy
from kcost.core.schema import Record
from kcost.core.stats import Interval, paired_ratio, surely_differs, tail
from kcost.core.units import UsdScale, format_percent, significant, usd_scale
from kcost.cost.estimate import CostEstimate
from kcost.cost.fairness import Fairness
from kcost.cost.judgement import Judgement
from kcost.cost.notices import SAMPLES_FOR_P99
from kcost.cost.quality import Quality

PARITY_LIMIT = 1e-4
"""Most that an output of a float32 cell may differ from the reference's, as part of the largest of its numbers."""

OTHER_INPUTS = (
    "a run that was begun with another --seed, or by a kcost that made inputs up by the seed, was fed other inputs: "
    "measure into a new folder"
)
"""Why outputs may differ although the model computes the same."""

ROUNDING = 1e-9
"""A drop of exactly the limit may come out above it: 0.9925 - 0.9825 is more than 0.01 to a computer."""

MIN_SHARED_ROUNDS = 3
"""Fewest rounds in common from which two cells are told apart."""

FULL_PRECISION = frozenset({"float64", "float32", "integers"})
"""dtypes in which outputs are held against PARITY_LIMIT; with any other among them, scores decide."""

Standing = Literal[
    "ranked", "not finite", "not judged", "outputs differ", "score too low", "score not known", "too slow"
]
"""ranked, or why not: answers with NaN or infinite numbers, its own or the reference's; answers that could not be
compared; float32 outputs over PARITY_LIMIT; a score that dropped too far; a lower precision with no labels or
predictions to judge it by; over the latency limit that was asked for."""


class Ratio(Record):
    """How many times one cell's cost is another's, from rounds that both were measured in."""

    value: float
    low: float = Field(description="lower end of the 95% interval")
    high: float | None = Field(description="upper end of the 95% interval; None with one round, which has none")
    rounds: int

    @property
    def tells_apart(self) -> bool:
        """Whether the two differ for sure: enough rounds in common, and an interval of 99% would not hold 1."""
        if self.rounds < MIN_SHARED_ROUNDS or self.high is None:
            return False
        return surely_differs(Interval(self.value, self.low, self.high), self.rounds)

    def __str__(self) -> str:
        high = "unbounded" if self.high is None else significant(self.high)
        return f"{significant(self.value)} times (95%: {significant(self.low)} to {high})"


class TailLatency(Record):
    """The highest percentile that a cell's steps are enough for, with its exact binomial interval."""

    name: str = Field(description="p99, p97, p95 or p90")
    ms: float
    low_ms: float
    high_ms: float


class RankedCell(Record):
    """A measured cell with what is derived from it."""

    cell_id: str
    label: str
    backend: Backend
    method: Method
    precision: Precision
    saved_policy: str | None = Field(default=None, description="of precision `saved`: what the file was saved under")
    device: Device
    batch: int
    rank: int | None = Field(description="1 is the cheapest; None where the cell may not be ranked")
    standing: Standing
    reason: str | None = Field(default=None, description="why it is not ranked")
    step_ms: float = Field(description="median over all steps")
    step_p95_ms: float
    step_p99_ms: float | None = Field(description=f"None under {SAMPLES_FOR_P99} steps, which do not show it")
    tail: TailLatency | None = Field(default=None, description="None under 64 steps, which show no tail")
    steps: int
    rounds: int
    valid: bool = Field(default=True, description="False: it is INVALID; it has no dollars and no ratio")
    invalid: str | None = Field(
        default=None, description="why its figures are not to be believed, and what to do about it"
    )
    simulated: bool = Field(default=False, description="its step times were made up, not measured")
    examples_per_s: float
    peak_host_bytes: int | None = Field(default=None, description="most that its worker held in a measured turn")
    peak_device_bytes: int | None = Field(default=None, description="most that its worker took of an accelerator")
    step_joules: float | None = Field(default=None, description="energy of a step; None where it is not measured")
    energy_basis: str = Field(default=NOT_MEASURED, description="the counter or the model that the energy is from")
    cost: CostEstimate | None = Field(description="None where the cell is INVALID: then nobody knows it")
    times_cheaper: Ratio | None = Field(default=None, description="the baseline's cost over this cell's")
    quality: Quality
    fairness: Fairness

    @property
    def joules_per_thousand(self) -> float | None:
        """Energy of a thousand examples."""
        return None if self.step_joules is None else self.step_joules / self.batch * 1000

    @property
    def peak_bytes(self) -> int | None:
        """Peak memory where the model lies: of the accelerator where it is on one, else of the worker."""
        return self.peak_host_bytes if self.device == "cpu" else self.peak_device_bytes

    @property
    def name(self) -> str:
        """What was chosen, in a few words."""
        return f"{self.backend}/{self.method} {self.dtype} at batch {self.batch}"

    @property
    def dtype(self) -> str:
        """What it computes in, in words: as its model was saved, or what its layers say."""
        return dtype_text("saved", self.saved_policy) if self.precision == "saved" else self.fairness.dtype


class Ranking(Record):
    """The cells of one model and phase that were measured under the same settings."""

    model: str
    phase: Phase
    apart: tuple[str, ...] = Field(
        default=(), description="the settings in which these cells differ from the reference's group; empty for it"
    )
    reference: str | None = Field(description="label of the cell that outputs and scores were held against")
    baseline: str | None = Field(description="cell_id of plain Keras, that costs are compared with")
    unit: str = Field(description="what the costs are per, such as `million predictions`")
    cells: tuple[RankedCell, ...] = Field(description="the ranked ones by cost, then the others by cost")
    tied_with_best: tuple[str, ...] = Field(default=(), description="cell_ids that cannot be told from the best")

    @property
    def best(self) -> RankedCell | None:
        """The cheapest cell that may be ranked."""
        return self.cells[0] if self.cells and self.cells[0].rank == 1 else None

    def cell(self, cell_id: str) -> RankedCell:
        """One of the cells. Raises KeyError for an id that is none of them."""
        return {c.cell_id: c for c in self.cells}[cell_id]

    def first(self, count: int) -> list[RankedCell]:
        """The first `count` cells, for a table; plain Keras takes the last place where it is not among them."""
        shown = list(self.cells[:count])
        if self.baseline is not None and all(c.cell_id != self.baseline for c in shown):
            shown[-1:] = [self.cell(self.baseline)]
        return shown

    @property
    def usd_scale(self) -> UsdScale:
        """The unit in which its costs read at a glance: the cheapest's."""
        cheapest = [cost.usd for c, cost in self.priced if c.rank == 1]
        return usd_scale(cheapest or [cost.usd for _, cost in self.priced], self.unit)

    @property
    def priced(self) -> list[tuple[RankedCell, CostEstimate]]:
        """The cells that have a cost, each with it: an INVALID one has none."""
        return [(c, c.cost) for c in self.cells if c.cost is not None]

    @property
    def mark(self) -> str:
        """What dollars are marked with that rest on seconds of another machine than is priced; else empty."""
        bases = {cost.basis for _, cost in self.priced} - {"measured here", "simulated"}
        return f" [{', '.join(sorted(bases))}]" if bases else ""

    def best_by_backend(self) -> dict[str, RankedCell]:
        """The cheapest ranked cell of each backend, the cheapest backend first."""
        cheapest: dict[str, RankedCell] = {}
        for cell in self.cells:
            if cell.rank is not None:
                cheapest.setdefault(cell.backend, cell)
        return cheapest


class Percentiles(NamedTuple):
    """Percentiles of all steps of a cell in milliseconds."""

    steps: int
    p50: float
    p95: float
    p99: float
    tail: TailLatency | None
    """The highest percentile that as many steps show; None under 64."""

    @property
    def shows_p99(self) -> bool:
        """Whether there are enough steps to know the p99."""
        return self.steps >= SAMPLES_FOR_P99


class Measured(NamedTuple):
    """A cell on its way to be ranked."""

    cell: CellResult
    cell_id: str
    medians_ns: np.ndarray
    step_ns: Interval
    slow_ms: Percentiles
    cost: CostEstimate
    judgement: Judgement
    fairness: Fairness
    disturbed: tuple[Disturbance, ...]
    invalid: str | None

    @property
    def round_keys(self) -> list[tuple[str, int]]:
        """What each round is paired by."""
        return [(r.session, r.number) for r in self.cell.rounds]


def percentiles_ms(cell: CellResult) -> Percentiles:
    """Percentiles of the cell's steps, with linear interpolation between two of them, as numpy's default."""
    steps = sorted(itertools.chain.from_iterable(r.step_ns for r in cell.rounds))

    def at(fraction: float) -> float:
        place = (len(steps) - 1) * fraction
        below = int(place)
        above = min(below + 1, len(steps) - 1)
        return (steps[below] + (steps[above] - steps[below]) * (place - below)) / 1e6

    quantile = tail(steps)  # sorts what is sorted, which is quick
    shown = None
    if quantile is not None:
        value, low, high = quantile.interval.scaled(1e-6)
        shown = TailLatency(name=quantile.name, ms=value, low_ms=low, high_ms=high)
    return Percentiles(len(steps), at(0.50), at(0.95), at(0.99), shown)


def held_tail(tail: TailLatency | None, p95_ms: float) -> tuple[str, float]:
    """Name and milliseconds of what a limit of the p99 is held against: the highest percentile that the steps show.

    Where that is below the p95, the p95 of those steps that there are stands in: never less than that.
    """
    return ("p95", p95_ms) if tail is None or tail.name == "p90" else (tail.name, tail.ms)


def standing_of(
    measured: Measured, *, max_drop: float, p99_ms: float | None, reference_not_finite: str | None = None
) -> tuple[Standing, str | None]:
    """Whether a cell may be ranked, and why not."""
    quality = measured.judgement.quality
    if (why := measured.judgement.not_finite) is not None:
        return "not finite", why
    if reference_not_finite is not None:
        return "not finite", f"of the model's reference, {reference_not_finite}"
    if (why := measured.judgement.not_judged) is not None:
        return "not judged", why
    if quality.not_finite:
        return "outputs differ", "NaN or infinite numbers where the reference has others"
    if set(measured.fairness.dtype.split(" and ")) <= FULL_PRECISION:
        worst = quality.worst_difference
        if worst is not None and worst.relative > PARITY_LIMIT:
            named = f" in the output {worst.output!r}" if len(quality.differences) > 1 else ""
            parts = f"{worst.max_abs:.2g}{named}, {worst.relative:.2g} of its largest number"
            return "outputs differ", f"by up to {parts}; the limit for float32 is {PARITY_LIMIT:g}"
    elif measured.cell.spec.phase == "inference":
        standing, reason = _score_standing(quality, max_drop)
        if standing != "ranked":
            return standing, reason
    if p99_ms is not None and measured.cell.spec.phase == "inference":
        name, slow_ms = held_tail(measured.slow_ms.tail, measured.slow_ms.p95)
        if slow_ms > p99_ms:
            return "too slow", f"{name} {significant(slow_ms)} ms; the limit is {p99_ms:g} ms"
    return "ranked", None


def _score_standing(quality: Quality, max_drop: float) -> tuple[Standing, str | None]:
    """A score decides; without one, agreement does: n% other answers move a score by at most n points."""
    limit = f"the limit is {format_percent(max_drop)}"
    for output in quality.other_outputs:
        if 1 - output.share > max_drop + ROUNDING:
            reason = f"the output {output.output!r} is another for {format_percent(1 - output.share)} of {output.count}"
            return "score too low", f"{reason} examples; {limit}"
    if quality.drop is not None:
        score = quality.scores[0]
        if quality.drop > max_drop + ROUNDING:
            reason = f"{score.name} drops by {format_percent(quality.drop)} on {score.count} {score.unit}; {limit}"
            return "score too low", reason
        return "ranked", None
    if quality.agreement is None:
        return "score not known", "no predictions to compare with the reference's"
    other = 1 - quality.agreement
    if other > max_drop + ROUNDING:
        reason = f"{format_percent(other)} of {quality.agreement_count} predictions are not the reference's; {limit}"
        return "score too low", reason
    return "ranked", None


def ratio_of_costs(one: Measured, other: Measured) -> Ratio | None:
    """The cost of `one` over that of `other` for the same work, paired by session and round number.

    None where no round is shared.
    """
    my_keys, their_keys = one.round_keys, other.round_keys
    if my_keys == their_keys:
        shared, mine, theirs = len(my_keys), one.medians_ns, other.medians_ns
    else:
        places = {key: i for i, key in enumerate(their_keys)}
        pairs = [(i, places[key]) for i, key in enumerate(my_keys) if key in places]
        if not pairs:
            return None
        shared, mine = len(pairs), one.medians_ns[[i for i, _ in pairs]]
        theirs = other.medians_ns[[i for _, i in pairs]]
    # A cost is its typical step times a factor: this gives dollars for one nanosecond of step.
    my_factor, their_factor = one.cost.usd / one.step_ns.value, other.cost.usd / other.step_ns.value
    ratio = paired_ratio(mine * my_factor, theirs * their_factor)
    high = ratio.high if math.isfinite(ratio.high) else None
    return Ratio(value=ratio.value, low=ratio.low, high=high, rounds=shared)


def plain_keras(group: list[Measured], phase: Phase) -> Measured | None:
    """What a group's costs are compared with: plain Keras as `core.plan.baseline_of` has it; None without any."""
    method = "predict" if phase == "inference" else "train_on_batch"
    plain = [m for m in group if m.cell.spec.method == method and m.cell.spec.precision == "float32"]
    spec = baseline_of([m.cell.spec for m in plain])
    return next((m for m in plain if m.cell.spec == spec), None)


def rank(
    group: list[Measured],
    *,
    model: str,
    phase: Phase,
    apart: tuple[str, ...],
    reference: str | None,
    max_drop: float,
    p99_ms: float | None,
    reference_not_finite: str | None = None,
) -> Ranking:
    """The ranking of cells that were measured under the same settings.

    Args:
        reference_not_finite: how many answers of the reference hold NaN or infinite numbers: then nothing is ranked.
    """
    baseline = plain_keras(group, phase)
    standings = {
        m.cell_id: standing_of(m, max_drop=max_drop, p99_ms=p99_ms, reference_not_finite=reference_not_finite)
        for m in group
    }
    ordered = sorted(group, key=lambda m: (standings[m.cell_id][0] != "ranked", m.cost.usd, m.cell_id))
    cells = []
    for place, measured in enumerate(ordered, start=1):
        standing, reason = standings[measured.cell_id]
        cells.append(_ranked(measured, place if standing == "ranked" else None, standing, reason, baseline))
    best_and_ranked = [m for m, c in zip(ordered, cells, strict=True) if c.rank is not None]
    return Ranking(
        model=model,
        phase=phase,
        apart=apart,
        reference=reference,
        baseline=None if baseline is None else baseline.cell_id,
        unit=group[0].cost.unit,
        cells=tuple(cells),
        tied_with_best=_tied_with_best(best_and_ranked),
    )


def _ranked(
    measured: Measured, place: int | None, standing: Standing, reason: str | None, baseline: Measured | None
) -> RankedCell:
    cell, spec = measured.cell, measured.cell.spec
    slow, energy = measured.slow_ms, step_energy(cell)
    return RankedCell(
        cell_id=measured.cell_id,
        label=spec.label,
        backend=spec.backend,
        method=spec.method,
        precision=spec.precision,
        saved_policy=spec.saved_policy,
        device=spec.device,
        batch=spec.batch,
        rank=place,
        standing=standing,
        reason=reason,
        step_ms=slow.p50,
        step_p95_ms=slow.p95,
        step_p99_ms=slow.p99 if slow.shows_p99 else None,
        tail=slow.tail,
        steps=slow.steps,
        valid=measured.invalid is None,
        invalid=measured.invalid,
        simulated=measured.cost.basis == "simulated",
        rounds=len(cell.rounds),
        examples_per_s=spec.batch / (slow.p50 / 1e3),
        peak_host_bytes=max((r.peak_host_bytes for r in cell.rounds if r.peak_host_bytes is not None), default=None),
        peak_device_bytes=None if cell.preparation is None else cell.preparation.peak_device_bytes,
        step_joules=energy.joules,
        energy_basis=energy.basis,
        cost=measured.cost if measured.invalid is None else None,
        times_cheaper=_times_cheaper(measured, baseline),
        quality=measured.judgement.quality,
        fairness=measured.fairness,
    )


def _times_cheaper(measured: Measured, baseline: Measured | None) -> Ratio | None:
    """None without a baseline, or where one of the two is INVALID: that gives no figure."""
    if baseline is None or measured.invalid is not None or baseline.invalid is not None:
        return None
    return ratio_of_costs(baseline, measured)


def _tied_with_best(ranked: list[Measured]) -> tuple[str, ...]:
    """The cells from the second on, in order, up to the first that is known to cost more than the best."""
    tied = []
    for measured in ranked[1:]:
        ratio = ratio_of_costs(measured, ranked[0])
        if ratio is not None and ratio.tells_apart:
            break
        tied.append(measured.cell_id)
    return tuple(tied)

"""The verdict over a run: which way of running each model is the cheapest that still answers alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Literal

from pydantic import Field

from kcost.core.disturbance import disturbances, invalid_by, invalid_if_many
from kcost.core.plan import Phase
from kcost.core.result import CellResult, Environment, Run, failed
from kcost.core.schema import VERSIONS, Record
from kcost.core.stats import location, median_per_round
from kcost.cost.estimate import basis_of_match
from kcost.cost.fairness import Fairness, differences, fairness_of
from kcost.cost.inference import usd_per_million
from kcost.cost.judgement import Judge
from kcost.cost.machine_match import Match
from kcost.cost.notices import (
    SAMPLES_FOR_P99,
    Notice,
    failure_notice,
    measurement_notices,
    model_notices,
    precision_notice,
    reference_notice,
)
from kcost.cost.payment import Pay
from kcost.cost.price_warnings import OLD_AFTER_DAYS, age_days
from kcost.cost.pricebook import PriceBook
from kcost.cost.quality import ReadOutputs, reference_cell
from kcost.cost.ranking import (
    MIN_SHARED_ROUNDS,
    OTHER_INPUTS,
    PARITY_LIMIT,
    Measured,
    RankedCell,
    Ranking,
    Ratio,
    held_tail,
    percentiles_ms,
    rank,
)
from kcost.cost.scenarios import ScenarioRow, scenario_rows
from kcost.cost.training import usd_of_training

MAX_DROP = 0.01
TOLD_TIES = 3

Outcome = Literal["cheaper", "can't tell", "baseline is cheapest", "no baseline", "nothing ranked", "invalid"]


class Conclusion(Record):
    """What a ranking says, for a program and in one sentence."""

    model: str
    phase: Phase
    outcome: Outcome
    valid: bool = Field(default=True, description="False: what it would say rests on an INVALID cell")
    best: str | None = Field(default=None, description="cell_id")
    baseline: str | None = Field(default=None, description="cell_id")
    times_cheaper: Ratio | None = Field(default=None, description="the baseline's cost over the best cell's")
    sentence: str


class Verdict(Record):
    """Everything that is derived from a run: rankings in dollars, conclusions and reasons for care."""

    schema_: int = Field(default=VERSIONS["verdict"], alias="schema")
    run_created_at: str
    max_drop: float
    p99_ms: float | None
    valid: bool = Field(default=True, description="False: the run as a whole is not to be believed")
    invalid: str | None = Field(default=None, description="why it is not")
    prices: dict[str, Match] = Field(description="by environment_id")
    rankings: tuple[Ranking, ...]
    conclusions: tuple[Conclusion, ...] = Field(description="one for each ranking, in the same order")
    notices: tuple[Notice, ...]
    scenarios: tuple[ScenarioRow, ...] = Field(default=(), description="empty where the plan asked for none")

    def ranking(self, model: str, phase: Phase) -> Ranking | None:
        """The main ranking of a model and phase: the one with the reference in it."""
        return next((r for r in self.rankings if (r.model, r.phase, r.apart) == (model, phase, ())), None)


def prices_for(
    run: Run,
    book: PriceBook,
    provider: str | None = None,
    region: str | None = None,
    instance: str | None = None,
    pay: Pay = "on-demand",
) -> dict[str, Match]:
    """A price for each environment of a run.

    Raises:
        PriceError: the book has none for what was asked, none with a machine's accelerator, or none paid in that way.
    """
    return {key: book.closest(machine, provider, region, instance, pay) for key, machine in run.environments.items()}


def conclude(
    run: Run,
    prices: Mapping[str, Match],
    read_outputs: ReadOutputs,
    *,
    max_drop: float = MAX_DROP,
    p99_ms: float | None = None,
    today: date | None = None,
) -> Verdict:
    """Ranks the cells of a run and says what follows.

    Cells that differ in device, threads, TF32, where inputs live, or environment are ranked apart. A float32
    cell is ranked if its outputs are within PARITY_LIMIT of the reference's, one of lower precision if its
    score is at most `max_drop` below the reference's on the same examples. What a cell computes in is what its layers
    do. A cell whose answers cannot be read or compared, or are not finite, is not ranked, and says why; where those of
    the reference are not finite, no cell of the model is.

    Args:
        prices: environment_id -> price, as `prices_for` gives them.
        read_outputs: gives the stored arrays of a cell, such as `RunStore.read_outputs`.
        max_drop: largest drop of the score, as a fraction of 1; a point estimate.
        p99_ms: leaves out cells whose steps take longer; of the steps one after another, not under load.
        today: prices that are older than OLD_AFTER_DAYS by then are told; None tells of none.

    Raises:
        SchemaError: a cell with status ok lacks what such a cell has.
    """
    rankings: list[Ranking] = []
    notices = list(_price_notices(prices, today))
    invalid: list[str | None] = []
    for entry in run.index.models:
        cells = run.measured(entry.name)
        simulated = sum(c.preparation is not None and c.preparation.simulated for c in cells)
        notices.extend(model_notices(entry, simulated))
        judge = Judge(entry, cells, read_outputs)
        reference = judge.reference
        if reference is not None and judge.not_finite is not None:
            notices.append(reference_notice(reference, judge.not_finite))
        for phase in ("inference", "training"):
            measured = [_measured(cell, run, prices, judge) for cell in run.measured(entry.name, phase)]
            for apart, group in _groups(measured, reference, run.environments):
                rankings.append(
                    rank(
                        group,
                        model=entry.name,
                        phase=phase,
                        apart=apart,
                        reference=None if reference is None else reference.spec.label,
                        max_drop=max_drop,
                        p99_ms=p99_ms,
                        reference_not_finite=judge.not_finite,
                    )
                )
            for one in measured:
                invalid.append(one.invalid)
                machine = run.environments[one.cell.environment_id]
                notices.extend(measurement_notices(one.cell, machine, one.medians_ns, one.disturbed))
    not_finite = {n.model for n in notices if n.code == "not-finite"}
    cells_by_id = {c.spec.cell_id: c for c in run.cells}
    for ranking in rankings:
        notices.extend(_ranking_notices(ranking, p99_ms, max_drop, ranking.model in not_finite))
        if (precision := run.index.plan.settings.precision) is not None:
            ratios = [(c.cell_id, c.times_cheaper) for c in ranking.cells if c.cell_id != ranking.baseline]
            doubts = (precision_notice(cells_by_id[i], r.value, r.high, precision) for i, r in ratios if r is not None)
            notices.extend(n for n in doubts if n is not None)
    notices.extend(failure_notice(cell) for cell in failed(run.present))
    whole = invalid_if_many(invalid)
    return Verdict(
        run_created_at=run.index.created_at,
        max_drop=max_drop,
        p99_ms=p99_ms,
        valid=whole is None,
        invalid=whole,
        prices=dict(prices),
        rankings=tuple(rankings),
        conclusions=tuple(_conclusion(r) for r in rankings),
        notices=tuple(sorted(notices, key=lambda n: n.code != "not-finite")),  # that is said first
        scenarios=scenario_rows(run, prices),
    )


def _price_notices(prices: Mapping[str, Match], today: date | None) -> Iterator[Notice]:
    for price in {m.price.key: m.price for m in prices.values()}.values():
        if today is None or (age := age_days(price, today)) == 0:
            continue
        if age is None:
            yield Notice(
                code="price-old",
                text=f"The price of {price.key} has no date: how old it is, nobody knows.",
                limit=OLD_AFTER_DAYS,
                remedy="`kcost prices update` reads a newer list, and prices.toml takes a price of yours.",
            )
        elif age > OLD_AFTER_DAYS:
            yield Notice(
                code="price-old",
                text=f"The price of {price.key} is {age} days old, of {price.as_of}.",
                number=age,
                limit=OLD_AFTER_DAYS,
                remedy="`kcost prices update` reads a newer list, and prices.toml takes a price of yours.",
            )
    for match in prices.values():
        if not match.same_machine:
            yield Notice(
                code="price-of-another-size" if match.same_family else "price-of-another-machine",
                text=f"[{basis_of_match(match)}] The seconds are of another machine than {match.price.key}, taken as "
                "they are.",
                remedy="Measure on the instance, or `kcost project` to it with probes; `kcost cost --qps` counts the "
                "workers that it holds.",
            )
    assumed = {(m.price.provider, m.price.instance, m.price.region) for m in prices.values() if m.is_assumption}
    for provider, instance, region in sorted(assumed):
        yield Notice(
            code="price-assumed",
            text=f"That the machine costs what {provider} {instance} in {region} does is an assumption.",
            remedy="Name the instance that you would rent: --instance.",
        )


def _measured(cell: CellResult, run: Run, prices: Mapping[str, Match], judge: Judge) -> Measured:
    fairness = fairness_of(cell)
    match = prices[cell.environment_id]
    medians_ns = median_per_round([r.step_ns for r in cell.rounds])
    step_ns = location(medians_ns)
    if cell.spec.phase == "training":
        cost = usd_of_training(cell, match, run.entry(cell.spec.model), step=step_ns)
    else:
        cost = usd_per_million(cell, match, step=step_ns)
    disturbed = disturbances(cell, run.environments[cell.environment_id])
    return Measured(
        cell=cell,
        cell_id=cell.spec.cell_id,
        medians_ns=medians_ns,
        step_ns=step_ns,
        slow_ms=percentiles_ms(cell),
        cost=cost,
        judgement=judge.of(cell),
        fairness=fairness,
        disturbed=disturbed,
        invalid=invalid_by(disturbed),
    )


def _groups(
    measured: list[Measured], reference: CellResult | None, environments: Mapping[str, Environment]
) -> Iterator[tuple[tuple[str, ...], list[Measured]]]:
    """The cells by the settings that must be equal, the reference's group first, each with what sets it apart."""
    if not measured:
        return
    groups: dict[tuple[tuple[str, object], ...], list[Measured]] = {}
    for one in measured:
        groups.setdefault(one.fairness.must_be_equal, []).append(one)
    main = _main_fairness(measured, reference)
    groups.setdefault(main.must_be_equal, [])
    for key, group in sorted(groups.items(), key=lambda item: item[0] != main.must_be_equal):
        if group:
            yield (() if key == main.must_be_equal else differences(group[0].fairness, main, environments)), group


def _main_fairness(measured: list[Measured], reference: CellResult | None) -> Fairness:
    """The settings of the reference, for a phase that has it; else those of the plainest cell of the phase."""
    own = reference_cell(m.cell for m in measured)
    chosen = reference if reference is not None and reference.spec.phase == measured[0].cell.spec.phase else own
    return measured[0].fairness if chosen is None else fairness_of(chosen)


def _ranking_notices(ranking: Ranking, p99_ms: float | None, max_drop: float, reference_told: bool) -> Iterator[Notice]:
    lower = False
    for cell in ranking.cells:
        lower = lower or cell.dtype != "float32"
        about = {"model": ranking.model, "cell": cell.label}
        if cell.standing == "not finite" and not reference_told:
            yield Notice(
                code="not-finite",
                text=f"Not ranked: {cell.reason}.",
                remedy=f"Its numbers leave the range of {cell.dtype}: take another dtype. Or its training diverged.",
                **about,
            )
        elif cell.standing == "not judged":
            yield Notice(
                code="not-judged",
                text=f"Not ranked, as its answers could not be judged: {cell.reason}.",
                remedy="If a file is damaged, delete the cell's .json and .npz files and run `kcost bench` again.",
                **about,
            )
        elif cell.standing == "outputs differ":
            yield Notice(
                code="outputs-differ",
                text=f"Not ranked: its outputs differ from those of {ranking.reference}, {cell.reason}.",
                number=cell.quality.max_abs_difference,
                limit=PARITY_LIMIT,
                remedy=f"Find out why before using it: the model does not compute the same here; or {OTHER_INPUTS}.",
                **about,
            )
        elif cell.standing in ("score too low", "score not known"):
            yield Notice(
                code="score-drop",
                text=f"Not ranked: {cell.reason}.",
                number=cell.quality.drop,
                limit=max_drop,
                remedy="Keep float32, or allow more with --max-drop."
                if cell.standing == "score too low"
                else "Benchmark an artifact folder, which holds labelled samples.",
                **about,
            )
        if p99_ms is not None and ranking.phase == "inference" and cell.step_p99_ms is None:
            name, _ = held_tail(cell.tail, cell.step_p95_ms)
            yield Notice(
                code="p99-unknown",
                text=f"{cell.steps} steps do not show a p99: the limit was held against the {name}.",
                number=cell.steps,
                limit=SAMPLES_FOR_P99,
                remedy="Raise settings.rounds or settings.round_s in the plan.",
                **about,
            )
    if ranking.phase == "inference":
        unjudged = ("not finite", "not judged")
        unchecked = sum(
            c.quality.max_abs_difference is None and not c.quality.not_finite and c.standing not in unjudged
            for c in ranking.cells
        )
        if unchecked:
            yield Notice(
                code="outputs-not-compared",
                text=f"The outputs of {unchecked} cell(s) could not be held against a reference.",
                model=ranking.model,
                number=unchecked,
                limit=0,
                remedy="Measure the model in float32 on another method than `predict` too.",
            )
    elif lower:
        yield Notice(
            code="training-precision",
            text="What a model scores that was trained in a lower precision was not measured: only its time was.",
            model=ranking.model,
            remedy="Train once in that precision and evaluate.",
        )


def _conclusion(ranking: Ranking) -> Conclusion:
    best = ranking.best
    who = ranking.model if ranking.phase == "inference" else f"{ranking.model}, training"
    if ranking.apart:
        who += f" (apart, as settings differ: {'; '.join(ranking.apart)})"

    def conclusion(outcome: Outcome, says: str, ratio: Ratio | None = None) -> Conclusion:
        simulated = " [simulated]" if best is not None and best.simulated else ""
        return Conclusion(
            model=ranking.model,
            phase=ranking.phase,
            outcome=outcome,
            valid=outcome != "invalid",
            best=None if best is None else best.cell_id,
            baseline=ranking.baseline,
            times_cheaper=ratio,
            sentence=f"{who}: {says}{simulated}",
        )

    if best is None:
        why = next((f": {c.reason}" for c in ranking.cells if c.standing == "not finite"), "")
        return conclusion("nothing ranked", f"none of {len(ranking.cells)} cells may be ranked{why}.")
    compared = [c for c in ranking.cells if c.cell_id in (ranking.baseline, best.cell_id)]
    if best.cost is None or any(not c.valid for c in compared):
        reason = next(c.invalid for c in compared if not c.valid)
        return conclusion("invalid", f"INVALID: {reason}.")
    scale = ranking.usd_scale
    cheapest = f"cheapest is {best.name}, {scale.text(best.cost.usd)} per {scale.unit}"
    if ranking.phase == "training" and best.dtype != "float32":
        cheapest += f" (what a model trained in {best.dtype} scores was not measured)"
    ties = _ties_text(ranking)
    if ranking.baseline is None:
        return conclusion("no baseline", f"{cheapest}; plain Keras was not measured beside it{ties}.")
    baseline = ranking.cell(ranking.baseline)
    plain = _baseline_text(baseline, ranking.phase)
    if best.cell_id == baseline.cell_id:
        return conclusion("baseline is cheapest", f"{cheapest}: {plain} itself{ties}.")
    ratio = best.times_cheaper
    if ratio is None or ratio.rounds < MIN_SHARED_ROUNDS:
        shared = 0 if ratio is None else ratio.rounds
        why = f"{shared} round(s) in common, and {MIN_SHARED_ROUNDS} are needed"
    elif ratio.tells_apart and ratio.low > 1:
        times_cheaper = str(ratio).replace(" times (", " times cheaper (", 1)
        return conclusion("cheaper", f"{cheapest}; {times_cheaper} than {plain}{ties}.", ratio)
    else:
        why = f"{ratio} is not more than 1 for sure (99%)"
    return conclusion("can't tell", f"can't tell whether {best.name} is cheaper than {plain}: {why}.", ratio)


def _baseline_text(baseline: RankedCell, phase: Phase) -> str:
    if phase == "training":
        return f"plain Keras training ({baseline.backend}, float32, batch {baseline.batch})"
    return f"plain Keras predict ({baseline.backend}, batch {baseline.batch})"


def _ties_text(ranking: Ranking) -> str:
    if not ranking.tied_with_best:
        return ""
    names = [ranking.cell(i).name for i in ranking.tied_with_best]
    more = f" and {len(names) - TOLD_TIES} more" if len(names) > TOLD_TIES else ""
    return f"; tied with {', '.join(names[:TOLD_TIES])}{more}"


__all__ = ["Conclusion", "Ranking", "Verdict", "conclude", "prices_for"]

"""Two runs held against each other, cell by cell: what changed, how sure that is, and whether it fails a limit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field, computed_field

from kcost.core.disturbance import invalid_cell
from kcost.core.errors import InputError
from kcost.core.plan import CellSpec
from kcost.core.result import CellResult, Run
from kcost.core.schema import Record
from kcost.core.stats import (
    IndependentRatio,
    Interval,
    independent_ratio,
    location,
    median_per_round,
    paired_ratio,
    ratio_probability,
)

SIGNIFICANCE = 0.05
"""Chance that a comparison of two equal runs fails at all, over all of its cells."""

METRICS = ("median_ms", "usd_per_million")
FEWEST_ROUNDS = 3

Metric = Literal["median_ms", "usd_per_million"]
How = Literal["paired", "independent"]

IGNORED_DIFFERENCES = frozenset({"git_revision", "packages.kcost", "schema_"})
"""What may differ between two runs that are compared: the revision under test is what a comparison is about."""

NS_PER_MS = 1e6
NS_PER_HOUR = 3600e9


class Limit(NamedTuple):
    """A `--fail-if`: the metric may grow by at most this fraction."""

    metric: Metric
    growth: float

    def __str__(self) -> str:
        return f"{self.metric}>{self.growth * 100:g}%"


class Figure(Record):
    """One metric of a cell in both runs, and B over A."""

    a: float
    b: float
    ratio: float
    low: float = Field(description="lower end of the 95% interval of the ratio")
    high: float | None = Field(description="upper end; None where there is one round, which has none")


class Change(Record):
    """One cell in both runs."""

    model: str
    cell: str = Field(description="label of the cell")
    how: How = Field(description="paired by the rounds that both were in; else independent, by Welch's t")
    rounds_a: int
    rounds_b: int
    median_ms: Figure = Field(description="geometric mean of the medians of the rounds")
    usd_per_million: Figure | None = Field(
        description="US dollars for a million examples; None without prices or if invalid"
    )
    probability_b_faster: float
    probability_b_cheaper: float | None = Field(description="None where there are no dollars")
    invalid: str | None = Field(default=None, description="why the cell cannot be judged")


class Failure(Record):
    """A cell over a limit, or one that was lost."""

    model: str
    cell: str
    reason: str


class Comparison(Record):
    """What changed from run A to run B."""

    differences: tuple[str, ...] = Field(description="in which environments differ; empty unless that was allowed")
    changes: tuple[Change, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    fail_if: tuple[str, ...]
    failures: tuple[Failure, ...]
    not_judged: tuple[str, ...] = Field(description="cells that are INVALID, or have too few rounds, for a limit")

    @computed_field  # type: ignore[prop-decorator]  # mypy issue 1362
    @property
    def failed(self) -> bool:
        """Whether a limit was broken: exit code 1."""
        return bool(self.failures)


_LIMIT = re.compile(r"\s*([a-z_0-9]+)\s*>\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*%\s*", re.ASCII)


def parse_limits(text: str | None) -> tuple[Limit, ...]:
    """Limits such as `usd_per_million>3%,median_ms>5%`; None and an empty text give none.

    Raises:
        InputError: an unknown metric, or no percentage.
    """
    limits = []
    for part in (text or "").split(","):
        if not part.strip():
            continue
        match = _LIMIT.fullmatch(part)
        if match is None or match[1] not in METRICS:
            raise InputError(
                f"A limit is METRIC>NUMBER%, METRIC being one of {', '.join(METRICS)}.",
                received=repr(part.strip()),
                remedy="For example --fail-if 'usd_per_million>3%'.",
            )
        limits.append(Limit(match[1], float(match[2]) / 100))  # type: ignore[arg-type]  # it is one of METRICS
    return tuple(limits)


def compare(
    run_a: Run,
    run_b: Run,
    *,
    fail_if: str | None = None,
    usd_per_hour: Mapping[str, float] | None = None,
    allow_different: bool = False,
) -> Comparison:
    """Compares the measured cells that two runs share.

    Cells are the same when all but the content of the model file is: a changed model is what one may want to compare.
    Rounds that both runs hold (the same session and number) are paired; else the two sets of rounds are independent,
    and the interval knows nothing of what changed on the machine between the runs: measure B right after A.

    A limit fails where the metric grew by more than it and the growth is significant: Holm's procedure holds the chance
    of any false failure among all cells at 5%. A cell that was measured in A and failed in B fails too, where a limit
    was given. INVALID cells are not judged, and named.

    Args:
        fail_if: limits as `parse_limits` takes them.
        usd_per_hour: environment_id -> price of the machine; None leaves dollars out.
        allow_different: compare although the environments differ.

    Raises:
        InputError: no cell in common, different environments, or a bad limit.

    Source: Holm, S. (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    limits = parse_limits(fail_if)
    if usd_per_hour is None and any(limit.metric == "usd_per_million" for limit in limits):
        raise InputError("A limit in dollars needs prices.", received=str(fail_if), remedy="Limit median_ms instead.")
    cells_a, cells_b = _by_key(run_a), _by_key(run_b)
    shared = [key for key in cells_a if key in cells_b]
    measured = [k for k in shared if cells_a[k].status == cells_b[k].status == "ok"]
    if not shared:
        raise InputError(
            "Two runs are compared in the cells that they share.",
            received=f"{len(cells_a)} and {len(cells_b)} cells, none in common",
            remedy="Measure the same plan twice; models are matched by name.",
        )
    differences = _differences(run_a, run_b, ((cells_a[k], cells_b[k]) for k in measured))
    if differences and not allow_different:
        raise InputError(
            "Runs from different environments are not compared.",
            received=f"another {', '.join(differences)}",
            remedy="Measure both on one machine with the same packages, or pass --allow-different.",
        )
    changes = tuple(_change(cells_a[k], cells_b[k], run_a, run_b, usd_per_hour) for k in measured)
    return Comparison(
        differences=differences,
        changes=changes,
        only_in_a=tuple(_name(cells_a[k].spec) for k in cells_a if k not in cells_b),
        only_in_b=tuple(_name(cells_b[k].spec) for k in cells_b if k not in cells_a),
        fail_if=tuple(str(limit) for limit in limits),
        failures=(*_over(limits, changes), *(_lost(cells_a, cells_b) if limits else ())),
        not_judged=tuple(f"{c.model} {c.cell}" for c in changes if not _can_be_judged(c)) if limits else (),
    )


def _by_key(run: Run) -> dict[str, CellResult]:
    """Cells by what they are, whatever the model file holds, in the order of their names."""
    cells = {c.spec.model_copy(update={"model_sha256": ""}).cell_id: c for c in run.present}
    return dict(sorted(cells.items(), key=lambda item: _name(item[1].spec)))


def _name(spec: CellSpec) -> str:
    return f"{spec.model} {spec.label}"


def _differences(run_a: Run, run_b: Run, pairs: Iterable[tuple[CellResult, CellResult]]) -> tuple[str, ...]:
    differing: dict[str, None] = {}
    for id_a, id_b in sorted({(a.environment_id, b.environment_id) for a, b in pairs}):
        named = run_a.environments[id_a].differences(run_b.environments[id_b])
        differing |= dict.fromkeys(name for name in named if name not in IGNORED_DIFFERENCES)
    return tuple(differing)


def _change(a: CellResult, b: CellResult, run_a: Run, run_b: Run, usd_per_hour: Mapping[str, float] | None) -> Change:
    how, ratio, logs = _ratio(a, b)
    times = [location(median_per_round([r.step_ns for r in c.rounds])).value for c in (a, b)]
    faster = ratio_probability(logs) if how == "paired" else _independent(a, b).probability_below_1
    invalid = _invalid(a, run_a, "A") or _invalid(b, run_b, "B")
    dollars = cheaper = None
    if usd_per_hour is not None and invalid is None:
        rates = [usd_per_hour[c.environment_id] for c in (a, b)]
        factor = rates[1] / rates[0]
        costs = [t / NS_PER_HOUR * rate / c.spec.batch * 1e6 for t, rate, c in zip(times, rates, (a, b), strict=True)]
        dollars = _figure(costs[0], costs[1], ratio.scaled(factor))
        shifted = [c + math.log(factor) for c in logs]
        cheaper = ratio_probability(shifted) if how == "paired" else _independent(a, b, factor).probability_below_1
    return Change(
        model=a.spec.model,
        cell=a.spec.label,
        how=how,
        rounds_a=len(a.rounds),
        rounds_b=len(b.rounds),
        median_ms=_figure(times[0] / NS_PER_MS, times[1] / NS_PER_MS, ratio),
        usd_per_million=dollars,
        probability_b_faster=faster,
        probability_b_cheaper=cheaper,
        invalid=invalid,
    )


def _ratio(a: CellResult, b: CellResult) -> tuple[How, Interval, list[float]]:
    """B over A, and the logarithms of its paired rounds (empty for independent ones)."""
    rounds_a = {(r.session, r.number): r.step_ns for r in a.rounds}
    shared = [(r.step_ns, rounds_a[key]) for r in b.rounds if (key := (r.session, r.number)) in rounds_a]
    if len(shared) < FEWEST_ROUNDS:
        return "independent", _independent(a, b).ratio, []
    mine, theirs = median_per_round([s for s, _ in shared]), median_per_round([s for _, s in shared])
    return "paired", paired_ratio(mine, theirs), list(np.log(mine / theirs))


def _independent(a: CellResult, b: CellResult, factor: float = 1.0) -> IndependentRatio:
    medians_a, medians_b = (median_per_round([r.step_ns for r in c.rounds]) for c in (a, b))
    return independent_ratio(medians_b * factor, medians_a)


def _figure(a: float, b: float, ratio: Interval) -> Figure:
    return Figure(a=a, b=b, ratio=ratio.value, low=ratio.low, high=ratio.high if math.isfinite(ratio.high) else None)


def _invalid(cell: CellResult, run: Run, which: str) -> str | None:
    reason = invalid_cell(cell, run.environments[cell.environment_id])
    return None if reason is None else f"{which}: {reason}"


def _can_be_judged(change: Change) -> bool:
    return change.invalid is None and min(change.rounds_a, change.rounds_b) >= FEWEST_ROUNDS


def _over(limits: Sequence[Limit], changes: Sequence[Change]) -> Iterator[Failure]:
    judged = [c for c in changes if _can_be_judged(c)]
    for limit in limits:
        significant = _significant([_probability_of_no_growth(c, limit.metric) for c in judged])
        for change, is_significant in zip(judged, significant, strict=True):
            figure = change.median_ms if limit.metric == "median_ms" else change.usd_per_million
            if figure is not None and is_significant and figure.ratio > 1 + limit.growth:
                high = "unbounded" if figure.high is None else f"{figure.high:.4g}"
                reason = (
                    f"{limit.metric} is {figure.ratio:.4g} times A's (95%: {figure.low:.4g} to {high}); limit {limit}"
                )
                yield Failure(model=change.model, cell=change.cell, reason=reason)


def _probability_of_no_growth(change: Change, metric: Metric) -> float:
    below = change.probability_b_faster if metric == "median_ms" else change.probability_b_cheaper
    return 0.5 if below is None else below


def _significant(p_values: Sequence[float]) -> list[bool]:
    """Holm's step-down procedure: which of the hypotheses `nothing grew` are given up."""
    given_up = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] > SIGNIFICANCE / (len(p_values) - rank):
            break
        given_up[place] = True
    return given_up


def _lost(cells_a: Mapping[str, CellResult], cells_b: Mapping[str, CellResult]) -> Iterator[Failure]:
    for key, a in cells_a.items():
        b = cells_b.get(key)
        if b is not None and a.status == "ok" != b.status:
            reason = f"measured in A, {b.status} in B: {b.reason or 'no reason was given'}"
            yield Failure(model=a.spec.model, cell=a.spec.label, reason=reason)

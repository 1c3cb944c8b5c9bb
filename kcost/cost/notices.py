"""What a reader should know before believing a figure, as values. Whoever prints decides the words around them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from kcost.core.disturbance import Disturbance, disturbances
from kcost.core.result import CellResult, Environment, ModelEntry
from kcost.core.schema import Record
from kcost.core.stats import SETTLED_WITHIN, relative_spread, samples_for_tail, window_spread
from kcost.core.units import format_percent

MAX_LOAD_ABOVE_CORES = 0.5
MAX_SPREAD = 0.10
FEW_ROUNDS = 5
SAMPLES_FOR_P99 = samples_for_tail(0.99)
"""662 steps: fewer do not show a p99."""

Code = Literal[
    "not-finite",
    "not-judged",
    "simulated",
    "synthetic-data",
    "price-assumed",
    "price-of-another-size",
    "price-of-another-machine",
    "price-old",
    "failed",
    "high-load",
    "spread",
    "few-rounds",
    "outputs-differ",
    "outputs-not-compared",
    "score-drop",
    "training-precision",
    "p99-unknown",
    "invalid",
    "unsettled",
    "imprecise",
    "other-work",
    "steal",
    "busy-parent",
    "frequency",
    "throttled",
    "swapping",
    "gpu-shared",
    "quota",
]


SEVERITY: tuple[Code, ...] = (
    *("not-finite", "simulated", "invalid", "failed", "outputs-differ", "not-judged", "score-drop", "synthetic-data"),
    *("other-work", "steal", "gpu-shared", "swapping", "throttled", "quota", "frequency", "high-load", "busy-parent"),
    *("price-of-another-machine", "price-of-another-size", "price-old"),
    *("price-assumed", "outputs-not-compared", "training-precision", "p99-unknown"),
    *("unsettled", "imprecise", "few-rounds", "spread"),
)
"""Every code, the most serious first: what makes figures wrong, then what makes them doubtful, then wide."""


class Notice(Record):
    """A reason for care, about one cell, one model or the whole run."""

    code: Code
    text: str
    model: str | None = None
    cell: str | None = Field(default=None, description="label of the cell, None where it is about more than one")
    number: float | None = Field(default=None, description="what was found")
    limit: float | None = Field(default=None, description="what it was held against")
    remedy: str


def by_code(notices: Sequence[Notice]) -> dict[str, list[Notice]]:
    """The notices of each code, codes and notices in the order in which they come."""
    notices_by_code: dict[str, list[Notice]] = {}
    for notice in notices:
        notices_by_code.setdefault(notice.code, []).append(notice)
    return notices_by_code


def most_serious_first(notices: Sequence[Notice]) -> list[tuple[Code, list[Notice]]]:
    """The notices of each code, in the order of SEVERITY."""
    grouped = by_code(notices)
    return [(code, grouped[code]) for code in SEVERITY if code in grouped]


def measurement_notices(
    cell: CellResult, environment: Environment, medians: np.ndarray, disturbed: Sequence[Disturbance] | None = None
) -> Iterator[Notice]:
    """What is doubtful about how a cell was measured.

    Args:
        medians: of the cell's rounds, shape (rounds,).
        disturbed: the cell's `disturbances`, for a caller that has them.
    """
    spec = cell.spec
    yield from _disturbance_notices(cell, disturbances(cell, environment) if disturbed is None else disturbed)
    yield from _warmup_notices(cell)
    loads = [r.load_1min for r in cell.rounds if r.load_1min is not None]
    allowed = environment.cores + MAX_LOAD_ABOVE_CORES
    busy = sum(load > allowed for load in loads)
    # The load is a minute's average, and counts the cell's own threads: only where nothing better is known.
    if busy and not any(r.watch for r in cell.rounds):
        yield Notice(
            code="high-load",
            text=f"Other work was running: the load was above {allowed:g} in {busy} of {len(cell.rounds)} rounds.",
            model=spec.model,
            cell=spec.label,
            number=max(loads),
            limit=allowed,
            remedy="Measure again on a quiet machine.",
        )
    if len(medians) < FEW_ROUNDS:
        yield Notice(
            code="few-rounds",
            text=f"{len(medians)} round(s): the intervals are wide, and may be far off.",
            model=spec.model,
            cell=spec.label,
            number=len(medians),
            limit=FEW_ROUNDS,
            remedy="Raise settings.rounds in the plan and run it again: it goes on where it stopped.",
        )
    spread = relative_spread(medians)
    if spread > MAX_SPREAD:
        yield Notice(
            code="spread",
            text=f"The medians of the rounds scatter by {format_percent(spread)}.",
            model=spec.model,
            cell=spec.label,
            number=spread,
            limit=MAX_SPREAD,
            remedy="Raise settings.round_s or settings.rounds in the plan, or find what disturbs the machine.",
        )


def _disturbance_notices(cell: CellResult, disturbed: Sequence[Disturbance]) -> Iterator[Notice]:
    for disturbance in disturbed:
        yield Notice(
            code="invalid" if disturbance.invalid else disturbance.kind,
            text=f"INVALID: {disturbance.text}."
            if disturbance.invalid
            else f"{disturbance.text[0].upper()}{disturbance.text[1:]}.",
            model=cell.spec.model,
            cell=cell.spec.label,
            number=disturbance.number,
            limit=disturbance.limit,
            remedy=disturbance.remedy,
        )


def _warmup_notices(cell: CellResult) -> Iterator[Notice]:
    done = cell.preparation
    if done is not None and done.settled is False:
        yield Notice(
            code="unsettled",
            text=f"Its warm-up of {len(done.warmup_ns)} steps had not settled when its longest time was over.",
            model=cell.spec.model,
            cell=cell.spec.label,
            number=window_spread(done.warmup_ns),
            limit=SETTLED_WITHIN,
            remedy="Raise settings.warmup_max_s in the plan, or find what disturbs the machine.",
        )


def precision_notice(cell: CellResult, value: float, high: float | None, wanted: float) -> Notice | None:
    """Says that a ratio to the baseline is known less closely than the plan asked for; None where it is.

    Args:
        value, high: the ratio and the upper end of its interval.
        wanted: `Settings.precision`.
    """
    width = math.inf if high is None else high / value - 1
    if width <= wanted:
        return None
    return Notice(
        code="imprecise",
        text=f"Its ratio to the baseline is known within {format_percent(width)} alone after {len(cell.rounds)} rounds."
        if math.isfinite(width)
        else "Its ratio to the baseline has no interval.",
        model=cell.spec.model,
        cell=cell.spec.label,
        number=width if math.isfinite(width) else None,
        limit=wanted,
        remedy="Raise settings.max_rounds or settings.minutes and run the plan again, or settings.round_s.",
    )


def failure_notice(cell: CellResult) -> Notice:
    """What became of a cell that was not measured to its end."""
    reason = cell.reason or "no reason was given"
    return Notice(
        code="failed",
        text=f"{cell.status}: {reason}" if reason.endswith(".") else f"{cell.status}: {reason}.",
        model=cell.spec.model,
        cell=cell.spec.label,
        number=len(cell.rounds),
        remedy="Run the plan again: it goes on with what is missing."
        if cell.status in ("partial", "timeout", "crash")
        else "Take the cell out of the plan, or mend what the reason names.",
    )


def reference_notice(reference: CellResult, not_finite: str) -> Notice:
    """Says that the cell that others are held against does not answer in finite numbers: no figure of its model counts.

    Args:
        not_finite: which of its answers.
    """
    return Notice(
        code="not-finite",
        text=f"The model does not answer: in {reference.spec.label}, {not_finite}. Nothing of it is ranked.",
        model=reference.spec.model,
        remedy="Look for NaN in its weights and for numbers that overflow, and train it again.",
    )


def model_notices(entry: ModelEntry, simulated_cells: int) -> Iterator[Notice]:
    """What is made up about a model's figures."""
    if simulated_cells:
        yield Notice(
            code="simulated",
            text=f"Simulated: the step times of {simulated_cells} cell(s) were made up, not measured.",
            model=entry.name,
            number=simulated_cells,
            limit=0,
            remedy="Measure a real backend.",
        )
    if entry.synthetic_data and entry.dataset is None:
        yield Notice(
            code="synthetic-data",
            text="Its inputs were made up, as it came without samples: nothing is known of its scores.",
            model=entry.name,
            remedy="Give real inputs with --data, or benchmark an artifact folder, which holds some.",
        )
    elif entry.synthetic_data:
        yield Notice(
            code="synthetic-data",
            text=f"The data, {entry.dataset}, is synthetic: scores on it say nothing of real data.",
            model=entry.name,
            remedy="Train on real data before choosing by score.",
        )

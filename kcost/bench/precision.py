"""Which cells are due a further round: those that lack some, and those whose ratio is not known closely enough."""

from __future__ import annotations

from collections.abc import Sequence

from kcost.core.plan import Settings, baseline_of
from kcost.core.result import CellResult
from kcost.core.stats import Interval, median_per_round, paired_ratio


def ratio_to(cell: CellResult, other: CellResult) -> Interval | None:
    """The step time of `cell` over that of `other`, from the rounds that both have; None where they share none."""
    theirs = {(r.session, r.number): r.step_ns for r in other.rounds}
    shared = [(r.step_ns, theirs[key]) for r in cell.rounds if (key := (r.session, r.number)) in theirs]
    if not shared:
        return None
    return paired_ratio(median_per_round([mine for mine, _ in shared]), median_per_round([its for _, its in shared]))


def half_width(ratio: Interval) -> float:
    """How far a ratio's interval reaches above it, as a fraction of the ratio; infinity with one round."""
    return ratio.high / ratio.value - 1


def due(cells: Sequence[CellResult], settings: Settings, *, time_left: bool = True) -> list[CellResult]:
    """The cells of a block that get a turn in the next round, in the order in which they came.

    A cell is due while it has fewer than `rounds`; with a `precision` also while its ratio to the block's baseline is
    known less closely and it has fewer than `max_rounds`. The baseline is due with any such cell, as a ratio is made of
    rounds that both were in.

    Stopping at a width and not at a verdict keeps the interval honest: looking until it excludes 1 would find a winner
    between two equal cells sooner or later (Chow, Y. S. and Robbins, H. (1965), Annals of Mathematical Statistics 36,
    457-462, on intervals of a fixed width).
    """
    lacking = [c for c in cells if len(c.rounds) < settings.rounds]
    if settings.precision is None or not time_left:
        return lacking
    by_id = {c.spec.cell_id: c for c in cells}
    spec = baseline_of([c.spec for c in cells])
    if spec is None:
        return []
    baseline = by_id[spec.cell_id]
    chosen = {c.spec.cell_id for c in lacking}
    for cell in cells:
        if cell is not baseline and len(cell.rounds) < max(settings.rounds, settings.max_rounds):
            ratio = ratio_to(cell, baseline)
            if ratio is None or half_width(ratio) > settings.precision:
                chosen |= {cell.spec.cell_id, baseline.spec.cell_id}
    return [c for c in cells if c.spec.cell_id in chosen]

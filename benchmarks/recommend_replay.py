"""What measuring everything took, piece by piece, and what a schedule would have done with it.

A replay draws rounds around the costs that were measured, and counts the seconds that were recorded: schedules are
compared on the same figures, also where the machine is not quiet enough to measure them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from kcost.core.result import CellResult, Run
from kcost.recommend.arms import arm_of
from kcost.recommend.candidates import Candidate
from kcost.recommend.one_plan import WARMUP_MAX_S
from kcost.recommend.simulate import Piece, Truth
from kcost.recommend.standings import Floor, step_ms


class Pieces:
    """Seconds of each piece of work, by what progress calls it. Give it to `measure` as `on_progress`."""

    def __init__(self, before: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = dict(before)
        self._clock, self._text, self._since = clock, "", clock()

    def __call__(self, done: int, total: int, text: str) -> None:
        """See OnProgress."""
        now = self._clock()
        if self._text:
            self.seconds[self._text] = self.seconds.get(self._text, 0.0) + now - self._since
        self._text, self._since = text, now


def recorded(
    run: Run,
    seconds: Mapping[str, float],
    candidates: Sequence[Candidate],
    usd: Mapping[tuple[str, int], float],
    floor: Floor,
    *,
    measured_s: float | None = None,
    untried: Collection[str] = (),
) -> Truth:
    """The candidates of a run as a schedule can be held against them.

    Args:
        seconds: as of `Pieces`, of measuring all of them.
        usd: candidate and batch size -> what it costs there, of those that may be used.
        measured_s: what all of it took together; None where that is the sum of the pieces.
        untried: candidates that a recommendation spends no time on, as nothing that they answer could allow them.
    """
    batches = sorted({b for c in candidates for b in c.batches})
    cells = {(c.name, b): _cell(run, c, b) for c in candidates for b in batches}
    rounds = {cell.spec.cell_id: [float(np.median(r.step_ns)) for r in cell.rounds] for cell in cells.values()}
    usable = [c.name for c in candidates if all((c.name, b) in usd for b in batches)]
    steps_ms = [max(ms.values()) for c in candidates if c.name in usable and (ms := step_ms(run, c))]
    fastest_ms = min(steps_ms, default=0.0)
    return Truth(
        arms=tuple(arm_of(c, floor.by_candidate[c.name], setup_s=c.setup_s, step_ms=fastest_ms) for c in candidates),
        usd={name: tuple(usd[name, b] for b in batches) for name in usable},
        pieces={
            (name, batches.index(batch)): tuple(_pieces(cell, seconds, list(cells.values())))
            for (name, batch), cell in cells.items()
        },
        noise=float(np.median([np.std(np.log(r)) for r in rounds.values() if len(r) > 1])),
        drift=0.0,
        sizes=len(batches),
        screened_size=len(batches) // 2,
        start_s=0.0,
        next_start_s=0.0,
        floor_usd=floor.usd,
        untried=frozenset(untried),
        measured_s=measured_s,
        round_s=sum(s for text, s in seconds.items() if text.startswith("round ")) / sum(map(len, rounds.values())),
    )


def _cell(run: Run, candidate: Candidate, batch: int) -> CellResult:
    return next(c for c in run.cells if candidate.has(c.spec) and c.spec.batch == batch)


def _worker(cell: CellResult) -> str:
    spec = cell.spec
    return f"worker of {spec.runtime or spec.backend}, {spec.threads or 'all'} threads"


def _pieces(cell: CellResult, seconds: Mapping[str, float], cells: Sequence[CellResult]) -> Iterator[Piece]:
    """Its worker, its conversion, and the cell itself.

    All workers started at once, and the slowest decided: another one's part of that is that of its imports.
    """
    spec = cell.spec
    imports_s = {_worker(c): c.preparation.import_s for c in cells if c.preparation is not None}
    share = imports_s.get(_worker(cell), 0.0) / max(imports_s.values())
    yield Piece(_worker(cell), share * seconds[f"starting {spec.model}"])
    if spec.runtime is not None:
        text = f"converting {spec.model} for {spec.runtime} in {spec.precision}"
        yield Piece(text, seconds[text])
    text = f"preparing {spec.model} {spec.label}"
    if cell.preparation is None:
        yield Piece(text, seconds.get(text, 0.0))
    else:  # a recommendation warms up for a shorter time at most
        yield Piece(text, seconds[text] - max(0.0, sum(cell.preparation.warmup_ns) / 1e9 - WARMUP_MAX_S))

"""Who takes a turn, round by round, in a wave of the schedule."""

from __future__ import annotations

from collections.abc import Callable

from kcost.core.result import CellResult
from kcost.recommend.candidates import Candidate
from kcost.recommend.schedule import RUNGS, SCREENED, Standing, Wave, survivors


class Turns:
    """Who takes a turn, round by round, in a wave: halving at each rung, the same rule that the simulation tests."""

    def __init__(
        self,
        wave: Wave,
        candidates: dict[str, Candidate],
        look: Callable[[], dict[str, Standing]],
        time_left: Callable[[], bool],
    ) -> None:
        self._wave, self._candidates, self._look, self._time_left = wave, candidates, look, time_left
        self._live = list(wave.names)
        self._had: dict[str, int] = {}
        """Cell -> rounds that it had before this wave."""
        self._done = 0
        """Rounds of this wave."""

    def choose(self, cells: list[CellResult]) -> list[CellResult]:
        """The cells that get a turn now."""
        for cell in cells:
            self._had.setdefault(cell.spec.cell_id, len(cell.rounds))
        self._done = max((len(c.rounds) - self._had[c.spec.cell_id] for c in cells), default=0)
        fresh = any(len(c.rounds) < SCREENED for c in cells)
        if not self._time_left() and not (fresh and self._wave.kind == "first"):
            return []
        if self._done in RUNGS:
            kept = survivors(self._look(), self._live)
            self._live = [n for n in self._live if n in kept or self._candidates[n].is_plain]
        chosen = []
        for cell in cells:
            name = next((n for n in self._live if self._candidates[n].has(cell.spec)), None)
            had = self._had[cell.spec.cell_id]
            if name is not None and len(cell.rounds) < max(self._wave.rounds, had + RUNGS[0]):
                chosen.append(cell)
        return chosen

"""Did it pay? A model before and after it was made cheaper: quality, time, size, memory, dollars; and one word."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from kcost.core.artifact import Step
from kcost.core.result import CellResult, Run
from kcost.core.schema import Record
from kcost.core.score_drop import ScoreDrop
from kcost.core.stats import paired_ratio
from kcost.core.units import UsdScale, format_bytes, format_percent, usd_scale
from kcost.cost.estimate import step_ns
from kcost.cost.inference import usd_per_million
from kcost.cost.machine_match import Match
from kcost.cost.ranking import Ratio

SMALLER = 0.95
"""A file of at most this part of the old one's bytes counts as smaller."""

Word = Literal["pays", "size only", "no gain", "slower", "refused"]
"""pays: faster at the batch size where it is cheapest. slower: not that, and slower at some batch size. size only:
neither, but smaller. no gain: none of these. refused: the score may have dropped by more than is allowed."""


class Speed(Record):
    """Both models at one batch size, in rounds that both were measured in."""

    batch: int
    method: str
    before_ms: float = Field(description="typical time of a step")
    after_ms: float
    times_faster: Ratio = Field(description="before over after, round by round")
    before_usd_per_million: float
    after_usd_per_million: float


class Size(Record):
    """What a model takes up."""

    file_bytes: int
    parameters: int | None
    peak_host_bytes: int | None = Field(description="of the worker that ran it, at the largest batch size")


class Payoff(Record):
    """What optimizing a model brought."""

    word: Word
    sentence: str
    model: str
    out: str = Field(description="the artifact folder that was written")
    backend: str
    drop: ScoreDrop
    max_drop: float
    speeds: tuple[Speed, ...]
    before: Size
    after: Size
    steps: tuple[Step, ...]
    assumptions: tuple[str, ...]

    @property
    def refused(self) -> bool:
        """Whether the result may not be used."""
        return self.word == "refused"

    @property
    def usd_scale(self) -> UsdScale:
        """The unit in which the dollars of both models read at a glance."""
        usd = (v for s in self.speeds for v in (s.before_usd_per_million, s.after_usd_per_million))
        return usd_scale(usd, "million predictions")


def speeds_of(run: Run, before: str, after: str, match: Match) -> tuple[Speed, ...]:
    """Both models at each batch size that both were measured at.

    Args:
        before, after: their names in the run.
    """
    cells = {(c.spec.model, c.spec.batch): c for c in run.cells if c.status == "ok"}
    batches = sorted({batch for _, batch in cells})
    pairs = [(b, cells.get((before, b)), cells.get((after, b))) for b in batches]
    return tuple(_speed(batch, old, new, match) for batch, old, new in pairs if old is not None and new is not None)


def shared_rounds_ratio(old: CellResult, new: CellResult) -> Ratio:
    """How many times faster `new` is, from the rounds of one block that both had a turn in.

    Raises:
        ValueError: they share no round.
    """
    medians = [{(r.session, r.number): float(np.median(r.step_ns)) for r in cell.rounds} for cell in (old, new)]
    shared = [key for key in medians[0] if key in medians[1]]
    ratio = paired_ratio([medians[0][k] for k in shared], [medians[1][k] for k in shared])
    high = ratio.high if np.isfinite(ratio.high) else None
    return Ratio(value=ratio.value, low=ratio.low, high=high, rounds=len(shared))


def _speed(batch: int, old: CellResult, new: CellResult, match: Match) -> Speed:
    return Speed(
        batch=batch,
        method=old.spec.method,
        before_ms=step_ns(old).value / 1e6,
        after_ms=step_ns(new).value / 1e6,
        times_faster=shared_rounds_ratio(old, new),
        before_usd_per_million=usd_per_million(old, match).usd,
        after_usd_per_million=usd_per_million(new, match).usd,
    )


def decide(drop: ScoreDrop, max_drop: float, speeds: tuple[Speed, ...], before: Size, after: Size) -> tuple[Word, str]:
    """The word, and a sentence that says why."""
    lost = f"{drop.score} {drop.before:.4f} -> {drop.after:.4f}, true drop at most {drop.bound:.4f} with 95% confidence"
    if drop.bound > max_drop:
        why = (
            "the drop itself is too large"
            if drop.value > max_drop
            else f"{drop.count} {drop.unit} cannot rule out more; more held-out data would tell"
        )
        return "refused", f"too inaccurate: {lost}, allowed {max_drop:g}; {why}"
    size = f"file {format_bytes(before.file_bytes)} -> {format_bytes(after.file_bytes)}"
    changes = "; ".join(f"batch {s.batch}: {s.times_faster}" for s in speeds) or "no batch size was measured"
    slower = [s for s in speeds if s.times_faster.tells_apart and s.times_faster.value < 1]
    best = min(speeds, key=lambda s: s.after_usd_per_million, default=None)
    if best is not None and best.times_faster.tells_apart and best.times_faster.value > 1:
        old = min(s.before_usd_per_million for s in speeds)
        saved = format_percent(1 - best.after_usd_per_million / old)
        scale = usd_scale([old, best.after_usd_per_million], "million predictions")
        usd = f"{scale.text(old)} -> {scale.text(best.after_usd_per_million)} a {scale.unit}, {saved} less"
        beware = f"; slower at batch {_batches(slower)}" if slower else ""
        return "pays", f"faster ({changes}); {usd}{beware}; {size}; {lost}"
    if slower:
        return "slower", f"slower at batch {_batches(slower)} ({changes}); {size}; {lost}"
    word: Word = "size only" if after.file_bytes <= SMALLER * before.file_bytes else "no gain"
    return word, f"no gain in time where the model is cheapest ({changes}); {size}; {lost}"


def _batches(speeds: list[Speed]) -> str:
    return ", ".join(str(s.batch) for s in speeds)

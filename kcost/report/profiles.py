"""What is told of profiles, in words and rows: the terminal and the page show the same."""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

from kcost.core.profile import Profile, Roofline, Row, Work, roofline, top
from kcost.core.result import CellResult, Run
from kcost.core.units import format_bytes, format_percent, format_s, significant

ROOFLINE_SOURCE = "Roofline: Williams, Waterman, Patterson (2009), doi 10.1145/1498765.1498785."


class ProfileView(NamedTuple):
    """The profile of a cell as it is shown."""

    model: str
    cell: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def views_of(run: Run) -> tuple[ProfileView, ...]:
    """The cells of a run that were looked into: by model, phase and batch size, the fastest first."""
    looked_into = [cell for cell in run.present if cell.profile is not None]
    looked_into.sort(key=lambda c: (c.spec.model, c.spec.phase, c.spec.batch, _step_s(c) or math.inf))
    return tuple(_view(cell, cell.profile) for cell in looked_into if cell.profile is not None)


def _step_s(cell: CellResult) -> float | None:
    """Median over all measured steps, as the ranking shows it; None for a cell without rounds."""
    steps = [ns for one in cell.rounds for ns in one.step_ns]
    return statistics.median(steps) / 1e9 if steps else None


def calls_text(row: Row) -> str:
    """Calls in one step: whole where they are."""
    return f"{row.calls_per_step:.0f}" if row.calls_per_step == int(row.calls_per_step) else f"{row.calls_per_step:.1f}"


def _view(cell: CellResult, profile: Profile) -> ProfileView:
    rows = top(profile.trace) if profile.trace else ()
    notes = [*_time_notes(profile), *_work_notes(cell, profile)]
    return ProfileView(cell.spec.model, cell.spec.label, rows, tuple(" ".join(note.split()) for note in notes))


def _time_notes(profile: Profile) -> list[str]:
    trace = profile.trace
    if trace is None:
        return [f"No operations, {profile.status}: {profile.reason}"]
    left = trace.busy_ns - sum(o.self_ns for o in trace.operations[: len(top(trace))])
    return [
        f"{trace.tool}, {trace.steps} steps of {format_s(trace.wall_ns / trace.steps / 1e9)} while it looked on; "
        f"further operations {format_percent(left / (trace.whole_ns or 1))}, outside of operations "
        f"{format_percent(trace.outside)}"
    ]


def _work_notes(cell: CellResult, profile: Profile) -> list[str]:
    work = profile.work
    if work is None:
        return []
    notes = [_work_text(work)]
    peak = profile.peak
    if peak is None:
        return [*notes, f"Peak not measured: {profile.peak_reason}"]
    notes.append(
        f"Peak of this backend here: {_rate(peak.flops_per_s)} ({peak.dtype} product of {peak.product_size} x "
        f"{peak.product_size}), {format_bytes(peak.bytes_per_s)}/s (sum in place)"
    )
    step_s = _step_s(cell)
    reached = None if step_s is None else roofline(work, peak, step_s)
    return notes if reached is None else [*notes, _roofline_text(reached, work)]


def _work_text(work: Work) -> str:
    flops = "flops unknown" if work.flops is None else f"{_count(work.flops)}FLOP a step"
    least = "at least " if work.bytes_are_least else ""
    moved = "bytes unknown" if work.bytes is None else f"{least}{format_bytes(work.bytes)} a step"
    if work.flops_source == work.bytes_source:
        return f"{flops}, {moved} ({work.flops_source})"
    return f"{flops} ({work.flops_source}); {moved} ({work.bytes_source})"


def _roofline_text(reached: Roofline, work: Work) -> str:
    most = "at most " if work.bytes_are_least else ""
    side = "memory" if reached.intensity < reached.ridge else "products"
    roof = f"{format_percent(reached.share_of_roof)} of its roof, which {side} set"
    bound = {
        "product": "bound by products",
        "memory": "bound by memory",
        "neither": "bound by neither products nor memory, but by what is around them",
    }[reached.bound]
    return (
        f"{_rate(reached.flops_per_s)} reached, {format_percent(reached.share_of_peak)} of the peak; {most}"
        f"{significant(reached.intensity)} flops a byte, products set the roof from {significant(reached.ridge)} on: "
        f"{roof}; {bound}"
    )


def _rate(flops_per_s: float) -> str:
    return f"{significant(flops_per_s / 1e9)} GFLOP/s"


def _count(flops: float) -> str:
    for unit in ("", "k", "M", "G"):
        if flops < 1000:
            return f"{significant(flops)} {unit}"
        flops /= 1000
    return f"{significant(flops)} T"

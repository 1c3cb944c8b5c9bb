"""Candidates as the schedule sees them, and how many of the slow ones are got ready at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kcost.recommend.candidates import Candidate
from kcost.recommend.schedule import AT_ONCE, Arm

GRAPHS: dict[str, str] = {"onnx": "ONNX", "openvino": "ONNX"}
"""Runtime -> the graph that it opens: OpenVINO's file is made from the ONNX file."""

LONG_STEP_MS = 1.0
"""In a step of this length operations take the time: a call of a runtime takes a small part of it. An assumption."""

VERSION_WITHIN = 1.5
"""A version of the model with fewer units is tried in each way that costs the best one's cost times this at most."""

CONVERTER_BYTES, COPIES = 1 << 30, 8
"""Memory of a process that converts or compiles: of the frameworks, and times the model's file. A guess, on the safe
side: half of the memory that is free is given to them."""


def most_at_once(cores: int, memory_bytes: int, keras_files: Sequence[Path]) -> int:
    """How many slow ways are got ready at the same time: one where there is one core, or no memory for more.

    Args:
        memory_bytes: free for them and all else, as of now.
    """
    each_bytes = CONVERTER_BYTES + COPIES * max((f.stat().st_size for f in keras_files), default=0)
    room = int(memory_bytes / 2 / each_bytes)
    return max(1, min(AT_ONCE, room)) if cores > 1 else 1


def arm_of(
    candidate: Candidate, bound_usd: float, *, setup_s: float, lacks_version: bool = False, step_ms: float = 0.0
) -> Arm:
    """A candidate as the schedule sees it.

    Args:
        step_ms: how long a step of the best way so far takes, at the batch size at which it is longest.
        lacks_version: the version of the model that it runs is still to be made.
    """
    # Another version of the model is another program.
    of_version = "" if candidate.variant is None else f"{candidate.variant}, "
    kind = f"{of_version}{candidate.method}"
    has_graph = candidate.method in GRAPHS and step_ms >= LONG_STEP_MS
    return Arm(
        name=candidate.name,
        setup_s=setup_s,
        kind=kind,
        graph=f"{of_version}{GRAPHS[candidate.method]}" if has_graph else None,
        precision=candidate.precision,
        threads=candidate.threads,
        first=candidate.effort == "first",
        costly=candidate.effort in ("convert", "compile") or lacks_version,
        conversion=f"{kind} {candidate.precision}" if candidate.effort == "convert" else None,
        bound_usd=bound_usd,
        after=candidate.after,
        after_within=1.0 if candidate.variant is None else VERSION_WITHIN,
        is_plain=candidate.is_plain,
    )

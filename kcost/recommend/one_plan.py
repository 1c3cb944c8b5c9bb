"""One plan of the bench that holds the cells of every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kcost.core.errors import InputError
from kcost.core.plan import Plan
from kcost.recommend.candidates import Candidate
from kcost.recommend.schedule import SCREENED

WARMUP_MAX_S = 1.0
"""Longest warm-up of a cell."""


def plan_of(
    model: Path | str,
    candidates: Sequence[Candidate],
    *,
    data: Path | None,
    seed: int,
    settings: dict[str, float] | None = None,
) -> Plan:
    """One plan that holds every candidate's cells, and others that are never measured.

    Raises:
        InputError: no candidate.
    """
    if not candidates:
        raise InputError(
            "A recommendation chooses among ways of running a model.",
            received="not one that can be tried here",
            remedy="`kcost doctor` says what is installed; --backends names which to try.",
        )
    values = {"rounds": SCREENED, "round_s": 0.1, "warmup_s": 0.3, "warmup_max_s": WARMUP_MAX_S, "seed": seed}
    document = {
        "models": [str(model)],
        "backends": list(dict.fromkeys(c.backend for c in candidates)),
        "devices": list(dict.fromkeys(c.device for c in candidates)),
        "precisions": list(dict.fromkeys(c.precision for c in candidates)),
        "batches": sorted({b for c in candidates for b in c.batches}),
        "phases": ["inference"],
        "methods": list(dict.fromkeys(c.method for c in candidates)),
        "together": True,
        "threads": sorted({c.threads for c in candidates}),
        "settings": {**values, **(settings or {})},
    }
    if data is not None:
        document["data"] = str(data)
    return Plan.parse(document, "a recommendation")

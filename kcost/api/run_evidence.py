"""What a run of `kcost bench` is evidence for: the time, the dollars and the memory of one cell of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kcost.core.errors import InputError
from kcost.core.stats import samples_for_tail

MIB = 1 << 20


def evidence_of_run(run: Path | str, model: str, cell_id: str | None = None) -> dict[str, Any]:
    """Of a cell the fields of `kcost.risk.decide.Measured` that a run gives.

    Args:
        model: its name in the run.
        cell_id: of the run; None takes the cheapest cell of the model's inference.

    Raises:
        InputError: the run does not rank the model, or not that cell.
    """
    from kcost.api.measuring import estimate_cost
    from kcost.risk.figures import Figure

    ranked = [c for r in estimate_cost(run).rankings if r.phase == "inference" and r.model == model for c in r.cells]
    best = [c for c in ranked if (c.rank == 1 if cell_id is None else c.cell_id == cell_id and c.rank is not None)]
    if not best:
        raise InputError(
            "A run is evidence for a model that it ranks.",
            received=f"{run}, and the model {model}",
            remedy="Measure it with kcost bench, inference among the phases, and name that run with --run.",
        )
    invalid = next((c.invalid for c in best if c.invalid is not None), None)
    if invalid is not None:
        return {"not_measured_because": f"its cell is INVALID: {invalid}"}
    priced = [(c, c.cost) for c in best if c.cost is not None]
    cell, cost = min(priced, key=lambda one: one[1].usd)
    usd = Figure(
        name="usd_per_million",
        value=cost.usd,
        low=cost.low,
        high=float("inf") if cost.high is None else cost.high,
        count=cell.rounds,
        unit="rounds",
    )
    tail = cell.tail if cell.tail is not None and cell.tail.name == "p99" else None
    p99 = None
    if tail is not None:
        p99 = Figure(name="p99_ms", value=tail.ms, low=tail.low_ms, high=tail.high_ms, count=cell.steps, unit="steps")
    memory = None if cell.peak_bytes is None else cell.peak_bytes / MIB
    return {
        "p99_ms": p99,
        "usd_per_million": usd,
        "memory_mib": memory,
        "not_measured_because": "the run does not tell it",
        "no_p99_because": None if p99 is not None else _too_few(cell.steps),
    }


def _too_few(steps: int) -> str:
    return f"a p99 takes {samples_for_tail(0.99):,} steps, and its cell has {steps:,}: measure it longer"

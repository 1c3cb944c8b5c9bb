"""Drops of a score on more examples than each measured cell answers: spent where they decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kcost.bench.runner import CONVERTED_FOLDER, Converted, measure, open_models, specs_of
from kcost.bench.store import RunStore
from kcost.core.artifact import Model
from kcost.core.conversion import Runtime, RuntimePrecision
from kcost.core.errors import KcostError, StorageError
from kcost.core.plan import Plan
from kcost.core.result import CellResult
from kcost.cost.quality import reference_cell
from kcost.recommend.candidates import Candidate
from kcost.recommend.drop import DropBound
from kcost.recommend.standings import judge
from kcost.recommend.terms import Terms


def rescored_drops(
    candidates: Sequence[Candidate],
    plan: Plan,
    terms: Terms,
    measured: Path,
    out: Path,
    *,
    data: Path,
    count: int,
    converted: Converted | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, DropBound]:
    """Has candidates and float32 answer more examples; by candidate the drop, of those that answered.

    Each takes part with its largest batch size and one short turn: it is about answers, not about time. What was
    answered is stored, and not answered again.

    Args:
        plan: that the candidates were measured by.
        measured: the run folder of the candidates, with their conversions.
        out: a run folder of its own.
        data: npz as of a plan's `data`.
        count: most examples.

    Raises:
        StorageError: `out` cannot be written to.
    """
    settings = plan.settings.model_copy(update={"scored_examples": count, "rounds": 1, "round_s": 1e-3, "warmup_s": 0})
    wider = plan.model_copy(update={"data": str(data), "settings": settings})
    models = open_models(wider)
    specs = specs_of(wider, models)
    alike = [s for s in specs if s.model == candidates[0].model and not s.threads]
    none = {"environment_id": "", "status": "partial"}
    reference = reference_cell(CellResult(spec=s, **none) for s in alike)
    if reference is None:
        return {}
    largest = {c.name: max((s for s in specs if c.has(s)), key=lambda s: s.batch) for c in candidates}
    wanted = {reference.spec.cell_id, *(s.cell_id for s in largest.values())}
    tell(f"answering {count:,} examples: {', '.join(largest)}")
    before = {m.name: m for m in open_models(plan).values()}

    def as_measured(model: Model, runtime: Runtime, precision: RuntimePrecision, cache: Path) -> Path:
        """The very file that was measured, whose scales came from the first examples."""
        assert converted is not None
        return converted(before[model.name], runtime, precision, measured / CONVERTED_FOLDER)

    store = RunStore(out)
    answered = {c.spec.cell_id for c in store.load().cells if c.rounds} if store.exists() else set()
    try:
        run = (
            store.load()
            if wanted <= answered
            else measure(
                wider,
                out,
                converted=None if converted is None else as_measured,
                only=frozenset(wanted),
                choose=lambda cells: [c for c in cells if not c.rounds],
            )
        )
    except StorageError:
        raise
    except KcostError as error:  # what is known stays: it can't tell
        tell(f"no more examples could be answered: {error.rule}")
        return {}
    here = run.model_copy(update={"cells": tuple(c for c in run.cells if c.spec.cell_id in wanted)})
    return judge(here, store.read_outputs, terms, candidates).drops

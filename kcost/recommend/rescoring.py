"""More examples than each measured cell answers: for drops of a score, where they decide, and for gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kcost.bench.conversions import CONVERTED_FOLDER, Converted
from kcost.bench.plan_models import open_models, specs_of
from kcost.bench.runner import measure
from kcost.bench.store import RunStore
from kcost.core.answer import Answer
from kcost.core.artifact import Model
from kcost.core.conversion import Runtime, RuntimePrecision
from kcost.core.errors import KcostError, StorageError
from kcost.core.plan import CellSpec, Plan
from kcost.core.result import CellResult, Run
from kcost.cost.quality import reference_cell
from kcost.recommend.candidates import Candidate
from kcost.recommend.drop import DropBound
from kcost.recommend.standings import judge
from kcost.recommend.terms import Terms

Tell = Callable[[str], None]


class MoreAnswers(NamedTuple):
    """Where cells answer more examples, each with one short turn: it is about answers, not about time.

    What was answered is stored, and not answered again.
    """

    plan: Plan
    """That the candidates were measured by."""
    measured: Path
    """The run folder of the candidates, with their conversions."""
    out: Path
    """A run folder of its own."""
    data: Path
    """npz as of a plan's `data`."""
    examples: int
    """Most examples."""
    converted: Converted | None = None
    tell: Tell = lambda _: None
    keep_outputs: bool = False

    @property
    def wider(self) -> Plan:
        """The plan, on these examples."""
        changes = {"scored_examples": self.examples, "rounds": 1, "round_s": 1e-3, "warmup_s": 0}
        settings = self.plan.settings.model_copy(update={**changes, "keep_outputs": self.keep_outputs})
        return self.plan.model_copy(update={"data": str(self.data), "settings": settings})

    def specs(self) -> tuple[CellSpec, ...]:
        """The cells of that plan."""
        return specs_of(self.wider, open_models(self.wider))

    def of(self, wanted: frozenset[str]) -> Run | None:
        """The run with cells that answered; None where they could not, which is told.

        Args:
            wanted: cell_ids of `specs`.

        Raises:
            StorageError: `out` cannot be written to.
        """
        before = {m.name: m for m in open_models(self.plan).values()}

        def as_measured(model: Model, runtime: Runtime, precision: RuntimePrecision, cache: Path) -> Path:
            """The very file that was measured, whose scales came from the first examples."""
            assert self.converted is not None
            return self.converted(before[model.name], runtime, precision, self.measured / CONVERTED_FOLDER)

        store = RunStore(self.out)
        answered = {c.spec.cell_id for c in store.load().cells if c.rounds} if store.exists() else set()
        try:
            run = (
                store.load()
                if wanted <= answered
                else measure(
                    self.wider,
                    self.out,
                    converted=None if self.converted is None else as_measured,
                    only=wanted,
                    choose=lambda cells: [c for c in cells if not c.rounds],
                )
            )
        except StorageError:
            raise
        except KcostError as error:  # what is known stays: it can't tell
            self.tell(f"no more examples could be answered: {error.rule}")
            return None
        return run.model_copy(update={"cells": tuple(c for c in run.cells if c.spec.cell_id in wanted)})


def rescored_drops(candidates: Sequence[Candidate], terms: Terms, more: MoreAnswers) -> dict[str, DropBound]:
    """Has candidates and float32 answer more examples; by candidate the drop, of those that answered.

    Each takes part with its largest batch size.

    Raises:
        StorageError: the folder cannot be written to.
    """
    specs = more.specs()
    alike = [s for s in specs if s.model == candidates[0].model and not s.threads]
    none = {"environment_id": "", "status": "partial"}
    reference = reference_cell(CellResult(spec=s, **none) for s in alike)
    if reference is None:
        return {}
    largest = {c.name: _largest(c, specs) for c in candidates}
    more.tell(f"answering {more.examples:,} examples: {', '.join(largest)}")
    run = more.of(frozenset({reference.spec.cell_id, *(s.cell_id for s in largest.values())}))
    return {} if run is None else judge(run, RunStore(more.out).read_outputs, terms, candidates).drops


class Answered(NamedTuple):
    """The answers of one way, each number of them."""

    answer: Answer
    """What its scored output says."""
    arrays: Mapping[str, np.ndarray]
    """As `CellResult.outputs_file` tells, with `scored_outputs`."""
    label_names: tuple[str, ...]


def answers_of(candidate: Candidate, more: MoreAnswers) -> Answered | None:
    """Has one way answer examples, and keeps its probabilities; None where it could not, or without labels.

    Raises:
        StorageError: the folder cannot be written to.
    """
    spec = _largest(candidate, more.specs())
    more.tell(f"answering {more.examples:,} examples for the gates: {candidate.name}")
    run = more._replace(keep_outputs=True).of(frozenset({spec.cell_id}))
    cell = None if run is None else next((c for c in run.cells if c.preparation is not None), None)
    if run is None or cell is None or cell.preparation is None or cell.preparation.answers is None:
        return None
    arrays = RunStore(more.out).read_outputs(cell)
    names = next((m.label_names for m in run.index.models if m.name == spec.model), ())
    if arrays is None or not {"labels", "scored_outputs"} <= set(arrays):
        return None
    return Answered(cell.preparation.answers.main, arrays, names)


def _largest(candidate: Candidate, specs: Sequence[CellSpec]) -> CellSpec:
    return max((s for s in specs if candidate.has(s)), key=lambda s: s.batch)

"""Runs a plan: starts workers, gives them turns, and stores every cell as soon as something is known of it."""

from __future__ import annotations

import datetime
import random
import uuid
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

from kcost.bench.pool import CellFailure, Pool
from kcost.bench.store import RunStore
from kcost.core import environment
from kcost.core.artifact import Model, open_model
from kcost.core.errors import InputError, UnavailableError, WorkerError
from kcost.core.plan import CellSpec, Plan, expand
from kcost.core.process import require
from kcost.core.request import MeasureRequest
from kcost.core.result import CellResult, ModelEntry, Run, RunIndex

OnProgress = Callable[[int, int, str], None]
"""Told after each piece of work: pieces done, pieces in all, and what comes next."""

SETTLED = ("ok", "unsupported")
"""Cells with these statuses are not measured again when a run goes on; the others may have been bad luck."""


def measure(plan: Plan, out: Path, on_progress: OnProgress = lambda done, total, text: None) -> Run:
    """Measures every cell of a plan that the run folder `out` does not hold yet.

    An existing run goes on where it stopped: settled cells stay, a partly measured cell gets the rounds
    that it lacks, and a cell that failed is tried once more. A plan that was widened adds its new cells.

    Raises:
        UnavailableError: a backend of the plan is not installed. Nothing is started then.
        ArtifactError: a model cannot be opened or loaded.
        StorageError: `out` cannot be written to; what was stored before stays.
    """
    for backend in plan.backends:
        require(backend)
    models = _open_models(plan)
    specs = expand(plan, {name: model.sha256 for name, model in models.items()})
    store = _store(plan, models, out)
    here = environment.collect()
    environment_id = store.write_environment(here)
    cells = [_known(store, spec, environment_id) for spec in specs]
    session = _Session(plan, models, store, on_progress, total=sum(c.status not in SETTLED for c in cells))
    for _, block in groupby(sorted(cells, key=lambda c: c.spec.block), key=lambda c: c.spec.block):
        pending = [c for c in block if c.status not in SETTLED]
        if pending:
            session.measure_block(pending)
    run = store.load()
    _refuse_empty([c for c in run.cells if c.spec in specs])
    return run


def _refuse_empty(cells: list[CellResult]) -> None:
    """Raises an error where not one cell was measured: then the plan asked for what is not there."""
    if any(c.status == "ok" for c in cells):
        return
    reasons = "; ".join(sorted({f"{c.status}: {c.reason}" for c in cells}))
    everywhere = all(c.status == "unsupported" for c in cells)
    raise (UnavailableError if everywhere else WorkerError)(
        "No cell could be measured.", received=reasons, remedy="`kcost doctor` says what works on this machine."
    )


def _open_models(plan: Plan) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for path in plan.models:
        model = open_model(path)
        if model.name in models:
            raise InputError(
                "The models of a run have different names.",
                received=f"{models[model.name].keras_file} and {model.keras_file}, both named {model.name!r}",
                remedy="Train with another --name, or rename the .keras file.",
            )
        models[model.name] = model
    return models


def _store(plan: Plan, models: dict[str, Model], out: Path) -> RunStore:
    store = RunStore(out)
    entries = {name: _entry(model) for name, model in models.items()}
    if store.exists():
        known = store.open()
        # Models of earlier plans keep their place: their cells are still in the folder.
        entries = {**{m.name: m for m in known.models}, **entries}
        store.update(known.model_copy(update={"plan": plan, "models": tuple(entries.values())}))
    else:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        store.create(RunIndex(created_at=now, plan=plan, models=tuple(entries.values())))
    return store


def _entry(model: Model) -> ModelEntry:
    about = model.artifact
    data = about.dataset if about else None
    trained = next((s for s in reversed(about.steps) if s.kind == "train"), None) if about else None
    return ModelEntry(
        name=model.name,
        path=str(model.keras_file),
        sha256=model.sha256,
        task=model.task,
        dataset=data.name if data else None,
        synthetic_data=data.synthetic if data else True,
        label_names=about.label_names if about else (),
        train_examples=data.splits["train"].count if data and "train" in data.splits else None,
        train_epochs=int(trained.settings["epochs"]) if trained and "epochs" in trained.settings else None,
    )


def _known(store: RunStore, spec: CellSpec, environment_id: str) -> CellResult:
    """What the run holds of a cell; an empty one where it holds nothing, or something of another machine."""
    held = store.read_cell(spec.cell_id)
    if held is not None and (held.status in SETTLED or held.environment_id == environment_id):
        return held
    return CellResult(spec=spec, environment_id=environment_id, status="partial")


class _Session:
    """One call of `measure`: blocks of cells, one after the other."""

    def __init__(
        self, plan: Plan, models: dict[str, Model], store: RunStore, on_progress: OnProgress, total: int
    ) -> None:
        self._settings, self._models, self._store = plan.settings, models, store
        self._id = uuid.uuid4().hex[:8]
        self._shuffle = random.Random(plan.settings.seed).shuffle
        self._on_progress = on_progress
        self._done, self._total = 0, total * (plan.settings.rounds + 1)

    def _advance(self, text: str, pieces: int = 1) -> None:
        self._done += pieces
        self._on_progress(self._done, self._total, text)

    def measure_block(self, cells: Iterable[CellResult]) -> None:
        """Gets the cells of a block ready, then gives them turns, round by round in shuffled order."""
        rounds = self._settings.rounds
        with Pool(self._store.logs, self._settings) as pool:
            live: list[CellResult] = []
            for cell in cells:
                self._on_progress(self._done, self._total, f"preparing {cell.spec.model} {cell.spec.label}")
                try:
                    cell = cell.model_copy(update={**pool.prepare(self._request(cell)), "status": "partial"})
                    live.append(cell)
                    self._store.write_cell(cell)
                    self._advance("")
                except CellFailure as failure:
                    self._fail(cell, failure)
            for number in range(rounds):
                due = [c for c in live if len(c.rounds) < rounds]
                self._shuffle(due)
                for cell in due:
                    self._on_progress(self._done, self._total, f"round {number + 1} of {rounds}: {cell.spec.label}")
                    live.remove(cell)
                    try:
                        measured = pool.measure(self._request(cell), self._id, number)
                    except CellFailure as failure:
                        self._fail(cell, failure)
                        continue
                    cell = cell.model_copy(update={"rounds": (*cell.rounds, measured)})
                    if len(cell.rounds) >= rounds:
                        cell = cell.model_copy(update={"status": "ok", "reason": None})
                    self._store.write_cell(cell)
                    live.append(cell)
                    self._advance("")

    def _request(self, cell: CellResult) -> MeasureRequest:
        model = self._models[cell.spec.model]
        return MeasureRequest(
            spec=cell.spec,
            task=model.task,
            settings=self._settings,
            keras_file=model.keras_file.absolute(),
            samples_file=model.samples_file.absolute() if model.samples_file else None,
            outputs_file=self._store.outputs_file(cell.spec.cell_id).absolute(),
        )

    def _fail(self, cell: CellResult, failure: CellFailure) -> None:
        """Stores a failure at once. Rounds measured before it stay; a later start tries the cell again."""
        self._store.write_cell(cell.model_copy(update={"status": failure.status, "reason": failure.reason}))
        self._advance("", pieces=1 + self._settings.rounds - len(cell.rounds))

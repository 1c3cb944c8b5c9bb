"""Runs a plan: starts workers, gives them turns, and stores every cell as soon as something is known of it."""

from __future__ import annotations

import datetime
import math
import random
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from kcost.bench.conversions import CONVERTED_FOLDER, Conversions, Converted
from kcost.bench.plan_models import entry_of, open_models, request_for, saved_policies, specs_of
from kcost.bench.pool import CellFailure, Pool
from kcost.bench.precision import due
from kcost.bench.scenarios import failed as failed_scenario, measured as measured_scenario
from kcost.bench.store import RunStore
from kcost.core import environment
from kcost.core.artifact import Model
from kcost.core.errors import InputError, UnavailableError, WorkerError
from kcost.core.plan import CellSpec, Plan, Settings
from kcost.core.progress import OnProgress, silent
from kcost.core.request import MeasureRequest
from kcost.core.result import CellResult, Run, RunIndex
from kcost.core.scenario import missing, with_result

Choose = Callable[[list[CellResult]], list[CellResult]]
"""Which of the cells that are ready get a turn in the next round; none ends the block."""

SETTLED = ("ok", "unsupported")
"""Cells with these statuses are not tried again when a run goes on; the others may have been bad luck."""


def measure(
    plan: Plan,
    out: Path,
    on_progress: OnProgress = silent,
    converted: Converted | None = None,
    *,
    only: frozenset[str] | None = None,
    choose: Choose | None = None,
    ready_by: float = math.inf,
    even_late: frozenset[str] = frozenset(),
    at_once: int = 1,
    pool: Pool | None = None,
) -> Run:
    """Measures every cell of a plan that the run folder `out` does not hold yet.

    An existing run goes on where it stopped: settled cells stay, a partly measured cell gets the rounds
    that it lacks, and a cell that failed is tried once more. A plan that was widened adds its new cells, and one that
    asks for more rounds, or a narrower precision, adds rounds. After the turns of a block each of its cells is measured
    in the scenarios of the plan that it lacks, alone, while all others sleep. Where the plan asks for profiles each of
    them is looked into last of all, once.

    Args:
        converted: gives the folder of a model that was converted for a runtime, such as
            `kcost.ship.convert.converted`; without it cells of runtimes are unsupported.
        only: cell_ids of the plan that are measured; None for all.
        choose: decides, round by round, which of the cells get a turn, in the place of the plan's rounds and precision.
            A cell is ok from the plan's rounds on. What was measured in another environment is measured anew: rounds of
            two environments are no rounds of one cell.
        ready_by: after that no further cell is got ready, on the monotonic clock; one always is. Those left out stay as
            they were.
        even_late: cell_ids of those that are got ready after that, too.
        at_once: with two or more, new cells of Keras are got ready while models are converted for others, and as many
            conversions run at once as that leaves. No turn is taken meanwhile. A stop ends the conversions that run.
        pool: workers that live on after this call, whose owner ends them; cells that they hold are not got ready again.
            None starts workers for each block and ends them with it.

    Raises:
        UnavailableError: a backend of the plan is not installed. Nothing is started then.
        ArtifactError: a model cannot be opened. Nothing is started then, either.
        KcostError: not one cell could be measured; what a worker refused, where all were refused for one reason.
        StorageError: `out` cannot be written to; what was stored before stays.
    """
    models = open_models(plan)
    specs = tuple(s for s in specs_of(plan, models) if only is None or s.cell_id in only)
    store = _store(plan, models, out)
    here = environment.collect()
    environment_id = store.write_environment(here)
    mixed = saved_policies(models)
    of_here_alone = choose is not None
    cells = [_known(store, spec, environment_id, spec.model in mixed, of_here_alone) for spec in specs]
    key = _block_of_all_models if plan.together else _block
    blocks = [list(block) for _, block in groupby(sorted(cells, key=key), key=key)]
    pending = [work for block in blocks if (work := _pending(block, plan.settings, environment_id, choose)).cells]
    total = sum(_pieces(work, plan.settings, environment_id) for work in pending)
    session = _Session(
        *(plan, models, store, on_progress, converted, environment_id, total),
        *(choose, ready_by, even_late, at_once, pool),
    )
    for place, work in enumerate(pending):
        session.measure_block(work, blocks_left=len(pending) - place)
    run = store.load()
    _refuse_empty([c for c in run.cells if c.spec in specs], session.refusals)
    return run


def _block(cell: CellResult) -> tuple[str, ...]:
    return cell.spec.block


def _block_of_all_models(cell: CellResult) -> tuple[str, ...]:
    return cell.spec.block[1:]


class _Work(NamedTuple):
    """What is to be done of a block."""

    cells: list[CellResult]
    """Those that something is still to be measured of."""
    turning: frozenset[str]
    """cell_ids of those that get turns. The others have had all of theirs, and get scenarios or a profile."""


def _pending(block: list[CellResult], settings: Settings, environment_id: str, choose: Choose | None = None) -> _Work:
    """The cells of a block that something is still to be measured of."""
    possible = [c for c in block if c.status != "unsupported"]
    if choose is not None:  # it may ask for more rounds of any
        return _Work(possible, frozenset(c.spec.cell_id for c in possible))
    turning = frozenset(
        {c.spec.cell_id for c in block if c.status not in SETTLED} | {c.spec.cell_id for c in due(possible, settings)}
    )
    lacking = {
        c.spec.cell_id
        for c in possible
        if missing(c, settings, environment_id) or _lacks_profile(c, settings, environment_id)
    }
    return _Work([c for c in block if c.spec.cell_id in turning | lacking], turning)


def _lacks_profile(cell: CellResult, settings: Settings, environment_id: str) -> bool:
    """Whether a cell that was measured here is still to be looked into."""
    if not settings.profile or cell.status != "ok" or cell.environment_id != environment_id:
        return False
    return cell.profile is None or cell.profile.status not in SETTLED


def _pieces(work: _Work, settings: Settings, environment_id: str) -> int:
    """How many pieces of work there are, as progress counts them: preparing, rounds, scenarios, profiles."""
    scenarios = sum(len(missing(cell, settings, environment_id)) for cell in work.cells)
    profiles = len(work.cells) if settings.profile else 0
    return len(work.cells) + len(work.turning) * settings.rounds + scenarios + profiles


def _most_rounds(settings: Settings) -> str:
    if settings.precision is None:
        return str(settings.rounds)
    return f"at most {max(settings.rounds, settings.max_rounds)}"


def _refuse_empty(cells: list[CellResult], refusals: list[InputError]) -> None:
    """Raises an error where not one cell was measured: then the plan asked for what is not there.

    Args:
        refusals: what workers said of the input just now, a cell each.
    """
    if any(c.status == "ok" for c in cells):
        return
    if len(refusals) == len(cells) and len({str(error) for error in refusals}) == 1:
        raise refusals[0]
    reasons = "; ".join(sorted({f"{c.status}: {c.reason}" for c in cells}))
    everywhere = all(c.status == "unsupported" for c in cells)
    raise (UnavailableError if everywhere else WorkerError)(
        "No cell could be measured.", received=reasons, remedy="`kcost doctor` says what works on this machine."
    )


def _store(plan: Plan, models: dict[str, Model], out: Path) -> RunStore:
    store = RunStore(out)
    entries = {name: entry_of(model) for name, model in models.items()}
    if store.exists():
        known = store.open()
        # Models of earlier plans keep their place: their cells are still in the folder.
        entries = {**{m.name: m for m in known.models}, **entries}
        store.update(known.model_copy(update={"plan": plan, "models": tuple(entries.values())}))
    else:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        store.create(RunIndex(created_at=now, plan=plan, models=tuple(entries.values())))
    return store


def _known(store: RunStore, spec: CellSpec, environment_id: str, mixed: bool, of_here_alone: bool) -> CellResult:
    """What the run holds of a cell; an empty one where it holds nothing, or something of another machine.

    Args:
        mixed: the model was saved under another dtype policy than float32. Where a cell does not say what was computed,
            an older kcost called that policy float32.
        of_here_alone: whether what another machine measured to its end is measured anew, too.
    """
    held = store.read_cell(spec.cell_id)
    if mixed and held is not None and held.preparation is not None and held.preparation.computed_dtype is None:
        held = None
    if held is not None and (held.environment_id == environment_id or (held.status in SETTLED and not of_here_alone)):
        return held
    return CellResult(spec=spec, environment_id=environment_id, status="partial")


class _Session:
    """One call of `measure`: blocks of cells, one after the other."""

    def __init__(
        self,
        plan: Plan,
        models: dict[str, Model],
        store: RunStore,
        on_progress: OnProgress,
        converted: Converted | None,
        environment_id: str,
        total: int,
        choose: Choose | None = None,
        ready_by: float = math.inf,
        even_late: frozenset[str] = frozenset(),
        at_once: int = 1,
        pool: Pool | None = None,
    ) -> None:
        self._choose = choose
        self._ready_by, self._even_late, self._at_once = ready_by, even_late, at_once
        self._pool = pool
        self._conversions = Conversions(models, store.path / CONVERTED_FOLDER, converted, self._tell)
        self._requests: dict[str, MeasureRequest] = {}
        """By cell_id, of the cells that need no conversion or have it."""
        self._settings, self._models, self._store = plan.settings, models, store
        self._id = uuid.uuid4().hex[:8]
        self._shuffle = random.Random(plan.settings.seed).shuffle
        self._on_progress = on_progress
        self._environment_id = environment_id
        self._done, self._total = 0, total
        minutes = plan.settings.minutes
        self.refusals: list[InputError] = []
        """The errors by which workers refused the input of cells."""
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes

    def _advance(self, pieces: int = 1) -> None:
        self._done += pieces
        self._total = max(self._total, self._done)  # rounds that a precision asks for were not foreseen
        self._tell("")

    def _tell(self, text: str) -> None:
        """What comes next."""
        self._on_progress(self._done, self._total, text)

    def measure_block(self, work: _Work, blocks_left: int = 1) -> None:
        """Gets the cells of a block ready, gives them turns, round by round in shuffled order, then their scenarios.

        Args:
            blocks_left: this block and those after it, which share what is left of the time.
        """
        with self._workers() as pool:
            prepared = self._ready(pool, work)
            live = [c for c in prepared if c.spec.cell_id in work.turning]
            ends = self._share_of_time(blocks_left)
            number, most = 0, "" if self._choose else f" of {_most_rounds(self._settings)}"
            while turns := self._turns(live, time_left=time.monotonic() < ends):
                self._shuffle(turns)
                for cell in turns:
                    self._tell(f"round {number + 1}{most}: {cell.spec.label}")
                    live.remove(cell)
                    try:
                        measured = pool.measure(self._requests[cell.spec.cell_id], self._id, number)
                    except CellFailure as failure:
                        self._fail(cell, failure)
                        continue
                    cell = cell.model_copy(update={"rounds": (*cell.rounds, measured)})
                    if len(cell.rounds) >= self._settings.rounds:
                        cell = cell.model_copy(update={"status": "ok", "reason": None})
                    self._store.write_cell(cell)
                    live.append(cell)
                    self._advance()
                number += 1
            for cell in (*live, *(c for c in prepared if c.spec.cell_id not in work.turning)):
                self._measure_scenarios(pool, cell)
            for cell in prepared:
                self._profile(pool, cell.spec.cell_id)

    def _workers(self) -> AbstractContextManager[Pool]:
        if self._pool is None:
            return Pool(self._store.logs, self._settings)
        self._pool.take(self._settings)
        return nullcontext(self._pool)

    def _turns(self, live: list[CellResult], *, time_left: bool) -> list[CellResult]:
        if self._choose is not None:
            return list(self._choose(list(live)))
        return due(live, self._settings, time_left=time_left)

    def _measure_scenarios(self, pool: Pool, cell: CellResult) -> None:
        """What the cell lacks of the scenarios, stored as it grows. A failure in here is no failure of the cell."""
        for scenario in missing(cell, self._settings, self._environment_id) if cell.status == "ok" else ():

            def tell(text: str, label: str = cell.spec.label) -> None:
                self._tell(f"{text}: {label}")

            request = self._requests[cell.spec.cell_id]
            for result in measured_scenario(scenario, cell, pool, request, self._environment_id, tell):
                cell = with_result(cell, result)
                self._store.write_cell(cell)
            self._advance()

    def _profile(self, pool: Pool, cell_id: str) -> None:
        """Looks into a cell as the run holds it by now, where that is still to be done. It stays as it was measured."""
        cell = self._store.read_cell(cell_id)
        if cell is None or not _lacks_profile(cell, self._settings, self._environment_id):
            return
        self._tell(f"profiling {cell.spec.label}")
        profile = pool.profile(self._requests[cell_id])
        self._store.write_cell(cell.model_copy(update={"profile": profile}))
        self._advance()

    def _ready(self, pool: Pool, work: _Work) -> list[CellResult]:
        """The cells that are ready for their turns."""
        if self._at_once == 1:
            # Before any worker is there, whose start would be slowed.
            return self._prepare(pool, self._convertible(work.cells, work.turning), work.turning, [])
        of_keras = [c for c in work.cells if c.spec.runtime is None]
        # What these took to get ready is stored, and the watts of the idle machine are: nothing runs beside them.
        known = [c for c in of_keras if c.rounds]
        self._start(pool, of_keras)
        live = self._prepare(pool, self._convertible(known, work.turning), work.turning, [])
        new = [c for c in of_keras if not c.rounds]
        beside = max(1, self._at_once - any(not pool.holds(c.spec) for c in new))
        with self._conversions.made_meanwhile((c.spec for c in work.cells), beside):
            live = self._prepare(pool, self._convertible(new, work.turning), work.turning, live)
        others = [c for c in work.cells if c.spec.runtime is not None]
        return self._prepare(pool, self._convertible(others, work.turning), work.turning, live)

    def _convertible(self, cells: list[CellResult], turning: frozenset[str]) -> list[CellResult]:
        """The cells that need no conversion or have it."""
        convertible = []
        for cell in cells:
            try:
                self._requests[cell.spec.cell_id] = self._request(cell)
                convertible.append(cell)
            except CellFailure as failure:
                self._not_ready(cell, failure, turning)
        return convertible

    def _prepare(
        self, pool: Pool, cells: list[CellResult], turning: frozenset[str], live: list[CellResult]
    ) -> list[CellResult]:
        """Those that are ready, and those of the cells that could be got ready.

        What is stored of a preparation is that of a cell's turns.

        Args:
            live: those that are ready already.
        """
        if not cells:
            return live
        live = [*live]
        self._start(pool, [c for c in cells if not (live and self._is_late(c))])
        for cell in cells:
            if cell.preparation is not None and cell.status in ("ok", "partial") and pool.holds(cell.spec):
                live.append(cell)
                self._advance()
                continue
            if live and self._is_late(cell):
                self._advance()
                continue
            self._tell(f"preparing {cell.spec.model} {cell.spec.label}")
            try:
                prepared = pool.prepare(self._requests[cell.spec.cell_id])
                if cell.spec.cell_id in turning:
                    # A cell that has been ok stays so, as an earlier plan asked for fewer rounds; one that failed in a
                    # further round has all that it needs.
                    done = cell.status == "ok" or len(cell.rounds) >= self._settings.rounds
                    status = {"status": "ok", "reason": None} if done else {"status": "partial"}
                    cell = cell.model_copy(update={**prepared._asdict(), **status})
                    self._store.write_cell(cell)
                live.append(cell)
                self._advance()
            except CellFailure as failure:
                self._not_ready(cell, failure, turning)
        return live

    def _start(self, pool: Pool, cells: list[CellResult]) -> None:
        if cells:
            self._tell(f"starting {cells[0].spec.model}")
            pool.start(c.spec for c in cells)

    def _is_late(self, cell: CellResult) -> bool:
        return time.monotonic() >= self._ready_by and cell.spec.cell_id not in self._even_late

    def _not_ready(self, cell: CellResult, failure: CellFailure, turning: frozenset[str]) -> None:
        """Stores that a cell could not be got ready.

        A cell that waits for turns fails. One that has had all of them keeps its status: its scenarios fail alone.
        """
        if cell.spec.cell_id in turning:
            self._fail(cell, failure)
            return
        lacking = missing(cell, self._settings, self._environment_id)
        for scenario in lacking:
            result = failed_scenario(scenario, cell, self._settings, self._environment_id, failure)
            cell = with_result(cell, result)
        self._store.write_cell(cell)
        self._advance(1 + len(lacking))

    def _share_of_time(self, blocks_left: int) -> float:
        """When this block may begin no further round, on the monotonic clock."""
        if self._deadline is None:
            return math.inf
        now = time.monotonic()
        return now + max(0.0, self._deadline - now) / blocks_left

    def _request(self, cell: CellResult) -> MeasureRequest:
        """What a worker needs. Raises CellFailure where the model cannot be converted for the cell's runtime."""
        spec = cell.spec
        folder = self._store.outputs_file(spec.cell_id).parent
        return self._conversions.applied_to(request_for(spec, self._models[spec.model], self._settings, folder))

    def _fail(self, cell: CellResult, failure: CellFailure) -> None:
        """Stores a failure at once. Rounds measured before it stay; a later start tries the cell again."""
        if isinstance(failure.__cause__, InputError):
            self.refusals.append(failure.__cause__)
        self._store.write_cell(cell.model_copy(update={"status": failure.status, "reason": failure.reason}))
        scenarios = len(missing(cell, self._settings, self._environment_id))
        self._advance(max(1, 1 + self._settings.rounds - len(cell.rounds)) + scenarios)

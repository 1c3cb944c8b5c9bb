"""Whether the harness can be believed on this machine: cells against themselves, and beside busy neighbours."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, computed_field

from kcost.bench.plan_models import open_models, request_for, specs_of
from kcost.bench.pool import CellFailure, Pool
from kcost.bench.precision import ratio_to
from kcost.bench.runner import measure
from kcost.core.disturbance import invalid_cell, invalid_run
from kcost.core.errors import WorkerError
from kcost.core.plan import CellSpec, Plan, baseline_of
from kcost.core.process import require
from kcost.core.progress import OnProgress, silent
from kcost.core.result import CellResult, Round, Run
from kcost.core.schema import Record
from kcost.core.stats import exact_proportion, median_per_round, paired_ratio, surely_differs
from kcost.core.units import format_percent

FALSE_WINNERS = 0.05
"""Share of A/A pairs that may have a winner. Cells are told apart with 99% confidence, so that chance gives 1%."""

SURE = 0.90
"""The share is held to be too high when the whole exact interval of this confidence lies above FALSE_WINNERS."""

MOVED = 0.05
"""Most that a ratio may move when neighbours are busy."""

NEIGHBOURS = 2


class Form(NamedTuple):
    """How long a self-test takes."""

    pairs: int
    rounds: int


FULL = Form(pairs=200, rounds=10)
SHORT = Form(pairs=24, rounds=5)
"""For continuous integration: enough to find a broken interval, not a slightly wrong one."""


class Pair(Record):
    """One cell against itself: the medians of the rounds of its two turns, nanoseconds."""

    model: str
    cell: str
    a_ns: tuple[float, ...]
    b_ns: tuple[float, ...]

    @computed_field  # type: ignore[prop-decorator]  # mypy issue 1362
    @property
    def has_winner(self) -> bool:
        """Whether the two would be told apart, which is false."""
        return surely_differs(paired_ratio(self.a_ns, self.b_ns), len(self.a_ns))


class Move(Record):
    """The ratio of a cell to its block's baseline, quiet and beside busy neighbours."""

    model: str
    cell: str
    baseline: str
    quiet: float
    loaded: float
    invalid: str | None = Field(description="why the loaded figures are marked INVALID; None where they are not")

    @computed_field  # type: ignore[prop-decorator]  # mypy issue 1362
    @property
    def moved(self) -> float:
        """By which part the ratio changed."""
        return self.loaded / self.quiet - 1

    @computed_field  # type: ignore[prop-decorator]  # mypy issue 1362
    @property
    def passed(self) -> bool:
        """It held still, or was marked INVALID."""
        return self.invalid is not None or abs(self.moved) <= MOVED


class SelfTest(Record):
    """What a self-test found. The raw medians are in it; shares and verdicts are derived."""

    simulated: bool
    pairs: tuple[Pair, ...]
    moves: tuple[Move, ...] = Field(default=(), description="empty where the noisy form was not asked for")
    quiet_invalid: str | None = Field(default=None, description="why even the quiet run was INVALID")

    @computed_field  # type: ignore[prop-decorator]  # mypy issue 1362
    @property
    def false_winners(self) -> int:
        """Pairs of equals that were told apart."""
        return sum(p.has_winner for p in self.pairs)

    @computed_field  # type: ignore[prop-decorator]  # mypy issue 1362
    @property
    def failures(self) -> tuple[str, ...]:
        """What did not hold, in words; empty when the self-test passed."""
        faults = []
        share = exact_proportion(self.false_winners, len(self.pairs), SURE)
        if share.low > FALSE_WINNERS:
            faults.append(
                f"{self.false_winners} of {len(self.pairs)} cells beat themselves: {format_percent(share.value)} "
                f"(at least {format_percent(share.low)}); the limit is {format_percent(FALSE_WINNERS)}"
            )
        faults.extend(
            f"{m.model} {m.cell}: its ratio moved by {format_percent(abs(m.moved))} beside busy neighbours, and it was "
            f"not marked INVALID; the limit is {format_percent(MOVED)}"
            for m in self.moves
            if not m.passed
        )
        return tuple(faults)

    @computed_field  # type: ignore[prop-decorator]  # mypy issue 1362
    @property
    def passed(self) -> bool:
        """Whether figures of this harness on this machine can be believed."""
        return not self.failures


def self_test(
    plan: Plan,
    *,
    form: Form = FULL,
    noisy: bool = True,
    out: Path | None = None,
    on_progress: OnProgress = silent,
) -> SelfTest:
    """Measures each cell of a plan against itself, then the plan with and without busy neighbours.

    A pair is `form.rounds` rounds in which a prepared cell has two turns, all cells in shuffled order as in any run.
    For the noisy form the plan is measured twice with its own settings, the second time beside NEIGHBOURS processes
    that never rest.

    Args:
        form: FULL or SHORT.
        noisy: also load the machine.
        out: keeps the runs of the noisy form and the workers' logs; None keeps nothing.

    Raises:
        UnavailableError: a backend is not installed.
        WorkerError: a cell could not be measured: then the harness has not been tested.
    """
    for backend in plan.backends:
        require(backend)
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kcost-self-test-")))
        pairs, simulated = _against_themselves(plan, form, folder / "pairs", on_progress)
        if not noisy:
            return SelfTest(simulated=simulated, pairs=pairs)
        # It tests turns: a plan's scenarios would take minutes and tell it nothing, and so would profiles.
        without = {"scenarios": (), "latency_bound_ms": None, "profile": False}
        plan = plan.model_copy(update={"settings": plan.settings.model_copy(update=without)})
        quiet = measure(plan, folder / "quiet", on_progress)
        with busy_neighbours():
            loaded = measure(plan, folder / "loaded", on_progress)
    return SelfTest(
        simulated=simulated, pairs=pairs, moves=tuple(moves(quiet, loaded)), quiet_invalid=invalid_run(quiet)
    )


def _against_themselves(plan: Plan, form: Form, folder: Path, on_progress: OnProgress) -> tuple[tuple[Pair, ...], bool]:
    models = open_models(plan)
    specs = sorted(specs_of(plan, models), key=lambda s: s.block)
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(plan.settings.seed)
    each = math.ceil(form.pairs / len(specs))
    total, simulated = each * len(specs), False
    pairs: list[Pair] = []
    try:
        for _, block in groupby(specs, key=lambda s: s.block):
            cells = list(block)
            with Pool(folder, plan.settings) as pool:
                pool.start(cells)
                requests = {s.cell_id: request_for(s, models[s.model], plan.settings, folder) for s in cells}
                for spec in cells:
                    simulated |= pool.prepare(requests[spec.cell_id]).preparation.simulated

                def turn(spec: CellSpec, number: int, pool: Pool = pool, requests: dict = requests) -> Round:  # type: ignore[type-arg]
                    return pool.measure(requests[spec.cell_id], "self-test", number)

                for _ in range(each):
                    on_progress(len(pairs), total, "each cell against itself")
                    pairs += _one_pair_each(cells, form.rounds, turn, rng)
    except CellFailure as failure:
        raise WorkerError(
            "A self-test measures every cell of its plan.",
            received=f"{failure.status}: {failure.reason}",
            remedy="Take out of the plan what this machine cannot run.",
        ) from failure
    return tuple(pairs), simulated


def _one_pair_each(
    cells: list[CellSpec], rounds: int, turn: Callable[[CellSpec, int], Round], rng: random.Random
) -> Iterator[Pair]:
    taken: dict[tuple[str, int], list[tuple[int, ...]]] = {}
    for number in range(rounds):
        turns = [(spec, side) for spec in cells for side in (0, 1)]
        rng.shuffle(turns)
        for spec, side in turns:
            taken.setdefault((spec.cell_id, side), []).append(turn(spec, number).step_ns)
    for spec in cells:
        a, b = (median_per_round(taken[spec.cell_id, side]) for side in (0, 1))
        yield Pair(model=spec.model, cell=spec.label, a_ns=tuple(a), b_ns=tuple(b))


def moves(quiet: Run, loaded: Run) -> Iterator[Move]:
    """How far the ratio of each cell to its block's baseline moved from one run to the other."""
    blocks: dict[tuple[str, str, str], list[CellResult]] = {}
    for cell in quiet.measured():
        blocks.setdefault(cell.spec.block, []).append(cell)
    again = {c.spec.cell_id: c for c in loaded.measured()}
    for cells in blocks.values():
        present = {c.spec.cell_id: c for c in cells if c.spec.cell_id in again}
        spec = baseline_of([c.spec for c in present.values()])
        if spec is None:
            continue
        for cell_id, cell in present.items():
            before = ratio_to(cell, present[spec.cell_id])
            after = ratio_to(again[cell_id], again[spec.cell_id])
            if cell_id != spec.cell_id and before is not None and after is not None:
                yield Move(
                    model=cell.spec.model,
                    cell=cell.spec.label,
                    baseline=spec.label,
                    quiet=before.value,
                    loaded=after.value,
                    invalid=_invalid(loaded, again[cell_id]) or _invalid(loaded, again[spec.cell_id]),
                )


def _invalid(run: Run, cell: CellResult) -> str | None:
    return invalid_cell(cell, run.environments[cell.environment_id])


_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))\n"


@contextmanager
def busy_neighbours(count: int = NEIGHBOURS) -> Iterator[None]:
    """Processes that never rest, until the block ends or this process does."""
    processes = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()

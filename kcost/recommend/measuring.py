"""Spends the minutes: drives the bench through the waves of the schedule, in one run folder that holds each cell.

A stop at any time keeps every finished round, and the same call goes on from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from kcost.bench.conversions import Converted
from kcost.bench.plan_models import open_models, specs_of
from kcost.bench.pool import Pool
from kcost.bench.runner import measure
from kcost.bench.store import RunStore
from kcost.core import environment
from kcost.core.artifact import Model
from kcost.core.conversion import Runtime, RuntimePrecision
from kcost.core.cpu_quota import default_threads
from kcost.core.errors import InputError, KcostError, StorageError
from kcost.core.memory_limit import free_memory_bytes
from kcost.core.plan import Plan, Precision, Settings
from kcost.core.probe import Probe
from kcost.core.progress import OnProgress, silent
from kcost.core.result import Run
from kcost.core.units import significant
from kcost.recommend.arms import arm_of, most_at_once
from kcost.recommend.bounds import Work
from kcost.recommend.candidates import MAKING_S, Candidate
from kcost.recommend.drop import DropBound, undecidable
from kcost.recommend.making import Make, Versions
from kcost.recommend.schedule import (
    SHARE_OF_TIME,
    SIZES_DIFFER,
    WORTH_TRYING,
    Arm,
    Standing,
    Wave,
    again,
    contenders,
    leader,
    next_wave,
)
from kcost.recommend.spent import Spent
from kcost.recommend.standings import (
    Capacities,
    Floor,
    Judged,
    fastest_mhz,
    floor_of,
    judge,
    standings_of,
    step_ms,
)
from kcost.recommend.terms import Terms
from kcost.recommend.turns import Turns
from kcost.recommend.variants import MadeVariant

Tell = Callable[[str], None]

Rescore = Callable[[Sequence[Candidate], int], dict[str, DropBound]]
"""The drop of some candidates on about so many examples; of none where the data have no more."""

MOST_SCORED = 4_096
"""Most examples that a drop is judged on."""

LOWER: frozenset[Precision] = frozenset({"bfloat16", "int8", "int8_dynamic"})
"""Precisions whose answers are held against those of float32."""

CLOSING_S = 5.0
"""Kept back of the minutes for the last prices."""

FIRST_FIGURES_S = 60.0
"""Least time in which the first ways are got ready: figures without plain Keras would say little."""

KINDS = {
    "first": "first figures",
    "screen": "a few rounds of the others that are ready at once",
    "widen": "the other batch sizes of what can still win",
    "variants": "fewer threads for what can still win",
    "try": "getting ready, as it may win",
    "final": "more rounds for what is not told apart",
    "again": "once more, as other work disturbed them",
}
"""What a wave is called on the way."""

MOST_AGAIN = 3
"""How often what other work disturbed is measured once more: each time its rounds are twice as many."""

MOST_WAVES = 200
"""No schedule needs as many: a guard against one that asks for the same for ever."""


class Measuring:
    """One call of `kcost recommend`: waves of the schedule until nothing is left to decide, or no time is.

    Args:
        work: of a forward pass.
        seconds: to spend.
        worth: the expected saving that a conversion or a compilation is made for, as of `schedule.next_wave`.
        tell: told first figures and the best so far, as sentences.
        converted: converts a model for a runtime, as of `bench.runner.measure`.
        make: makes a cheaper version of the model; without it none is made.
        making_s: what that takes, as guessed.
        rescore: judges drops on more examples, where those that cells answer don't decide; None where the data have no
            more.
        rescored: what it said before, by candidate.
        made: the versions that are there already, by variant.
        probe: of this machine, which bounds what a step takes.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        plan: Plan,
        terms: Terms,
        out: Path,
        *,
        work: Work,
        seconds: float,
        worth: float = WORTH_TRYING,
        converted: Converted | None = None,
        make: Make | None = None,
        making_s: float = MAKING_S,
        rescore: Rescore | None = None,
        rescored: Mapping[str, DropBound] = MappingProxyType({}),
        made: Mapping[str, MadeVariant] = MappingProxyType({}),
        probe: Probe | None = None,
        tell: Tell = lambda _: None,
        on_progress: OnProgress = silent,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._candidates = {c.name: c for c in candidates}
        self._terms, self._store = terms, RunStore(out)
        self._work, self._worth = work, worth
        self._converted = None if converted is None else self._timed(converted)
        self._rescore, self.rescored = rescore, dict(rescored)
        self._probe = probe
        self._versions = Versions(make, making_s, terms.limits.max_drop, tell, clock)
        self._tell, self._on_progress, self._clock = tell, on_progress, clock
        self._start = clock()
        self._ends = self._start + max(0.0, seconds - CLOSING_S)
        self._capacities = Capacities(terms.seed)
        self._models: dict[str, Model] = {}
        self._cell_ids: dict[str, dict[int, str]] = {}
        """Candidate -> batch size -> cell; none of a version that is not made yet."""
        self._take_plan(plan)
        for version in made.values():
            self._take(version)
        self._unlabelled: int | None = None
        """Examples that answers are compared on, where they have no labels and there are no more of them."""
        self._disturbed: frozenset[str] = frozenset()
        """Ways that were measured beside other work."""
        self._step_ms = 0.0
        """Of the best way so far, at the batch size at which it is longest."""
        self._screened_at: int | None = None
        """The batch size that ways are screened at, once a best is known."""
        self._tried_ids: set[str] = set()
        """Cells that were measured, or cannot be."""
        self._setup_s: dict[str, float] = {}
        """Method -> what getting it ready took, once seen."""
        self._conversion_s: dict[str, float] = {}
        """Runtime -> what the longest conversion for it took."""
        self._failed: dict[str, str] = {}
        self._skipped: dict[str, str] = {}
        self._waves: list[str] = []
        self._first_s: float | None = None
        self.standings: dict[str, Standing] = {}

    @property
    def made(self) -> Mapping[str, MadeVariant]:
        """The versions of the model that were made, by variant."""
        return self._versions.made

    @property
    def plan(self) -> Plan:
        """With the versions of the model that were made."""
        return self._plan

    @property
    def undecidable(self) -> dict[str, str]:
        """The ways of lower precision that are not tried, as no answers on these data could allow them, and why."""
        if self._rescore is not None or self._unlabelled is None:
            return {}
        if (why := undecidable(self._unlabelled, self._terms.limits.max_drop)) is None:
            return {}
        # What was measured in an earlier call says itself what it lost.
        lower = [n for n, c in self._candidates.items() if c.precision in LOWER and c.variant is None]
        return {n: why for n in lower if n not in self._known}

    @property
    def undecidable_notices(self) -> tuple[str, ...]:
        """What is said of the `undecidable`: that no lower precision was tried, or no further one, and why."""
        lower = {n for n, c in self._candidates.items() if c.precision in LOWER}
        further = "further " if lower & self._known else ""
        return tuple(f"No {further}lower precision was tried: {why}." for why in sorted(set(self.undecidable.values())))

    @property
    def _known(self) -> set[str]:
        """The ways that have figures, or a reason why they have none."""
        return {*self.standings, *self._failed}

    def spend(self) -> Spent:
        """Measures until the schedule ends, the minutes are over, or the user interrupts."""
        interrupted = False
        try:
            self._look()
            with Pool(self._store.logs, self._plan.settings) as pool:
                self._run_waves(pool)
        except KeyboardInterrupt:
            interrupted = True
            self._tell("interrupted: the answer is the best so far, and the same command goes on from here")
        untried = self._candidates.keys() - self.standings.keys() - self._failed.keys() - self._skipped.keys()
        reason = "interrupted before its turn" if interrupted else "the minutes were over"
        self._skipped |= dict.fromkeys(sorted(untried), reason)
        return Spent(
            self._skipped,
            self._failed,
            tuple(self._waves),
            self._clock() - self._start,
            self._first_s,
            interrupted,
        )

    def _run_waves(self, pool: Pool) -> None:
        repeated = 0
        for _ in range(MOST_WAVES):
            left_s = self._ends - self._clock()
            at_once = self._most_at_once()
            wave, skipped = next_wave(
                self._arms(),
                self.standings,
                self._failed,
                # However few the minutes are, there are first figures.
                left_s if self.standings or self._failed else max(1.0, left_s),
                floor_usd=self._floor.usd,
                worth=self._worth,
                at_once=at_once,
            )
            # Why one was not worth its time is kept where in the end there is no time for any.
            self._skipped = {s.name: s.reason for s in skipped} | ({} if wave else self._skipped) | self.undecidable
            if wave is None and repeated < MOST_AGAIN:
                wave = again(self._arms(), self.standings, self._disturbed, self._ends - self._clock())
                repeated += 1
            if wave is None:
                return
            self._run(wave, pool, at_once)

    def _most_at_once(self) -> int:
        """How many slow ways the machine has room for as of now: workers that live take some of it."""
        return most_at_once(default_threads(), free_memory_bytes(), [m.keras_file for m in self._models.values()])

    def _take_plan(self, plan: Plan) -> None:
        self._plan, self._models = plan, open_models(plan)
        specs = specs_of(plan, self._models)
        self._cell_ids = {n: {s.batch: s.cell_id for s in specs if c.has(s)} for n, c in self._candidates.items()}

    def _take(self, version: MadeVariant) -> None:
        """A version of the model that was made: its cells are among the plan's, unless it lost too much."""
        self._versions.made[version.variant] = version
        if self._versions.refused(version) is None:
            path = str(self._store.path.parent / version.folder)
            self._take_plan(self._plan.model_copy(update={"models": (*self._plan.models, path)}))

    def _floor_of(self, mhz: float | None = None) -> Floor:
        here, candidates = environment.collect(), list(self._candidates.values())
        return floor_of(self._terms, here, candidates, self._work, mhz, self.made, self._probe)

    def _look(self) -> None:
        """What the folder holds already: of this very model, on this machine."""
        self._floor = self._floor_of()
        if not self._store.exists():
            return
        run = self._of_now(self._store.load())
        for name, candidate in self._candidates.items():
            mine = [c for c in run.cells if candidate.has(c.spec)]
            if mine and all(c.status == "unsupported" for c in mine):
                self._failed[name] = f"unsupported: {mine[0].reason}"
        if self._decide_drops(self._judge(run)):
            self._judge(run)
        if self.standings:
            self._tell(f"{len(self.standings)} ways are in {self._store.path} already: going on from there")

    def _of_now(self, run: Run) -> Run:
        """The run without cells of another file of the model, other data or another environment."""
        wanted = {cell_id for cells in self._cell_ids.values() for cell_id in cells.values()}
        here = environment.collect().environment_id
        cells = tuple(c for c in run.present if c.spec.cell_id in wanted and c.environment_id == here)
        return run.model_copy(update={"cells": cells})

    def _judge(self, run: Run) -> Judged:
        candidates = list(self._candidates.values())
        judged = judge(run, self._store.read_outputs, self._terms, candidates, self.made, self.rescored)
        self._tried_ids |= {c.spec.cell_id for c in run.cells if c.rounds or c.status not in ("ok", "partial")}
        self.standings = {
            name: standing._replace(narrow=not self._tried_ids.issuperset(self._cell_ids[name].values()))
            for name, standing in standings_of(judged, self._terms, self._capacities).items()
        }
        self._failed |= {name: why for name, why in judged.refused.items() if name not in self.standings}
        self._unlabelled, self._disturbed = judged.unlabelled, frozenset(judged.invalid)
        best = leader(self.standings)
        self._step_ms = 0.0 if best is None else max(step_ms(run, self._candidates[best]).values(), default=0.0)
        if (mhz := fastest_mhz(run)) is not None:
            self._floor = self._floor_of(mhz)
        return judged

    def _arms(self) -> list[Arm]:
        left_out = self.undecidable
        return [
            arm_of(
                c,
                self._floor.by_candidate[name],
                setup_s=self._setup_s.get(c.method, c.setup_s) + self._versions.seconds_to_make(c),
                lacks_version=self._versions.lacks(c),
                step_ms=self._step_ms,
            )
            for name, c in self._candidates.items()
            if name not in left_out
        ]

    def _made_for(self, names: Sequence[str]) -> None:
        """Makes the versions that candidates run; where that fails, each candidate of the version says why."""
        lacking = [c.variant for n in names if self._versions.lacks(c := self._candidates[n])]
        for variant in filter(None, dict.fromkeys(lacking)):
            began = self._clock()
            try:
                version = self._versions.make(variant, SHARE_OF_TIME * (self._ends - began))
            except StorageError:
                raise
            except KcostError as error:
                self._tell(f"it could not be made {variant}: {error.rule}")
                self._fail(variant, " ".join(str(error).split()))
                continue
            self._take(version)
            self._waves.append(f"making it {variant}: {self._clock() - began:.0f} s")
            if (why := self._versions.refused(version)) is not None:
                self._fail(variant, why)

    def _fail(self, variant: str, why: str) -> None:
        self._failed |= {n: why for n, c in self._candidates.items() if c.variant == variant}

    def _cells_of(self, wave: Wave) -> frozenset[str]:
        """Of what is new in a narrow wave the cell at one batch size, of the others all that they have."""
        if wave.narrow and self._screened_at is None:
            self._screened_at = self._size_of_the_best()
        ids: set[str] = set()
        for name in wave.names:
            cells = self._cell_ids[name]
            is_narrow = wave.narrow and (name not in self.standings or self.standings[name].narrow)
            if is_narrow and self._screened_at in cells:
                ids.add(cells[self._screened_at])
            else:
                ids |= set(cells.values())
        return frozenset(ids)

    def _size_of_the_best(self) -> int | None:
        """The largest batch that the best so far is served at; None where none holds the p99."""
        best = leader(self.standings)
        return None if best is None else self._capacities.batch_limit(best)

    def _run(self, wave: Wave, pool: Pool, at_once: int) -> None:
        """Measures a wave into the run folder, and looks at what that brought."""
        new = [n for n in wave.names if n not in self.standings]
        self._made_for(new)
        began = self._clock()
        new = [n for n in new if n not in self._failed]
        if not (new or [n for n in wave.names if n in self.standings and wave.kind in ("widen", "final", "again")]):
            return
        self._tell(f"{KINDS[wave.kind]}: {', '.join(new or wave.names)}")
        wave = wave._replace(names=tuple(n for n in wave.names if n not in self._failed or n in self.standings))
        ids = self._cells_of(wave)
        turns = Turns(wave, self._candidates, self._look_again, lambda: self._clock() < self._ends)
        left = max(60.0, self._ends - began + 60.0)
        settings: Settings = self._plan.settings.model_copy(
            update={"timeout_s": min(self._plan.settings.timeout_s, left)}
        )
        plan = self._plan.model_copy(update={"settings": settings})
        try:
            measure(
                *(plan, self._store.path, self._on_progress, self._converted),
                only=ids,
                choose=turns.choose,
                # What the deadline leaves out would get no turn. `measure` reads the monotonic clock.
                ready_by=time.monotonic() + self._deadline(wave) - began,
                # What the saving is told against is measured whole, as the winner may be.
                even_late=self._of_plain(ids) if wave.kind == "first" else frozenset(),
                at_once=at_once if wave.kind == "try" else 1,
                pool=pool,
            )
        except StorageError:
            raise
        except KcostError as error:  # not one cell of the wave could be measured
            if isinstance(error, InputError) and not (self.standings or self._waves or self._failed):
                raise  # each of the first ways refused the input for one reason: so will the others
            self._failed |= {n: " ".join(str(error).split()) for n in new}
            if not self.standings and not new:
                raise
            if not new:  # what is known stays the answer
                self._tell(f"no more could be measured: {error.rule}")
                self._ends = self._clock()
        run = self._of_now(self._store.load())
        if self._decide_drops(self._judge(run)):
            self._judge(run)
        self._note_failures(run, new)
        seconds = self._clock() - began
        self._waves.append(f"{wave.kind}: {len(wave.names)} ways, {seconds:.0f} s")
        if wave.kind == "try":
            self._note_setup(run, new)
        self._tell_figures(run, wave)

    def _deadline(self, wave: Wave) -> float:
        """When no further cell is got ready; the first ones have a while, however few the minutes are."""
        return max(self._ends, self._start + FIRST_FIGURES_S) if wave.kind == "first" else self._ends

    def _of_plain(self, ids: frozenset[str]) -> frozenset[str]:
        plain = {i for name, c in self._candidates.items() if c.is_plain for i in self._cell_ids[name].values()}
        return ids & plain

    def _decide_drops(self, judged: Judged) -> bool:
        """Judges those on more examples whose drop is within the limit while its bound is not; whether any was.

        One that is clearly dearer than the best so far is left as it is.
        """
        limit = self._terms.limits.max_drop
        wanted = {n: more for n, d in judged.undecided.items() if (more := d.more_labels(limit)) is not None}
        open_ways = judged._replace(ways={n: w for n, w in judged.undecided_ways.items() if n not in self.rescored})
        costs = standings_of(open_ways, self._terms, self._capacities)
        best_usd = min((s.high_usd for s in self.standings.values()), default=math.inf)
        cheaper = [n for n in wanted if n in costs and costs[n].low_usd < SIZES_DIFFER * best_usd]
        open_ = [self._candidates[n] for n in cheaper if self._candidates[n].variant is None]
        if self._rescore is None or not open_ or self._ends <= self._clock():
            return False
        # Twice as many as would decide, were the shares to stay: they rarely do.
        count = min(MOST_SCORED, max(judged.undecided[c.name].count + 2 * wanted[c.name] for c in open_))
        drops = self._rescore(open_, count)
        for name, drop in drops.items():
            self.rescored[name] = drop
            self._failed.pop(name, None)
            self._tell(f"{name}: a drop of at most {drop.bound:.2%} on {drop.count:,} examples")
        return bool(drops)

    def _look_again(self) -> dict[str, Standing]:
        self._judge(self._of_now(self._store.load()))
        return self.standings

    def _note_failures(self, run: Run, new: Sequence[str]) -> None:
        """A candidate of a wave that has no standing after it is not asked for again in this call."""
        for name in new:
            if name in self.standings or name in self._failed:
                continue
            mine = [c for c in run.cells if self._candidates[name].has(c.spec)]
            reasons = sorted({f"{c.status}: {c.reason}" for c in mine if c.reason is not None})
            self._failed[name] = reasons[0] if reasons else "the minutes ended before it had its rounds"

    def _note_setup(self, run: Run, new: Sequence[str]) -> None:
        """What getting slow candidates ready took, each by itself."""
        for name in new:
            candidate = self._candidates[name]
            ready = [c.preparation for c in run.cells if candidate.has(c.spec) and c.preparation is not None]
            if name in self.standings:
                seconds = sum(p.load_s + p.first_call_s + sum(p.warmup_ns) / 1e9 for p in ready)
                self._setup_s[candidate.method] = seconds + self._conversion_s.get(candidate.method, 0.0)

    def _timed(self, converted: Converted) -> Converted:
        """The same function, which notes what a conversion took."""

        def timed(model: Model, runtime: Runtime, precision: RuntimePrecision, cache: Path) -> Path:
            began = self._clock()
            folder = converted(model, runtime, precision, cache)
            # One that is there already takes no time, and tells nothing of the next.
            self._conversion_s[runtime] = max(self._clock() - began, self._conversion_s.get(runtime, 0.0))
            return folder

        return timed

    def _tell_figures(self, run: Run, wave: Wave) -> None:
        best = leader(self.standings)
        if best is None:
            self._tell("no figures yet: " + "; ".join(f"{n}: {why}" for n, why in list(self._failed.items())[:2]))
            return
        if self._first_s is None:
            self._first_s = self._clock() - self._start
            for name in sorted(self.standings, key=lambda n: self.standings[n].value_usd):
                steps = step_ms(run, self._candidates[name])
                medians = ", ".join(f"{significant(ms)} ms at batch {b}" for b, ms in sorted(steps.items()))
                self._tell(f"  {name}: {medians}")
        usd = self.standings[best].value_usd
        horizon = f"{self._terms.assumed.horizon_days:g} days"
        if usd == math.inf:
            self._tell(f"no way holds a p99 of {self._terms.limits.p99_ms:g} ms so far")
            return
        open_ = len(contenders(self.standings)) - 1
        rivals = "" if not open_ else f"; {open_} more can still win"
        self._tell(f"best so far: {best}, about ${usd:,.0f} in {horizon}, the move to it paid{rivals}")

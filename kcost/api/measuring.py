"""Verbs on measurements: bench, self-test, compare, cost, report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcost.api.inventory import prices
from kcost.core.errors import InputError, PlanError
from kcost.core.garbage_collection import collector_paused
from kcost.core.plan import BACKENDS, CellSpec, Plan
from kcost.core.process import installed, require
from kcost.core.progress import OnProgress, silent
from kcost.core.suggestion import did_you_mean

if TYPE_CHECKING:
    from kcost.bench.self_test import SelfTest
    from kcost.bench.store import RunStore
    from kcost.core.result import Run
    from kcost.cost.machine_match import Match
    from kcost.cost.payment import Pay
    from kcost.cost.verdict import Verdict
    from kcost.report.measured_results import ShownComparison, ShownRun, ShownVerdict
    from kcost.report.program import Program


def run_bench(plan: Plan | Path | str, out: Path | str, *, on_progress: OnProgress = silent) -> ShownRun:
    """Measures a plan into a run folder; a run that is there already goes on where it stopped.

    A model is an artifact folder, a .keras file, a Hugging Face BERT folder, or `module:function` that returns a Keras
    model; the last two are built into a .keras file below the run folder first.

    Args:
        plan: a Plan, or the path of a TOML file with one.
        out: the run folder.
        on_progress: told pieces of work done, pieces in all, and what comes next.

    Raises:
        InputError: the plan or a model in it cannot be used.
        UnavailableError: a backend of the plan is not installed.

    Examples:
        >>> plan = kcost.make_plan(["digits-cnn"], backends=["torch"], phases=["inference"], settings={"rounds": 2})
        >>> run = kcost.run_bench(plan, "run")
        >>> {cell.spec.backend for cell in run.cells}
        {'torch'}
    """
    from kcost.bench.plan_models import open_models
    from kcost.bench.runner import measure
    from kcost.bench.store import RunStore
    from kcost.report.measured_results import ShownRun
    from kcost.report.notebook import shown
    from kcost.ship.build import needs_building
    from kcost.ship.convert import converted

    read = plan if isinstance(plan, Plan) else Plan.read(Path(plan))
    # What can be refused is, before a framework builds the other models.
    RunStore(out).refuse_taken()
    open_models(read.model_copy(update={"models": tuple(m for m in read.models if not needs_building(m))}))
    return shown(ShownRun, measure(_with_built_models(read, Path(out)), Path(out), on_progress, converted))


def _with_built_models(plan: Plan, out: Path) -> Plan:
    """The plan with models that have no .keras file yet built into one each, once a run folder."""
    from kcost.bench.store import BUILT_FOLDER
    from kcost.ship.build import build, needs_building

    models = []
    for source in plan.models:
        if needs_building(source):
            folder = out / BUILT_FOLDER / hashlib.sha256(source.encode()).hexdigest()[:12]
            made = next(folder.glob("*.keras"), None)
            source = str(made or build(source, folder))
        models.append(source)
    return plan.model_copy(update={"models": tuple(models)})


def run_self_test(
    plan: Plan | Path | str,
    *,
    short: bool = False,
    out: Path | str | None = None,
    on_progress: OnProgress = silent,
) -> SelfTest:
    """Measures each cell of a plan against itself, then the plan with and without busy neighbours.

    Args:
        plan: a Plan, or the path of a TOML file with one.
        short: few pairs, for continuous integration.
        out: keeps the runs and logs here; None keeps nothing.

    Raises:
        InputError: the plan or a model in it cannot be used.
        UnavailableError: a backend of the plan is not installed.
        WorkerError: a cell could not be measured: then the harness has not been tested.
    """
    from kcost.bench.self_test import FULL, SHORT, self_test

    return self_test(
        plan if isinstance(plan, Plan) else Plan.read(Path(plan)),
        form=SHORT if short else FULL,
        out=None if out is None else Path(out),
        on_progress=on_progress,
    )


def compare_runs(
    run_a: Path | str, run_b: Path | str, *, fail_if: str | None = None, allow_different: bool = False
) -> ShownComparison:
    """What changed from one run to another, cell by cell, with intervals, and whether it breaks a limit.

    Args:
        run_a, run_b: run folders.
        fail_if: such as `usd_per_million>3%`; a cell fails where the growth is above it and significant.
        allow_different: compare although the runs are of different environments.

    Raises:
        InputError: a run cannot be read, no cell is in both, a bad limit, or different environments.
        PriceError: no price for a machine.

    Examples:
        >>> kcost.compare_runs("run", "run", fail_if="usd_per_million>3%").failed
        False
    """
    from kcost.bench.compare import compare
    from kcost.report.measured_results import ShownComparison
    from kcost.report.notebook import shown

    a, b = _load(run_a)[1], _load(run_b)[1]
    book = prices().checked()
    here = {key: book.closest(env) for run in (a, b) for key, env in run.environments.items()}
    usd_per_hour = {key: match.usd_per_hour for key, match in here.items()}
    compared = compare(a, b, fail_if=fail_if, usd_per_hour=usd_per_hour, allow_different=allow_different)
    return shown(ShownComparison, compared)


def make_plan(
    what: Sequence[str], *, settings: dict[str, Any] | None = None, profile: bool = False, **axes: Any
) -> Plan:
    """A plan from one .toml file, or from models and axes; an axis or a setting that is None keeps its default.

    Args:
        profile: look into each cell after its turns, whatever a plan file says of it: no cell changes by that.

    Raises:
        PlanError: an axis that cannot be measured, or a plan file together with axes of its own.
        UnavailableError: no backend is installed.

    Examples:
        >>> plan = kcost.make_plan(["digits-cnn"], backends=["torch"], batches=[1, 32], settings={"rounds": 2})
        >>> plan.batches
        (1, 32)
    """
    given = {name: value for name, value in axes.items() if value is not None}
    chosen = {name: value for name, value in (settings or {}).items() if value is not None}
    if len(what) == 1 and what[0].endswith(".toml"):
        if given or chosen:
            raise PlanError(
                "A plan file names its own axes.",
                received=f"{what[0]} and {', '.join([*given, *chosen])}",
                remedy="Write them into the plan, or name models instead of a plan.",
            )
        plan = Plan.read(Path(what[0]))
        looking = plan.settings.model_copy(update={"profile": True})
        return plan.model_copy(update={"settings": looking}) if profile else plan
    if profile:
        chosen["profile"] = True
    document: dict[str, object] = {"models": list(what), **given}
    # A backend that is named but missing is an error; one that nobody named is left out.
    document.setdefault("backends", [b for b in BACKENDS if installed(b)] or [require(BACKENDS[0])])
    if chosen:
        document["settings"] = chosen
    return Plan.parse(document, "the command line")


@collector_paused()
def estimate_cost(
    run: Path | str,
    *,
    provider: str | None = None,
    region: str | None = None,
    instance: str | None = None,
    p99_ms: float | None = None,
    max_drop: float | None = None,
    prices_file: Path | str | None = None,
    pay: Pay = "on-demand",
) -> ShownVerdict:
    """Rankings of a run in dollars, and what follows from them.

    Args:
        run: a run folder.
        provider, region, instance: what to price; None takes the closest match to the machine, and says so.
        p99_ms: cells with a slower p99 are not ranked.
        max_drop: largest drop of the score that is allowed below float32, as a fraction; None means 0.01.
        prices_file: a price book of your own, or a prices.toml.
        pay: on-demand, spot or committed.

    Raises:
        InputError: the run cannot be read.
        PriceError: the book cannot be trusted, or has no price for what was asked.

    Examples:
        >>> verdict = kcost.estimate_cost("run", provider="aws", region="us-east-1")
        >>> verdict.rankings[0].unit
        'million predictions'
    """
    from kcost.cost.verdict import prices_for
    from kcost.report.measured_results import ShownVerdict
    from kcost.report.notebook import shown

    store, loaded = _load(run)
    matched = prices_for(loaded, prices(prices_file).checked(), provider, region, instance, pay)
    return shown(ShownVerdict, _conclude(store, loaded, matched, max_drop, p99_ms))


@collector_paused()
def make_report(run: Path | str, *, html: Path | str | None = None) -> ShownVerdict:
    """What a run says, and with `html` one self-contained page of it. Raises as `estimate_cost` does.

    Examples:
        >>> verdict = kcost.make_report("run", html="report.html")
        >>> [conclusion.model for conclusion in verdict.conclusions]
        ['digits-cnn']
    """
    from kcost.cost.verdict import prices_for
    from kcost.report.measured_results import ShownVerdict
    from kcost.report.notebook import shown

    store, loaded = _load(run)
    verdict = _conclude(store, loaded, prices_for(loaded, prices().checked()))
    if html is not None:
        from kcost.core.schema import write_bytes
        from kcost.report.page import render

        write_bytes(Path(html), render(loaded, verdict))
    return shown(ShownVerdict, verdict)


def program(run: Path | str, *, model: str | None = None, cell: str | None = None) -> Program:
    """The shortest program that runs a model as the cheapest way of it was measured, or as another cell was.

    Args:
        run: a run folder.
        model: one of the run; needed where it holds several and no cell is named.
        cell: cell_id, or the beginning of one; None takes the cheapest forward pass that may be ranked.

    Raises:
        InputError: the run holds no such model or cell, or none that may be ranked.
        ArtifactError: the model's file is gone or damaged.

    Examples:
        >>> print(kcost.program("run").text.splitlines()[0])  # doctest: +ELLIPSIS
        # digits-cnn: inference ...
    """
    from kcost.bench.conversions import CONVERTED_FOLDER
    from kcost.report.program import program_of

    store, loaded = _load(run)
    verdict = _conclude(store, loaded, _closest(loaded))
    ranked = {c.cell_id: c for r in verdict.rankings if r.phase == "inference" for c in r.cells}
    spec = _chosen_cell(loaded, verdict, model, cell)
    folder = None
    if spec.runtime is not None:
        name = f"{spec.model_sha256[:16]}-{spec.runtime}-{spec.precision}*"
        folder = next(iter(sorted((Path(run) / CONVERTED_FOLDER).glob(name))), None)
        if folder is None:
            raise InputError(
                "A cell of a runtime has its converted file in the run folder.",
                received=f"{spec.label}, without it",
                remedy="Measure it again: `kcost bench` converts it.",
            )
    file = Path(loaded.entry(spec.model).path)
    if not file.is_file():
        raise InputError(
            "A program opens the model that was measured.", f"{file}, which is gone", "Put it back where it was."
        )
    return program_of(spec, ranked.get(spec.cell_id), file, folder)


def _chosen_cell(run: Run, verdict: Verdict, model: str | None, cell: str | None) -> CellSpec:
    """The cell that was named, or the cheapest forward pass of the model."""
    specs = {c.spec.cell_id: c.spec for c in run.measured(phase="inference")}
    if cell is not None:
        named = [spec for cell_id, spec in specs.items() if cell_id.startswith(cell)]
        if len(named) != 1:
            raise InputError(
                "A measured forward pass is named by its cell_id, or the beginning of one.",
                received=f"{cell!r}, which {len(named)} cells begin with",
                remedy=f"They are: {', '.join(f'{i} ({s.model}, {s.label})' for i, s in specs.items())}.",
            )
        return named[0]
    main = [r for r in verdict.rankings if r.phase == "inference" and not r.apart]
    best = {r.model: best for r in main if (best := r.best) is not None}
    if model is None and len(best) == 1:
        model = next(iter(best))
    if model not in best:
        raise InputError(
            "A program is for a model of the run whose cheapest way is known.",
            received="no model" if model is None else repr(model),
            remedy=f"{did_you_mean(model or '', best)}Name one: {', '.join(best) or 'the run ranks none'}.",
        )
    assert model is not None  # it is among them
    return specs[best[model].cell_id]


def _closest(run: Run) -> dict[str, Match]:
    from kcost.cost.verdict import prices_for

    return prices_for(run, prices().checked())


def _load(run: Path | str) -> tuple[RunStore, Run]:
    from kcost.bench.store import RunStore

    store = RunStore(run)
    return store, store.load()


def _conclude(
    store: RunStore,
    run: Run,
    matched: dict[str, Match],
    max_drop: float | None = None,
    p99_ms: float | None = None,
) -> Verdict:
    from kcost.cost.verdict import MAX_DROP, conclude

    drop = MAX_DROP if max_drop is None else max_drop
    return conclude(run, matched, store.read_outputs, max_drop=drop, p99_ms=p99_ms, today=date.today())

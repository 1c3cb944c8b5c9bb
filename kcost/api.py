"""The verbs of kcost, one function each. Nothing in here prints, and nothing loads a framework in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcost.core import environment
from kcost.core.artifact import Artifact, Model, open_model, refuse_existing
from kcost.core.collector import collector_paused
from kcost.core.errors import PlanError
from kcost.core.keras_file import inspect_keras_file
from kcost.core.plan import BACKENDS, Backend, Plan
from kcost.core.process import chosen_backend, installed, require, run_job
from kcost.core.request import EvaluateRequest, Evaluation, Family, OptimizeRequest, TrainRequest, checked

if TYPE_CHECKING:
    from kcost.bench.compare import Comparison
    from kcost.bench.self_test import SelfTest
    from kcost.bench.store import RunStore
    from kcost.core.request import AttackReport
    from kcost.core.result import Run
    from kcost.cost.machine_match import Match
    from kcost.cost.payoff import Payoff
    from kcost.cost.price_rules import PriceCheck
    from kcost.cost.pricebook import PriceBook
    from kcost.cost.verdict import Verdict
    from kcost.data import CatalogueEntry
    from kcost.doctor import DoctorReport
    from kcost.search import SearchResult
    from kcost.serving.export import ExportReport
    from kcost.serving.huggingface import CheckpointReport

OnProgress = Callable[[int, int, str], None]
PathLike = Path | str


def silent(done: int, total: int, text: str) -> None:
    """Progress that nobody watches."""


def run_doctor(*, devices: bool = True) -> DoctorReport:
    """What is installed here, what this machine is, and what of kcost works on it.

    Args:
        devices: also start each installed backend to list its devices, a few seconds each.
    """
    from kcost.doctor import examine

    return examine(devices=devices)


def data_sets() -> list[CatalogueEntry]:
    """The data sets that kcost knows by name, with licence, size, and where each was found."""
    from kcost.data import catalogue

    return list(catalogue())


def fetch_data(name: str) -> dict[str, Path]:
    """The files of a known data set by part, downloaded and checked where they are not here yet.

    Raises:
        DataError: the name is unknown, or a file is neither here nor to be had; it says which to put where.
    """
    from kcost.data import fetch

    return fetch(name)


def train(
    family: Family,
    data: str,
    out: PathLike,
    *,
    name: str | None = None,
    backend: Backend | None = None,
    **settings: Any,
) -> Artifact:
    """Trains a cnn or a bert in a worker process and writes an artifact folder.

    Args:
        family: `cnn` for images, `bert` for tagged sentences.
        data: name of a data set, or a path.
        out: the folder to make; new or empty.
        name: name of the model; made of data, family and size where it is None.
        backend: None takes KERAS_BACKEND, else the first backend that is installed.
        settings: further fields of `kcost.core.request.TrainRequest`.

    Raises:
        InputError: a setting outside its range, or data that cannot be read.
        UnavailableError: the backend is not installed.
        StorageError: `out` is there already, or cannot be written to.
    """
    chosen = require(backend) if backend else chosen_backend()
    name = name or "-".join(filter(None, (Path(data).name, family, settings.get("size"))))
    match = prices().closest(environment.collect())
    values = {
        "family": family,
        "data": data,
        "out": Path(out).absolute(),
        "name": name,
        "usd_per_hour": match.price.on_demand_usd_per_hour * match.share,
        "usd_basis": match.why,
        **settings,
    }
    request = checked(TrainRequest, values)
    _refuse_before_training(data, Path(out))
    answer = run_job("train", chosen, request.model_dump(mode="json"))
    return Artifact.model_validate(answer["artifact"])


def _refuse_before_training(data: str, out: Path) -> None:
    """Raises what can be told of without a framework: no such data, or an output folder that is taken."""
    from kcost.data import refuse_unknown

    refuse_unknown(data)
    refuse_existing(out)


def _refuse_before_scoring(model: Model, data: str | None, backend: Backend) -> None:
    """Raises what can be told of without a framework: a model that is never loaded, data that are not there."""
    from kcost.data import chosen

    chosen(model, data)
    if backend in BACKENDS:
        inspect_keras_file(model.keras_file)


def evaluate(
    model: PathLike,
    *,
    data: str | None = None,
    backend: Backend | None = None,
    output: str | None = None,
    task: str | None = None,
    threshold: float | None = None,
    **settings: Any,
) -> Evaluation:
    """Scores of a model on the test split of a data set, by default the one that it was trained on, and by class.

    Args:
        output, task, threshold: the output that labels are of, its kind (`kcost.core.answer.Kind`), and above what it
            is a yes; None takes them from the file, the layers and the labels. The answer tells what it was taken as.
        settings: limit, batch_size, auroc.

    Raises:
        InputError: the model and the data do not fit together.
        GateError: the model answers with numbers that are not finite.
        UnavailableError: the backend is not installed.
    """
    chosen = require(backend) if backend else chosen_backend()
    choice = {"output": output, "kind": task, "threshold": threshold}
    request = checked(
        EvaluateRequest, {"model": Path(model).absolute(), "data": data, "answer": choice, **settings}
    )
    _refuse_before_scoring(open_model(model), data, chosen)
    answer = run_job("evaluate", chosen, request.model_dump(mode="json"))
    return Evaluation.model_validate(answer)


def run_bench(plan: Plan | PathLike, out: PathLike, *, on_progress: OnProgress = silent) -> Run:
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
    """
    from kcost.bench.runner import measure, open_models
    from kcost.bench.store import RunStore
    from kcost.serving.build import needs_building
    from kcost.serving.convert import converted

    read = plan if isinstance(plan, Plan) else Plan.read(Path(plan))
    # What can be refused is, before a framework builds the other models.
    RunStore(out).refuse_taken()
    open_models(read.model_copy(update={"models": tuple(m for m in read.models if not needs_building(m))}))
    return measure(_with_built_models(read, Path(out)), Path(out), on_progress, converted)


def _with_built_models(plan: Plan, out: Path) -> Plan:
    """The plan with models that have no .keras file yet built into one each, once a run folder."""
    from kcost.bench.store import BUILT_FOLDER
    from kcost.serving.build import build, needs_building

    models = []
    for source in plan.models:
        if needs_building(source):
            folder = out / BUILT_FOLDER / hashlib.sha256(source.encode()).hexdigest()[:12]
            made = next(folder.glob("*.keras"), None)
            source = str(made or build(source, folder))
        models.append(source)
    return plan.model_copy(update={"models": tuple(models)})


def attack(
    model: PathLike,
    epsilons: Sequence[float],
    *,
    method: str = "fgsm",
    data: str | None = None,
    backend: Backend | None = None,
    **settings: Any,
) -> AttackReport:
    """Scores of a model on test examples that were changed by an attacker who knows its weights.

    Args:
        model: an artifact folder or a .keras file.
        epsilons: sizes of the change: of each value of an image in [0, 1], or the Euclidean length over the embedded
            tokens of a text. 0, the clean examples, is always scored too.
        method: `fgsm` (one step) or `pgd` (several, from a random start).
        data: None takes the data set that the model was trained on.
        settings: limit, pixels, steps, batch_size, seed.

    Raises:
        InputError: a setting outside its range, or data that do not fit the model.
        UnavailableError: the model has no place to attack it at.
    """
    from kcost.core.request import AttackReport, AttackRequest

    chosen = require(backend) if backend else chosen_backend()
    given = {"model": Path(model).absolute(), "data": data, "epsilons": tuple(epsilons), "attack": method, **settings}
    request = checked(AttackRequest, given)
    _refuse_before_scoring(open_model(model), data, chosen)
    answer = run_job("robustness", chosen, request.model_dump(mode="json"))
    return AttackReport.model_validate(answer)


def run_search(
    family: Family,
    data: str,
    out: PathLike,
    *,
    backend: Backend | None = None,
    html: PathLike | None = None,
    on_progress: OnProgress = silent,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> SearchResult:
    """Searches hyperparameters: the score on validation data against predicted dollars.

    Args:
        out: folder of the study; one that is there goes on.
        html: also write one self-contained page here.
        options: further fields of `kcost.search.SearchRequest`, such as trials, minutes, objective, storage.
        settings: fields of TrainRequest; one that is given is fixed, the others are searched or at their default.

    Raises:
        InputError: an option outside its range, or a study that was begun with others.
        UnavailableError: the backend or optuna is not installed.
    """
    from kcost.data import refuse_unknown
    from kcost.search import SearchRequest, search

    chosen = require(backend) if backend else chosen_backend()
    values = {
        "family": family,
        "data": data,
        "out": Path(out).absolute(),
        "backend": chosen,
        "settings": {name: value for name, value in settings.items() if value is not None},
        **{name: value for name, value in (options or {}).items() if value is not None},
    }
    request = checked(SearchRequest, values)
    refuse_unknown(data)
    result = search(request, on_progress)
    if html is not None:
        from kcost.core.schema import write_bytes
        from kcost.report.search_page import render_search

        write_bytes(Path(html), render_search(result))
    return result


def run_optimize(
    model: PathLike,
    out: PathLike,
    *,
    max_drop: float = 0.01,
    backend: Backend | None = None,
    name: str | None = None,
    batches: Sequence[int] = (1, 32),
    threads: int = 0,
    rounds: int = 10,
    output: str | None = None,
    task: str | None = None,
    threshold: float | None = None,
    on_progress: OnProgress = silent,
    **settings: Any,
) -> Payoff:
    """Prunes and quantizes a model, measures it before and after on one backend, and says whether it paid.

    Args:
        model: an artifact folder or a .keras file.
        out: the artifact folder to make; `<out>-refused` where the score may have dropped by more than `max_drop`.
        max_drop: held against the one-sided 95% bound of the drop, as a fraction of 1.
        name: of the new model; made of the old one's and what was done where it is None.
        batches, threads, rounds: how both are measured.
        output, task, threshold: as of `evaluate`.
        settings: further fields of `kcost.core.request.OptimizeRequest`: prune, quantize, data, skip, epochs, ...

    Raises:
        InputError: a setting outside its range, nothing to do, or data that do not fit the model.
        UnavailableError: the backend is not installed.
        StorageError: `out` is there already, or cannot be written to.
    """
    from kcost.optimization import optimize, refused_folder

    chosen = require(backend) if backend else chosen_backend()
    opened = open_model(model)
    match = prices().closest(environment.collect())
    kept = {key: value for key, value in settings.items() if value is not None}
    values = {
        "model": Path(model).absolute(),
        "out": Path(out).absolute(),
        "name": name or "-".join(filter(None, (opened.name, *_done(kept)))),
        "usd_per_hour": match.price.on_demand_usd_per_hour * match.share,
        "usd_basis": match.why,
        "answer": {"output": output, "kind": task, "threshold": threshold},
        **kept,
    }
    plan = {"batches": list(batches), "threads": threads, "settings": {"rounds": rounds}}
    request = checked(OptimizeRequest, values)
    _refuse_before_scoring(opened, request.data, chosen)
    for folder in (request.out, refused_folder(request.out)):
        refuse_existing(folder)
    return optimize(request, chosen, match, max_drop, plan, on_progress)


def _done(settings: dict[str, Any]) -> list[str]:
    """What is done to a model, for its name."""
    mode = settings.get("quantize")
    return ["pruned"] * ("prune" in settings) + ([mode if mode == "bfloat16" else "int8"] if mode else [])


def run_self_test(
    plan: Plan | PathLike,
    *,
    short: bool = False,
    out: PathLike | None = None,
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
    run_a: PathLike, run_b: PathLike, *, fail_if: str | None = None, allow_different: bool = False
) -> Comparison:
    """What changed from one run to another, cell by cell, with intervals, and whether it breaks a limit.

    Args:
        run_a, run_b: run folders.
        fail_if: such as `usd_per_million>3%`; a cell fails where the growth is above it and significant.
        allow_different: compare although the runs are of different environments.

    Raises:
        InputError: a run cannot be read, no cell is in both, a bad limit, or different environments.
        PriceError: no price for a machine.
    """
    from kcost.bench.compare import compare

    a, b = _load(run_a)[1], _load(run_b)[1]
    book = prices().checked()
    here = {key: book.closest(env) for run in (a, b) for key, env in run.environments.items()}
    usd_per_hour = {key: match.price.on_demand_usd_per_hour * match.share for key, match in here.items()}
    return compare(a, b, fail_if=fail_if, usd_per_hour=usd_per_hour, allow_different=allow_different)


def make_plan(
    what: Sequence[str], *, settings: dict[str, Any] | None = None, profile: bool = False, **axes: Any
) -> Plan:
    """A plan from one .toml file, or from models and axes; an axis or a setting that is None keeps its default.

    Args:
        profile: look into each cell after its turns, whatever a plan file says of it: no cell changes by that.

    Raises:
        PlanError: an axis that cannot be measured, or a plan file together with axes of its own.
        UnavailableError: no backend is installed.
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
    run: PathLike,
    *,
    provider: str | None = None,
    region: str | None = None,
    instance: str | None = None,
    p99_ms: float | None = None,
    max_drop: float | None = None,
    prices_file: PathLike | None = None,
) -> Verdict:
    """Rankings of a run in dollars, and what follows from them.

    Args:
        run: a run folder.
        provider, region, instance: what to price; None takes the closest match to the machine, and says so.
        p99_ms: cells with a slower p99 are not ranked.
        max_drop: largest drop of the score that is allowed below float32, as a fraction; None means 0.01.
        prices_file: a price book of your own.

    Raises:
        InputError: the run cannot be read.
        PriceError: the book cannot be trusted, or has no price for what was asked.
    """
    from kcost.cost.verdict import prices_for

    store, loaded = _load(run)
    matched = prices_for(loaded, prices(prices_file).checked(), provider, region, instance)
    return _conclude(store, loaded, matched, max_drop, p99_ms)


@collector_paused()
def make_report(run: PathLike, *, html: PathLike | None = None) -> Verdict:
    """What a run says, and with `html` one self-contained page of it. Raises as `estimate_cost` does."""
    from kcost.cost.verdict import prices_for

    store, loaded = _load(run)
    verdict = _conclude(store, loaded, prices_for(loaded, prices().checked()))
    if html is not None:
        from kcost.core.schema import write_bytes
        from kcost.report.page import render

        write_bytes(Path(html), render(loaded, verdict))
    return verdict


def _load(run: PathLike) -> tuple[RunStore, Run]:
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
    return conclude(run, matched, store.read_outputs, max_drop=drop, p99_ms=p99_ms)


def prices(file: PathLike | None = None) -> PriceBook:
    """The price book in the package, or one of your own. Raises PriceError for one that cannot be read."""
    from kcost.cost.pricebook import PriceBook

    return PriceBook.read(None if file is None else Path(file))


def check_prices(file: PathLike | None = None) -> PriceCheck:
    """Every problem of a price book, and what to look at again. Raises PriceError for one that is no price book."""
    from kcost.cost.price_rules import PriceCheck

    book = prices(file)
    found, doubtful = tuple(book.check()), tuple(book.warnings())
    return PriceCheck(name=book.name, rows=len(book.prices), problems=found, warnings=doubtful)


def export(model: PathLike, out: PathLike, *, name: str, version: int = 1, portable: bool = False) -> ExportReport:
    """Writes a TensorFlow Serving model base path and checks it with TensorFlow's own C++ loader.

    Args:
        portable: keep to public operations, for a server of another build or CPU; int8 blocks are slower then.

    Raises:
        UnavailableError: tensorflow is not installed.
        GateError: the saved model does not answer as the artifact does. Nothing is left behind.
        StorageError: the version is there already, or the folder cannot be written to.
    """
    from kcost.serving.export import export as export_model

    opened = open_model(model)
    inspect_keras_file(opened.keras_file)
    return export_model(opened, Path(out), name, version, portable=portable)


def export_huggingface(model: PathLike, out: PathLike) -> CheckpointReport:
    """Writes a trained bert as a Hugging Face folder that transformers loads.

    Raises:
        ArtifactError: the model is no bert that kcost trained.
        StorageError: `out` holds something already, or cannot be written to.
    """
    from kcost.serving.huggingface import export_checkpoint

    return export_checkpoint(open_model(model), Path(out))

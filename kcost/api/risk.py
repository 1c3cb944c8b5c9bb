"""The verb on risk: predictions once in a worker, then figures of the stored file, then the user's gates."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcost.api.refusals import refuse_before_scoring
from kcost.core import schema
from kcost.core.artifact import Model, open_model, refuse_unwritable
from kcost.core.errors import InputError, SchemaError, StorageError, UnavailableError
from kcost.core.jobs import PREDICT
from kcost.core.plan import Backend
from kcost.core.predictions import Predictions, read_predictions
from kcost.core.process import chosen_backend, require, run_job
from kcost.core.request import PredictRequest, checked

if TYPE_CHECKING:
    from kcost.data import DataSet
    from kcost.report.derived_results import ShownRisk
    from kcost.risk.decide import Measured
    from kcost.risk.figures import Figure
    from kcost.risk.gates import Gates
    from kcost.risk.report import RiskReport

PREDICTIONS_FILE = "predictions-{backend}.npz"
REPORT_FILE = "risk.json"
CARD_FILE = "card.md"
MIB = 1 << 20


def assess_risk(
    model: Path | str,
    *,
    data: str | None = None,
    gates: Path | str | None = None,
    against: Path | str | None = None,
    columns: Path | str | None = None,
    run: Path | str | None = None,
    backend: Backend | None = None,
    out: Path | str | None = None,
    target_error: float | None = None,
    output: str | None = None,
    task: str | None = None,
    threshold: float | None = None,
    write: bool = True,
    **settings: Any,
) -> ShownRisk:
    """How far a classifier or a tagger can be trusted, from its answers on all splits of a data set.

    Predictions are made once in a worker and stored; the same model on the same data is not predicted again.

    Args:
        model: an artifact folder or a .keras file.
        data: None takes the data set that the model was trained on.
        gates: a TOML file of limits, as `kcost.risk.gates.Gates` has them; None asks for no verdict.
        against: another model of the same task, such as before it was made cheaper: which examples flip.
        columns: a CSV file with a row for each test example: further slices, and groups that are compared.
        run: a run folder of `kcost bench` with this model: evidence for limits on time, dollars and memory.
        out: folder of the stored predictions and of risk.json; None takes `risk` in an artifact folder, or
            `NAME-risk` beside a file.
        target_error: the error, of 1, for which a threshold of abstention is looked for.
        output, task, threshold: as of `kcost.evaluate`.
        write: False writes no risk.json.
        settings: limit, pixels, batch_size, train_examples.

    Raises:
        InputError: the model and the data do not fit together, the model answers with no classes, or bad gates.
        GateError: the model answers with numbers that are not finite.
        UnavailableError: the backend is not installed.
        StorageError: `out` cannot be written to.

    Examples:
        >>> report = kcost.assess_risk("digits-cnn", limit=100, backend="torch")
        >>> report.calibration.error.low <= report.calibration.error.value <= report.calibration.error.high
        True
    """
    from kcost.api.risk_data import columns_of, leakage_of, personal_data_of, read_columns
    from kcost.report.derived_results import ShownRisk
    from kcost.report.notebook import shown
    from kcost.risk.decide import decide
    from kcost.risk.report import Evidence, Surroundings, assess

    if target_error is not None and not 0 < target_error < 1:
        raise InputError("A target error lies between 0 and 1.", target_error, "Give a share such as 0.02.")
    limits = None if gates is None else read_gates(Path(gates))
    chosen = require(backend) if backend else chosen_backend()
    opened = open_model(model)
    folder = _folder(opened) if out is None else Path(out)
    choice = {"output": output, "kind": task, "threshold": threshold}
    values = {"model": Path(model).absolute(), "data": data, "answer": choice, **settings}
    request = checked(PredictRequest, {**values, "file": _file(folder, chosen)})
    refuse_before_scoring(opened, data, chosen)
    read = _load(opened, data, request.limit)
    given = {} if columns is None else read_columns(Path(columns), len(_test_of(read)))
    refuse_unwritable(folder)
    predictions = _predicted(opened, read, request, chosen)
    before = None
    if against is not None:
        other = open_model(against)
        own = request.model_copy(update={"model": Path(against).absolute(), "file": _file(_folder(other), chosen)})
        named = own.model_copy(update={"data": data or _named(opened)})
        before = (other.name, _predicted(other, read, named, chosen))
        _refuse_others(opened, predictions, other, before[1])
    around = Surroundings(
        columns={**columns_of(read, predictions), **given},
        groups=tuple(given),
        before=before,
        leakage=leakage_of(read),
        personal_data=personal_data_of(read),
    )
    paths = {"gates": gates, "against": against, "columns": columns, "run": run}
    options = {
        "data": None if data is None else _place(data),
        **{name: None if path is None else str(Path(path).absolute()) for name, path in paths.items()},
        "backend": chosen,
        "target_error": target_error,
        "output": output,
        "task": task,
        "threshold": threshold,
        **settings,
    }
    options = {name: value for name, value in options.items() if value is not None}
    assert predictions.sha256 is not None
    evidence = Evidence(
        predictions_file=request.file.name,
        predictions_sha256=predictions.sha256,
        model_sha256=opened.sha256,
        backend=chosen,
        dataset=predictions.header.dataset,
        trained_on_these=_trained_on(opened, read),
        command=_command(model, options),
        options=options,
    )
    report = assess(predictions, evidence, around, limits, target_error)
    if limits is not None:
        report = decide(report, limits, _measured(limits, request, chosen, run, opened))
    if write:
        schema.write(folder / REPORT_FILE, report)
    return shown(ShownRisk, report)


def predict_and_store(
    model: Path | str, *, data: str | None, backend: Backend | None, limit: int | None, **settings: Any
) -> tuple[Model, DataSet, Predictions]:
    """A model, the data, and its predictions of them: stored where `assess_risk` has them, and made once for both.

    Raises:
        InputError: the model and the data do not fit together, or the model answers with no classes.
        UnavailableError: the backend is not installed.
    """
    chosen = require(backend) if backend else chosen_backend()
    opened = open_model(model)
    values = {"model": Path(model).absolute(), "data": data, "limit": limit, **settings}
    request = checked(PredictRequest, {**values, "file": _file(_folder(opened), chosen)})
    refuse_before_scoring(opened, data, chosen)
    read = _load(opened, data, limit)
    return opened, read, _predicted(opened, read, request, chosen)


def write_card(model: Path | str, out: Path | str | None = None, *, risk: Path | str | None = None) -> Path:
    """Writes the model card of a risk report that is there: Markdown with the metadata that Hugging Face reads.

    Args:
        model: an artifact folder or a .keras file of which `assess_risk` wrote a report.
        out: the file to make; None takes `card.md` beside the report.
        risk: the folder of the report, where it was given another.

    Raises:
        InputError: there is no report of this model.
        StorageError: the file is there already, or cannot be written.
    """
    from kcost.risk.card import render_card

    opened = open_model(model)
    folder = _folder(opened) if risk is None else Path(risk)
    path = folder / CARD_FILE if out is None else Path(out)
    if path.exists():
        raise StorageError(
            "kcost overwrites no card: a person may have written in it.", path, "Name another file with --out."
        )
    schema.write_bytes(path, render_card(_report_of(opened, folder), opened.artifact).text.encode())
    return path


def verify_card(
    model: Path | str, card: Path | str | None = None, *, risk: Path | str | None = None
) -> tuple[str, ...]:
    """Takes every figure of a card anew from the stored predictions and the data; what differs, empty for nothing.

    Predictions that are gone, or are of another model, are made again.

    Args:
        card: the file; None takes `card.md` beside the report.
        risk: the folder of the report, where it was given another.

    Raises:
        InputError: there is no card or no report of this model.
    """
    from kcost.risk.card import differences, render_card

    opened = open_model(model)
    folder = _folder(opened) if risk is None else Path(risk)
    path = folder / CARD_FILE if card is None else Path(card)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = f"Write it: kcost card {model}"
        raise InputError("A card that is verified is there.", f"{path}: {error}", remedy) from error
    options: dict[str, Any] = dict(_report_of(opened, folder).evidence.options)
    again = assess_risk(model, out=folder, write=False, **options)
    return tuple(differences(text, render_card(again, opened.artifact)))


def _report_of(model: Model, folder: Path) -> RiskReport:
    from kcost.risk.report import RiskReport

    try:
        return schema.read("risk", folder / REPORT_FILE, RiskReport)
    except FileNotFoundError as error:
        raise InputError(
            "A card is of a risk report.",
            received=f"{folder} without {REPORT_FILE}",
            remedy="Make one first with kcost risk, or name its folder with --risk.",
        ) from error


def _place(data: str) -> str:
    """Data by a name as they are, by a path as it is from everywhere."""
    from kcost.data.known import SOURCES

    return data if data in SOURCES else str(Path(data).absolute())


def _trained_on(model: Model, read: DataSet) -> bool | None:
    record = None if model.artifact is None else model.artifact.dataset
    return None if record is None else record.splits.get("train") == read.record.splits["train"]


def read_gates(path: Path) -> Gates:
    """The limits of a gates.toml.

    Raises:
        InputError: the file cannot be read, or is no list of limits.
    """
    from kcost.risk.gates import parse_gates

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("Gates are a TOML file of limits.", f"{path}: {error}", "Give another --gates.") from error
    return parse_gates(text, str(path))


def _folder(model: Model) -> Path:
    if model.artifact is not None:
        return model.keras_file.parent / "risk"
    return model.keras_file.with_name(f"{model.keras_file.stem}-risk")


def _file(folder: Path, backend: Backend) -> Path:
    return folder.absolute() / PREDICTIONS_FILE.format(backend=backend)


def _load(model: Model, named: str | None, limit: int | None) -> DataSet:
    from kcost import data

    return data.load(data.chosen(model, named), limit=limit)


def _named(model: Model) -> str:
    from kcost import data

    return data.chosen(model, None)


def _test_of(read: DataSet) -> Any:
    return read.splits["test"]


def _predicted(model: Model, read: DataSet, request: PredictRequest, backend: Backend) -> Predictions:
    """Predictions of this very model on these very data: the stored ones, else a worker's."""
    file, wanted = request.file, (request.answer, request.pixels, request.train_examples)
    try:
        stored = read_predictions(file)
    except (FileNotFoundError, SchemaError):
        stored = None
    if stored is not None:
        header = stored.header
        same = header.model_sha256 == model.sha256 and header.dataset.splits == read.record.splits
        if same and (header.choice, header.pixels, header.train_examples) == wanted:
            return stored
    file.parent.mkdir(parents=True, exist_ok=True)
    run_job(PREDICT, backend, request)
    return read_predictions(file)


def _refuse_others(model: Model, mine: Predictions, other: Model, theirs: Predictions) -> None:
    if mine.header.label_names != theirs.header.label_names or mine.header.unit != theirs.header.unit:
        raise InputError(
            "Models that are held against each other answer with the same classes.",
            received=f"{model.name} with {', '.join(mine.header.label_names)}; {other.name} with "
            f"{', '.join(theirs.header.label_names)}",
            remedy="Name a model of the same task with --against.",
        )


def _measured(
    gates: Gates, request: PredictRequest, backend: Backend, run: Path | str | None, model: Model
) -> Measured:
    """Evidence that limits ask for and that is no prediction: an attack, and the cheapest cell of a run."""
    from kcost.risk.decide import Measured

    attack: dict[str, Any] = {}
    if gates.min_attacked_score is not None:
        try:
            attack = {"attacked": _attacked(request, backend, gates.attack_epsilon)}
        except UnavailableError as error:  # this gate has no evidence then; the others have theirs
            attack = {"not_attacked_because": error.rule}
    if run is None:
        return Measured.model_validate(attack)
    from kcost.api.measuring import estimate_cost
    from kcost.risk.figures import Figure

    ranked = [r for r in estimate_cost(run).rankings if r.phase == "inference" and r.model == model.name]
    best = [cell for r in ranked for cell in r.cells if cell.rank == 1]
    if not best:
        raise InputError(
            "A run is evidence for a model that it ranks.",
            received=f"{run}, and the model {model.name}",
            remedy="Measure it with kcost bench, inference among the phases, and name that run with --run.",
        )
    cell = min(best, key=lambda c: c.cost.usd)
    usd = Figure(
        name="usd_per_million",
        value=cell.cost.usd,
        low=cell.cost.low,
        high=float("inf") if cell.cost.high is None else cell.cost.high,
        count=cell.rounds,
        unit="rounds",
    )
    tail = cell.tail if cell.tail is not None and cell.tail.name == "p99" else None
    p99 = None
    if tail is not None:
        p99 = Figure(name="p99_ms", value=tail.ms, low=tail.low_ms, high=tail.high_ms, count=cell.steps, unit="steps")
    memory = None if cell.peak_bytes is None else cell.peak_bytes / MIB
    return Measured(**attack, p99_ms=p99, usd_per_million=usd, memory_mib=memory)


def _attacked(request: PredictRequest, backend: Backend, epsilon: float) -> Figure:
    from kcost.core.jobs import ROBUSTNESS
    from kcost.core.request import AttackRequest
    from kcost.risk.figures import Figure

    attack = AttackRequest(
        model=request.model, data=request.data, pixels=request.pixels, limit=request.limit, epsilons=(epsilon,)
    )
    score = run_job(ROBUSTNESS, backend, attack).results[-1].scores[0]
    return Figure(
        name=f"{score.name}_attacked",
        value=score.value,
        low=score.low,
        high=score.high,
        count=score.count,
        unit=score.unit,
    )


def _command(model: Path | str, options: dict[str, object]) -> str:
    # Files by their names alone: the same card comes out wherever they lie.
    plain = {name: Path(str(v)).name if str(v).startswith("/") else v for name, v in options.items() if v is not None}
    given = [f"--{name.replace('_', '-')} {shlex.quote(str(v))}" for name, v in plain.items()]
    return " ".join(["kcost risk", shlex.quote(Path(model).resolve().name), *given])

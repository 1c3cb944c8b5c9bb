"""What a model answers, made once by a worker and stored: what `assess_risk` and others take their figures from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kcost.api.refusals import refuse_before_scoring
from kcost.core import schema
from kcost.core.artifact import Artifact, Dataset, Model, open_model
from kcost.core.conversion import OutputTemperature
from kcost.core.errors import InputError, SchemaError
from kcost.core.jobs import CORRUPT, OOD, PREDICT
from kcost.core.ood_scores import OodScoresHeader, read_ood_scores
from kcost.core.plan import Backend
from kcost.core.predictions import Predictions, PredictionsHeader, read_predictions
from kcost.core.process import chosen_backend, require, run_job
from kcost.core.request import ATTACKED, CLEAN, CorruptRequest, OodRequest, PredictRequest, checked

if TYPE_CHECKING:
    from kcost.data import DataSet
    from kcost.risk.out_of_distribution import OutOfDistribution
    from kcost.risk.report import RiskReport
    from kcost.risk.robustness import Robustness
    from kcost.risk.seeds import Seeds

REPORT_FILE = "risk.json"
PREDICTIONS_FILE = "predictions-{backend}.npz"
CORRUPTED_FILE = "corrupted-{backend}.npz"
OOD_SCORES_FILE = "ood-{backend}.npz"
SEED_FREE = frozenset({"seed", "name", "tensorboard", "epochs"})
"""Settings in which trainings of other seeds may differ: `epochs` is how many there were until it stopped."""


def folder_of(model: Model) -> Path:
    """Where the predictions and the report of a model lie: `risk` in its artifact folder, or `NAME-risk` beside it."""
    if model.artifact is not None:
        return model.keras_file.parent / "risk"
    return model.keras_file.with_name(f"{model.keras_file.stem}-risk")


def file_of(folder: Path, backend: Backend) -> Path:
    """The file of predictions in such a folder, absolute."""
    return folder.absolute() / PREDICTIONS_FILE.format(backend=backend)


def report_of(model: Model, folder: Path) -> RiskReport:
    """The risk report in a folder.

    Raises:
        InputError: there is none.
        SchemaError: it is damaged, or of a newer schema.
    """
    from kcost.risk.report import RiskReport

    try:
        return schema.read("risk", folder / REPORT_FILE, RiskReport)
    except FileNotFoundError as error:
        raise InputError(
            f"A risk report of {model.name} is there.",
            received=f"{folder} without {REPORT_FILE}",
            remedy="Make one first with kcost risk, or name its folder with --risk.",
        ) from error


def temperature_of(model: Model, risk: Path | str | None = None) -> OutputTemperature:
    """The temperature that a risk report has for the probabilities of a model.

    Args:
        risk: the folder of the report, where it was given another.

    Raises:
        InputError: there is no report of this very model, or no temperature does best.
    """
    folder = folder_of(model) if risk is None else Path(risk)
    report = report_of(model, folder)
    if report.evidence.model_sha256 != model.sha256 or report.answer is None:
        raise InputError(
            "A temperature is that of the very model.",
            received=f"{folder / REPORT_FILE} of another file, with SHA-256 {report.evidence.model_sha256[:12]}...",
            remedy="Make the report again with kcost risk.",
        )
    if report.temperature.no_optimum:
        raise InputError(
            "A temperature was fitted where one does best.",
            received=f"{model.name}, with none that does best on {report.temperature.examples:,} validation examples",
            remedy="Leave --calibrated out, or make the report on more validation examples.",
        )
    return OutputTemperature.model_validate(
        {
            "value": report.temperature.value,
            "place": report.place,
            "kind": report.answer.kind,
            "logits": report.answer.logits,
        }
    )


def load_for(model: Model, named: str | None, limit: int | None) -> DataSet:
    """The data set that is named, or else that the model's artifact names."""
    from kcost import data

    return data.load(data.chosen(model, named), limit=limit)


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
    request = checked(PredictRequest, {**values, "file": file_of(folder_of(opened), chosen)})
    refuse_before_scoring(opened, data, chosen)
    read = load_for(opened, data, limit)
    return opened, read, predicted(opened, read, request, chosen)


def predicted(
    model: Model, read: DataSet, request: PredictRequest, backend: Backend, *, quiet: bool = True
) -> Predictions:
    """Predictions of this very model on these very data: the stored ones, else a worker's.

    Args:
        quiet: False has the worker tell its progress on standard error.
    """
    file = request.file
    stored = _stored_predictions(file)
    if (
        stored is not None
        and stored.header.answer is not None
        and stored.header.train_examples == request.train_examples
        and _is_of(stored.header, model, read, request)
    ):
        return stored
    file.parent.mkdir(parents=True, exist_ok=True)
    run_job(PREDICT, backend, request, quiet=quiet)
    return read_predictions(file)


def robustness_of(
    model: Model, read: DataSet, request: PredictRequest, backend: Backend, examples: int, *, quiet: bool
) -> Robustness | None:
    """The scores under each change of the test examples; None for data of whole numbers, which no change is known for.

    Args:
        examples: most test examples, 10 at least.
        quiet: as of `predicted`.
    """
    from kcost.data.corruptions import conditions_for
    from kcost.risk.robustness import robustness

    file = request.file.with_name(CORRUPTED_FILE.format(backend=backend))
    shared = request.model_dump(include={"model", "data", "pixels", "limit", "batch_size", "answer"})
    corrupt = checked(CorruptRequest, {**shared, "examples": examples, "file": file})
    stored = _stored_predictions(file)
    if stored is not None:
        clean, names = stored.splits.get(CLEAN), set(stored.splits)
        every = clean is not None and len(clean) == min(examples, len(read.splits["test"]))
        every = every and names - set(ATTACKED) == {CLEAN, *conditions_for(read)}
        every = every and (bool(stored.header.notes) or set(ATTACKED) <= names)
        if not every or not _is_of(stored.header, model, read, request):
            stored = None
    if stored is None:
        run_job(CORRUPT, backend, corrupt, quiet=quiet)
        stored = read_predictions(file)
    return robustness(stored, CLEAN, frozenset(ATTACKED), file.name)


def ood_of(
    model: Model, read: DataSet, request: PredictRequest, backend: Backend, other: str, *, quiet: bool
) -> OutOfDistribution:
    """How well the model tells the test examples of other data from its own.

    Args:
        other: name or path of the other data.
        quiet: as of `predicted`.

    Raises:
        InputError: they are of another kind or shape.
    """
    from kcost import data
    from kcost.risk.out_of_distribution import ood_detection

    file = request.file.with_name(OOD_SCORES_FILE.format(backend=backend))
    shared = request.model_dump(include={"model", "data", "pixels", "limit", "batch_size", "answer"})
    named = data.load(other, limit=request.limit)
    try:
        stored = read_ood_scores(file)
        same = _is_of(stored.header, model, read, request) and stored.header.other.splits == named.record.splits
    except (FileNotFoundError, SchemaError):
        same = False
    if not same:
        run_job(OOD, backend, checked(OodRequest, {**shared, "other": other, "file": file}), quiet=quiet)
        stored = read_ood_scores(file)
    return ood_detection(stored, file.name)


class Trained(NamedTuple):
    """A model that was trained with a seed."""

    model: Model
    about: Artifact
    seed: int


def refuse_other_settings(model: Model, others: Sequence[Path]) -> tuple[Trained, ...]:
    """The model and others that were trained as it was, with seeds of their own; the model first.

    Raises:
        InputError: one of them is no artifact of a training, was trained with other settings or data, or has the seed
            of another one.
    """
    rule = "The spread between seeds is of trainings that differ in their seed alone."
    each = [_trained(opened) for opened in (model, *map(open_model, others))]
    first = each[0]
    for one in each[1:]:
        mine, theirs = _settings_of(first), _settings_of(one)
        differing = sorted(n for n in mine.keys() | theirs.keys() if mine.get(n) != theirs.get(n))
        if differing:
            name = differing[0]
            raise InputError(
                rule,
                f"{one.model.name} with {name} {theirs.get(name)}, {first.model.name} with {mine.get(name)}",
                "Train it again with the same settings and another --seed.",
            )
    twice = next((one for i, one in enumerate(each) if one.seed in {e.seed for e in each[:i]}), None)
    if twice is not None:
        raise InputError(rule, f"{twice.model.keras_file.parent} with the seed {twice.seed} again", "Give each once.")
    return tuple(each)


def seeds_between(
    trained: Sequence[Trained],
    read: DataSet,
    mine: Predictions,
    request: PredictRequest,
    backend: Backend,
    *,
    quiet: bool,
) -> Seeds:
    """The spread of the score on the test split between trainings; `mine` are the predictions of the first.

    Args:
        quiet: as of `predicted`.
    """
    from kcost.risk.seeds import seeds_of

    answers, seeds, hashes = {}, {}, {}
    for one in trained:
        stored = mine
        if one is not trained[0]:
            path = one.model.keras_file.parent
            own = request.model_copy(update={"model": path.absolute(), "file": file_of(folder_of(one.model), backend)})
            stored = predicted(one.model, read, own, backend, quiet=quiet)
        name = f"{one.model.name}, seed {one.seed}"
        assert stored.sha256 is not None, "stored predictions have a hash"
        answers[name], seeds[name], hashes[name] = stored.splits["test"], one.seed, stored.sha256
    return seeds_of(answers, seeds, hashes, mine.header.unit)


def _trained(model: Model) -> Trained:
    training = None if model.artifact is None else model.artifact.training
    if model.artifact is None or training is None or "seed" not in training.settings:
        raise InputError(
            "The seed of a training stands in the artifact folder that kcost train made.",
            received=str(model.keras_file),
            remedy="Name artifact folders with --other-seed.",
        )
    return Trained(model, model.artifact, int(training.settings["seed"]))


def _settings_of(one: Trained) -> dict[str, Any]:
    """What has to be the same: each step's settings, and the data set.

    Not the very training examples: a seed also cuts validation off where a data set has none. Test is cut by a seed of
    its own, so that no training has seen another's test examples.
    """
    settings = {
        f"{step.kind} {name}": value
        for step in one.about.steps
        for name, value in step.settings.items()
        if name not in SEED_FREE
    }
    data = one.about.dataset
    counts = "" if data is None else ", ".join(f"{n:,} {split}" for split, n in _counts(data).items())
    return {**settings, "the data": None if data is None else f"{data.name} ({counts}) from {data.source}"}


def _counts(data: Dataset) -> dict[str, int]:
    return {split: part.count for split, part in data.splits.items()}


def _stored_predictions(file: Path) -> Predictions | None:
    try:
        return read_predictions(file)
    except (FileNotFoundError, SchemaError):
        return None


def _is_of(header: PredictionsHeader | OodScoresHeader, model: Model, read: DataSet, request: PredictRequest) -> bool:
    """Whether stored answers are of this very model, on these very data, fed and read in this way."""
    same = header.model_sha256 == model.sha256 and header.dataset.splits == read.record.splits
    return same and (header.choice, header.pixels) == (request.answer, request.pixels)

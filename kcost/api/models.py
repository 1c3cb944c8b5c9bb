"""Verbs on models: train, evaluate, attack, search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcost.api.inventory import prices
from kcost.api.refusals import refuse_before_scoring, refuse_before_training
from kcost.core import environment
from kcost.core.artifact import Artifact, open_model
from kcost.core.errors import InputError
from kcost.core.jobs import EVALUATE, ROBUSTNESS, TRAIN
from kcost.core.plan import Backend
from kcost.core.process import chosen_backend, require, run_job
from kcost.core.progress import OnProgress, silent, stage
from kcost.core.request import (
    DISTILLED,
    AttackReport,
    AttackRequest,
    EvaluateRequest,
    Evaluation,
    Family,
    TrainRequest,
    checked,
)

if TYPE_CHECKING:
    from kcost.search import SearchResult


def train(
    family: Family,
    data: str,
    out: Path | str,
    *,
    name: str | None = None,
    backend: Backend | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Artifact:
    """Trains a cnn or a bert in a worker process and writes an artifact folder.

    Args:
        family: `cnn` for images, `bert` for tagged sentences.
        data: name of a data set, or a path.
        out: the folder to make; new or empty.
        name: name of the model; made of data, family and size where it is None.
        backend: None takes KERAS_BACKEND, else the first backend that is installed.
        quiet: tells no progress on standard error.
        settings: further fields of `kcost.core.request.TrainRequest`.

    Raises:
        InputError: a setting outside its range, or data that cannot be read.
        UnavailableError: the backend is not installed.
        StorageError: `out` is there already, or cannot be written to.

    Examples:
        >>> artifact = kcost.train("cnn", "digits", "digits-cnn", epochs=2, limit=300, backend="torch")
        >>> [f"{score.name} on {score.count} {score.unit}" for score in artifact.scores]
        ['accuracy on 300 examples']
    """
    chosen = require(backend) if backend else chosen_backend()
    name = name or "-".join(filter(None, (Path(data).name, family, settings.get("size"))))
    match = prices().closest(environment.collect())
    values = {
        "family": family,
        "data": data,
        "out": Path(out).absolute(),
        "name": name,
        "usd_per_hour": match.usd_per_hour,
        "usd_basis": match.why,
        **settings,
    }
    if settings.get("teacher") is not None:
        values = {"distill": DISTILLED, **values, "teacher": Path(settings["teacher"]).absolute()}
    request = checked(TrainRequest, values)
    if request.distill and request.teacher is None:
        raise InputError(
            "A model is distilled from a teacher.", received="distill without one", remedy="Name it with --teacher."
        )
    refuse_before_training(data, Path(out))
    return run_job(TRAIN, chosen, request, quiet=quiet).artifact


def evaluate(
    model: Path | str,
    *,
    data: str | None = None,
    backend: Backend | None = None,
    output: str | None = None,
    task: str | None = None,
    threshold: float | None = None,
    on_progress: OnProgress = silent,
    **settings: Any,
) -> Evaluation:
    """Scores of a model on the test split of a data set, by default the one that it was trained on, and by class.

    Args:
        output, task, threshold: the output that labels are of, its kind (`kcost.core.answer.Kind`), and above what it
            is a yes; None takes them from the file, the layers and the labels. The answer tells what it was taken as.
        on_progress: told where it begins and ends; with one, the worker tells how many examples are done on standard
            error.
        settings: limit, pixels, batch_size, auroc.

    Raises:
        InputError: the model and the data do not fit together.
        GateError: the model answers with numbers that are not finite.
        UnavailableError: the backend is not installed.

    Examples:
        >>> evaluation = kcost.evaluate("digits-cnn", limit=100, backend="torch")
        >>> evaluation.scores[0].count
        100
    """
    chosen = require(backend) if backend else chosen_backend()
    choice = {"output": output, "kind": task, "threshold": threshold}
    request = checked(EvaluateRequest, {"model": Path(model).absolute(), "data": data, "answer": choice, **settings})
    refuse_before_scoring(open_model(model), data, chosen)
    with stage(on_progress, f"scoring {model}"):
        return run_job(EVALUATE, chosen, request, quiet=on_progress is silent)


def attack(
    model: Path | str,
    epsilons: Sequence[float],
    *,
    method: str = "fgsm",
    data: str | None = None,
    backend: Backend | None = None,
    on_progress: OnProgress = silent,
    **settings: Any,
) -> AttackReport:
    """Scores of a model on test examples that were changed by an attacker who knows its weights.

    Args:
        model: an artifact folder or a .keras file.
        epsilons: sizes of the change: of each value of an image in [0, 1], or the Euclidean length over the embedded
            tokens of a text. 0, the clean examples, is always scored too.
        method: `fgsm` (one step) or `pgd` (several, from a random start).
        data: None takes the data set that the model was trained on.
        on_progress: as of `evaluate`.
        settings: limit, pixels, steps, batch_size, seed.

    Raises:
        InputError: a setting outside its range, or data that do not fit the model.
        UnavailableError: the model has no place to attack it at.

    Examples:
        >>> report = kcost.attack("digits-cnn", [0.1], limit=50, backend="torch")
        >>> [result.epsilon for result in report.results]
        [0.0, 0.1]
    """
    chosen = require(backend) if backend else chosen_backend()
    given = {"model": Path(model).absolute(), "data": data, "epsilons": tuple(epsilons), "attack": method, **settings}
    request = checked(AttackRequest, given)
    refuse_before_scoring(open_model(model), data, chosen)
    with stage(on_progress, f"attacking {model}"):
        return run_job(ROBUSTNESS, chosen, request, quiet=on_progress is silent)


def run_search(
    family: Family,
    data: str,
    out: Path | str,
    *,
    backend: Backend | None = None,
    html: Path | str | None = None,
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

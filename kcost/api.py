"""The verbs of kcost, one function each. Nothing in here prints, and nothing loads a framework in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcost.core.artifact import Artifact, Score, open_model
from kcost.core.errors import InputError
from kcost.core.plan import Backend, Plan
from kcost.core.process import chosen_backend, require, run_job
from kcost.core.request import EvaluateRequest, Family, TrainRequest, checked

if TYPE_CHECKING:
    from kcost.core.result import Run
    from kcost.cost.pricebook import PriceBook
    from kcost.cost.verdict import Verdict
    from kcost.data import CatalogueEntry
    from kcost.demo import DemoReport
    from kcost.doctor import DoctorReport
    from kcost.serving.export import ExportReport

OnProgress = Callable[[int, int, str], None]
PathLike = Path | str


def _silent(done: int, total: int, text: str) -> None:
    """Progress that nobody watches."""


def doctor(*, devices: bool = True) -> DoctorReport:
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
    request = checked(TrainRequest, {"family": family, "data": data, "out": Path(out).absolute(), "name": name, **settings})
    answer = run_job("train", chosen, request.model_dump(mode="json"))
    return Artifact.model_validate(answer["artifact"])


def evaluate(
    model: PathLike, *, data: str | None = None, backend: Backend | None = None, **settings: Any
) -> tuple[Score, ...]:
    """Scores of a model on the test split of a data set, by default the one that it was trained on.

    Raises:
        InputError: the model and the data do not fit together.
        UnavailableError: the backend is not installed.
    """
    chosen = require(backend) if backend else chosen_backend()
    request = checked(EvaluateRequest, {"model": Path(model).absolute(), "data": data, **settings})
    answer = run_job("evaluate", chosen, request.model_dump(mode="json"))
    return tuple(Score.model_validate(s) for s in answer["scores"])


def bench(plan: Plan | PathLike, out: PathLike, *, on_progress: OnProgress = _silent) -> Run:
    """Measures a plan into a run folder; a run that is there already goes on where it stopped.

    Args:
        plan: a Plan, or the path of a TOML file with one.
        out: the run folder.
        on_progress: told pieces of work done, pieces in all, and what comes next.

    Raises:
        InputError: the plan or a model in it cannot be used.
        UnavailableError: a backend of the plan is not installed.
    """
    from kcost.bench.runner import measure

    return measure(plan if isinstance(plan, Plan) else Plan.read(Path(plan)), Path(out), on_progress)


def prices(file: PathLike | None = None) -> PriceBook:
    """The price book in the package, or one of your own. Raises PriceError for one that cannot be read."""
    from kcost.cost.pricebook import PriceBook

    return PriceBook.read(None if file is None else Path(file))


def export(model: PathLike, out: PathLike, *, name: str, version: int = 1) -> ExportReport:
    """Writes a TensorFlow Serving model base path and checks it with TensorFlow's own C++ loader.

    Raises:
        UnavailableError: tensorflow is not installed.
        GateError: the saved model does not answer as the artifact does. Nothing is left behind.
        StorageError: the version is there already, or the folder cannot be written to.
    """
    from kcost.serving.export import export as export_model

    return export_model(open_model(model), Path(out), name, version)

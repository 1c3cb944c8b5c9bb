"""The verb on risk: predictions once in a worker, then figures of the stored file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcost.api.refusals import refuse_before_scoring
from kcost.core import schema
from kcost.core.artifact import Model, open_model
from kcost.core.errors import InputError, SchemaError
from kcost.core.jobs import PREDICT
from kcost.core.plan import Backend
from kcost.core.predictions import Predictions, read_predictions
from kcost.core.process import chosen_backend, require, run_job
from kcost.core.request import PredictRequest, checked

if TYPE_CHECKING:
    from kcost.data import DataSet
    from kcost.risk.report import RiskReport

PREDICTIONS_FILE = "predictions-{backend}.npz"
REPORT_FILE = "risk.json"


def assess_risk(
    model: Path | str,
    *,
    data: str | None = None,
    backend: Backend | None = None,
    out: Path | str | None = None,
    target_error: float | None = None,
    output: str | None = None,
    task: str | None = None,
    threshold: float | None = None,
    **settings: Any,
) -> RiskReport:
    """How far a classifier or a tagger can be trusted, from its answers on all splits of a data set.

    Predictions are made once in a worker and stored; the same model on the same data is not predicted again.

    Args:
        model: an artifact folder or a .keras file.
        data: None takes the data set that the model was trained on.
        out: folder of the stored predictions and of risk.json; None takes `risk` in an artifact folder, or
            `NAME-risk` beside a file.
        target_error: the error, of 1, for which a threshold of abstention is looked for.
        output, task, threshold: as of `kcost.evaluate`.
        settings: limit, pixels, batch_size, train_examples.

    Raises:
        InputError: the model and the data do not fit together, or the model answers with no classes.
        GateError: the model answers with numbers that are not finite.
        UnavailableError: the backend is not installed.
        StorageError: `out` cannot be written to.

    Example:
        >>> report = kcost.assess_risk("digits-cnn", limit=100, backend="torch")
        >>> report.calibration.error.low <= report.calibration.error.value <= report.calibration.error.high
        True
    """
    from kcost.risk.report import Evidence, assess

    if target_error is not None and not 0 < target_error < 1:
        raise InputError("A target error lies between 0 and 1.", target_error, "Give a share such as 0.02.")
    chosen = require(backend) if backend else chosen_backend()
    opened = open_model(model)
    folder = _folder(opened) if out is None else Path(out)
    file = folder / PREDICTIONS_FILE.format(backend=chosen)
    choice = {"output": output, "kind": task, "threshold": threshold}
    values = {"model": Path(model).absolute(), "data": data, "answer": choice, "file": file.absolute(), **settings}
    request = checked(PredictRequest, values)
    refuse_before_scoring(opened, data, chosen)
    read = _load(opened, data, request.limit)
    predictions = _stored(file, opened, read, request)
    if predictions is None:
        file.unlink(missing_ok=True)
        run_job(PREDICT, chosen, request)
        predictions = read_predictions(file)
    assert predictions.sha256 is not None
    evidence = Evidence(
        predictions_file=file.name,
        predictions_sha256=predictions.sha256,
        model_sha256=opened.sha256,
        backend=chosen,
        dataset=predictions.header.dataset,
        command=_command(model, {"data": data, "backend": chosen, "target_error": target_error, **settings}),
    )
    report = assess(predictions, evidence, target_error=target_error)
    schema.write(folder / REPORT_FILE, report)
    return report


def _folder(model: Model) -> Path:
    if model.artifact is not None:
        return model.keras_file.parent / "risk"
    return model.keras_file.with_name(f"{model.keras_file.stem}-risk")


def _load(model: Model, named: str | None, limit: int | None) -> DataSet:
    from kcost import data

    return data.load(data.chosen(model, named), limit=limit)


def _stored(file: Path, model: Model, read: DataSet, request: PredictRequest) -> Predictions | None:
    """Predictions of this very model on these very data; None where there are none."""
    try:
        stored = read_predictions(file)
    except (FileNotFoundError, SchemaError):
        return None
    header, plain = stored.header, request.pixels is None and request.answer == type(request.answer)()
    same = header.model_sha256 == model.sha256 and header.dataset.splits == read.record.splits
    return stored if same and plain and header.train_examples == request.train_examples else None


def _command(model: Path | str, options: dict[str, object]) -> str:
    given = [f"--{name.replace('_', '-')} {shlex.quote(str(v))}" for name, v in options.items() if v is not None]
    return " ".join(["kcost risk", shlex.quote(str(model)), *given])

"""The verb on risk: predictions once in a worker, then figures of the stored file, then the user's gates."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcost.api.refusals import refuse_before_scoring
from kcost.api.risk_predictions import (
    REPORT_FILE,
    file_of,
    folder_of,
    load_for,
    ood_of,
    predicted,
    refuse_other_settings,
    robustness_of,
    seeds_between,
)
from kcost.api.run_evidence import evidence_of_run
from kcost.core import schema
from kcost.core.artifact import Model, open_model, refuse_unwritable
from kcost.core.errors import InputError, UnavailableError
from kcost.core.plan import Backend
from kcost.core.predictions import Predictions
from kcost.core.process import chosen_backend, require, run_job
from kcost.core.progress import OnProgress, in_steps, silent
from kcost.core.request import PredictRequest, checked

if TYPE_CHECKING:
    from kcost.data import DataSet
    from kcost.report.derived_results import ShownRisk
    from kcost.risk.decide import Measured
    from kcost.risk.figures import Figure
    from kcost.risk.gates import Gates

ROBUSTNESS_EXAMPLES = 2000
"""Test examples that are changed and attacked: a score of so many is known within some 2 points."""

LEAST_EXAMPLES = 10


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
    robustness: bool = False,
    robustness_examples: int = ROBUSTNESS_EXAMPLES,
    ood: str | None = None,
    other_seeds: Sequence[Path | str] = (),
    cleanlab: bool = False,
    output: str | None = None,
    task: str | None = None,
    threshold: float | None = None,
    write: bool = True,
    on_progress: OnProgress = silent,
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
        robustness: also score the model under noise, blur, typos and the like, and under attack.
        robustness_examples: most test examples for that, a seeded sample.
        ood: name or path of data that the model was not made for: whether it can tell them.
        other_seeds: artifact folders of the same settings with other seeds: the spread between them.
        cleanlab: also look for wrong labels of a classifier with cleanlab.
        output, task, threshold: as of `kcost.evaluate`.
        write: False writes no risk.json.
        on_progress: told of each step as it begins; with one, workers tell how many examples are done on standard
            error.
        settings: limit, pixels, batch_size, train_examples.

    Raises:
        InputError: the model and the data do not fit together, the model answers with no classes, or bad gates.
        GateError: the model answers with numbers that are not finite.
        UnavailableError: the backend, or cleanlab where it is asked for, is not installed.
        StorageError: `out` cannot be written to.

    Examples:
        >>> report = kcost.assess_risk("digits-cnn", limit=100, backend="torch")
        >>> report.calibration.error.low <= report.calibration.error.value <= report.calibration.error.high
        True
    """
    from kcost.api.risk_data import columns_of, leakage_of, personal_data_of, read_columns
    from kcost.data import chosen as chosen_data, refuse_unknown
    from kcost.report.derived_results import ShownRisk
    from kcost.report.notebook import shown
    from kcost.risk.decide import decide
    from kcost.risk.report import Evidence, Surroundings, assess

    if target_error is not None and not 0 < target_error < 1:
        raise InputError("A target error lies between 0 and 1.", target_error, "Give a share such as 0.02.")
    if robustness_examples < LEAST_EXAMPLES:
        raise InputError(
            f"Robustness is of {LEAST_EXAMPLES} test examples at least.", robustness_examples, "Give more of them."
        )
    limits = None if gates is None else read_gates(Path(gates))
    robustness = robustness or (limits is not None and limits.min_corrupted_score is not None)
    chosen = require(backend) if backend else chosen_backend()
    opened = open_model(model)
    folder = folder_of(opened) if out is None else Path(out)
    choice = {"output": output, "kind": task, "threshold": threshold}
    values = {"model": Path(model).absolute(), "data": data, "answer": choice, **settings}
    request = checked(PredictRequest, {**values, "file": file_of(folder, chosen)})
    trained = refuse_other_settings(opened, [Path(p) for p in other_seeds]) if other_seeds else ()
    if ood is not None:
        refuse_unknown(ood)
    refuse_before_scoring(opened, data, chosen)
    read = load_for(opened, data, request.limit)
    given = {} if columns is None else read_columns(Path(columns), len(read.splits["test"]))
    refuse_unwritable(folder)
    attacked = limits is not None and limits.min_attacked_score is not None
    total = 2 + (against is not None) + robustness + (ood is not None) + bool(trained) + attacked
    tell, quiet = in_steps(on_progress, total), on_progress is silent
    tell(f"predicting with {model}")
    predictions = predicted(opened, read, request, chosen, quiet=quiet)
    before = None
    if against is not None:
        tell(f"predicting with {against}")
        other = open_model(against)
        own = request.model_copy(update={"model": Path(against).absolute(), "file": file_of(folder_of(other), chosen)})
        named = own.model_copy(update={"data": data or chosen_data(opened, None)})
        before = (other.name, predicted(other, read, named, chosen, quiet=quiet))
        _refuse_others(opened, predictions, other, before[1])
    changed = detected = seeds = None
    if robustness:
        tell("predicting changed test examples")
        changed = robustness_of(opened, read, request, chosen, robustness_examples, quiet=quiet)
    if ood is not None:
        tell(f"predicting {ood}")
        detected = ood_of(opened, read, request, chosen, ood, quiet=quiet)
    if trained:
        tell("predicting with the other seeds")
        seeds = seeds_between(trained, read, predictions, request, chosen, quiet=quiet)
    if attacked:
        tell("attacking it, as a limit asks")
    measured = None if limits is None else _measured(limits, request, chosen, run, opened, quiet=quiet)
    tell("working out the figures")
    around = Surroundings(
        columns={**columns_of(read, predictions), **given},
        groups=tuple(given),
        before=before,
        leakage=leakage_of(read),
        personal_data=personal_data_of(read),
        robustness=changed,
        out_of_distribution=detected,
        cleanlab=cleanlab,
        seeds=seeds,
    )
    paths = {"gates": gates, "against": against, "columns": columns, "run": run}
    options = {
        "data": None if data is None else _place(data),
        **{name: None if path is None else str(Path(path).absolute()) for name, path in paths.items()},
        "backend": chosen,
        "target_error": target_error,
        "robustness": True if robustness else None,
        "robustness_examples": robustness_examples if robustness else None,
        "ood": None if ood is None else _place(ood),
        "cleanlab": True if cleanlab else None,
        "other_seeds": tuple(str(Path(p).absolute()) for p in other_seeds) or None,
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
    if limits is not None and measured is not None:
        report = decide(report, limits, measured)
    if write:
        schema.write(folder / REPORT_FILE, report)
    on_progress(total, total, f"done: the risk of {model}")
    return shown(ShownRisk, report)


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


def _refuse_others(model: Model, mine: Predictions, other: Model, theirs: Predictions) -> None:
    if mine.header.label_names != theirs.header.label_names or mine.header.unit != theirs.header.unit:
        raise InputError(
            "Models that are held against each other answer with the same classes.",
            received=f"{model.name} with {', '.join(mine.header.label_names)}; {other.name} with "
            f"{', '.join(theirs.header.label_names)}",
            remedy="Name a model of the same task with --against.",
        )


def _measured(
    gates: Gates, request: PredictRequest, backend: Backend, run: Path | str | None, model: Model, *, quiet: bool
) -> Measured:
    """Evidence that limits ask for and that is no prediction: an attack, and the cheapest cell of a run.

    Args:
        quiet: False has the worker of the attack tell its progress on standard error.
    """
    from kcost.risk.decide import Measured

    attack: dict[str, Any] = {}
    if gates.min_attacked_score is not None:
        try:
            attack = {"attacked": _attacked(request, backend, gates.attack_epsilon, quiet=quiet)}
        except UnavailableError as error:  # this gate has no evidence then; the others have theirs
            attack = {"not_attacked_because": error.rule}
    if run is None:
        return Measured.model_validate(attack)
    return Measured(**attack, **evidence_of_run(run, model.name))


def _attacked(request: PredictRequest, backend: Backend, epsilon: float, *, quiet: bool) -> Figure:
    from kcost.core.jobs import ROBUSTNESS
    from kcost.core.request import AttackRequest
    from kcost.risk.figures import Figure

    attack = AttackRequest(
        model=request.model, data=request.data, pixels=request.pixels, limit=request.limit, epsilons=(epsilon,)
    )
    score = run_job(ROBUSTNESS, backend, attack, quiet=quiet).results[-1].scores[0]
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
    given = []
    for name, value in options.items():
        option = "--other-seed" if name == "other_seeds" else f"--{name.replace('_', '-')}"
        if value is True:
            given.append(option)
            continue
        for one in value if isinstance(value, tuple) else (value,):
            plain = Path(str(one)).name if str(one).startswith("/") else one
            given.append(f"{option} {shlex.quote(str(plain))}")
    return " ".join(["kcost risk", shlex.quote(Path(model).resolve().name), *given])

"""Makes a model cheaper: prunes and fine-tunes it, lowers its precision, and says what that cost in quality."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from kcost.core import environment
from kcost.core.artifact import Artifact, RunCost, Step, open_model, refuse_existing, refuse_unwritable
from kcost.core.errors import InputError
from kcost.core.process import version_of
from kcost.core.prune_spec import PruneSpec, StructuredPruning, parse_prune_spec
from kcost.core.request import OptimizeAnswer, OptimizeRequest, TrainRequest
from kcost.core.run_cost import Meter, run_cost
from kcost.core.score_drop import score_drop
from kcost.models.comparing import ROWS
from kcost.optimize.coverage import Change, Coverage
from kcost.optimize.pruning.importance import Labelled
from kcost.optimize.pruning.pruning import PruningCallback, coverage_of, prune
from kcost.optimize.quantization import quantize
from kcost.training.checkpoint import Checkpoint
from kcost.training.distillation import soft_targets
from kcost.training.fit import EVALUATION_BATCH, fit
from kcost.training.losses import learns_classes, loss_of
from kcost.training.tasks import Task
from kcost.training.transfer import copy_weights
from kcost.worker.model_and_data import open_with_data
from kcost.worker.train import PRETRAINED_LEARNING_RATE, write_artifact

FINE_TUNING_RATE = {"image-classification": 1e-3, "arrays": 1e-3}
"""Where it is not known at what rate the model was trained; PRETRAINED_LEARNING_RATE for all other tasks."""

FINE_TUNING_BATCH = 32
AS_TRAINED = (
    *("learning_rate", "batch_size", "weight_decay", "label_smoothing", "class_weights"),
    *("augment", "augment_strength", "flip"),
)
"""Settings that fine-tuning takes over from the model's training, where its artifact tells them.

At the rate of the training, which falls to 0 again, pruned networks regain more than at a small one: Renda, Frankle and
Carbin (2020), Comparing Rewinding and Fine-tuning in Neural Network Pruning.
"""

TAYLOR_BATCHES = 32
"""Batches of training data that first-order importance is taken on."""


def run(request: OptimizeRequest) -> OptimizeAnswer:
    """Optimizes as the request says."""
    refuse_existing(request.out)
    refuse_unwritable(request.out)
    spec = None if request.prune is None else parse_prune_spec(request.prune)
    keras.utils.set_random_seed(request.seed)
    opened = open_with_data(request.model, request.data, request.limit, request.answer, request.pixels)
    about = open_model(request.model).artifact
    if opened.others:
        names = ", ".join(str(t.answers.scored) for t in (opened.task, *opened.others))
        raise InputError(
            "What a change cost is judged by one output.",
            received=f"labels of {names}",
            remedy="Name the output with --output.",
        )
    task, model = opened.task, opened.model
    before = task.predict(model, "test", EVALUATION_BATCH)
    task.outcomes(before, "test")  # what cannot be judged is refused before minutes of work
    steps: list[Step] = []
    history: list[dict[str, float]] = []
    if spec is not None:
        model, step, history = _pruned(model, task, spec, request, _fine_tuning(request, task, about))
        steps.append(step)
    if request.quantize is not None:
        model, step = _quantized(model, task, request)
        steps.append(step)
    after = task.predict(model, "test", EVALUATION_BATCH)
    artifact = write_artifact(
        request.out,
        request.name,
        "unknown" if about is None else about.family,
        model,
        task,
        (*(() if about is None else about.steps), *steps),
        history,
        after,
    )
    score = task.score(before, "test")[0].name
    drop = score_drop(task.outcomes(before, "test"), task.outcomes(after, "test"), task.unit, score)
    return OptimizeAnswer(artifact=artifact, drop=drop)


def _pruned(
    model: keras.Model, task: Task, spec: PruneSpec, request: OptimizeRequest, tuning: TrainRequest
) -> tuple[keras.Model, Step, list[dict[str, float]]]:
    """A pruned model, fine-tuned where epochs are asked for."""
    meter = _meter()
    labelled = None
    if spec.importance == "taylor":
        labelled = Labelled(_some_batches(task, tuning), loss_of(task.answers.main))
    warnings: list[str] = []
    history: list[dict[str, float]] = []
    soft = None
    if request.epochs and request.distill:
        if learns_classes(task.answers.main):
            soft = soft_targets(model, task, EVALUATION_BATCH)
        else:
            kind = task.answers.main.kind
            warnings.append(f"learnt from labels alone: distilling is for a unit a class, and the output is {kind}")
    at_once = request.epochs == 0 or isinstance(spec, StructuredPruning) or spec.importance == "taylor"
    coverage = Coverage()
    if at_once:
        model, coverage = prune(model, spec, skip=request.skip, labelled=labelled)
    rate = tuning.learning_rate
    assert rate is not None
    if request.epochs:
        steps = request.epochs * len(task.batches("train", tuning.batch_size, seed=request.seed))
        callbacks: list[PruningCallback] = []
        if not isinstance(spec, StructuredPruning):
            callbacks.append(PruningCallback(None if at_once else spec, steps, skip=request.skip))
        if not at_once:
            model = copy_weights(model, model)
        checkpoint = Checkpoint(request.out.parent / f".{request.out.name}.training", tuning)
        keepable: Callable[[], bool] = lambda: all(c.reached for c in callbacks)  # noqa: E731
        report = fit(model, task, tuning, rate, checkpoint, callbacks, keepable, soft)
        history = report.history
        warnings += report.warnings
        checkpoint.remove()
        model = copy_weights(model, model)  # without optimizer and masks
        if not isinstance(spec, StructuredPruning):
            coverage = coverage_of(model, spec, request.skip)
    settings = {"prune": request.prune, "epochs": len(history), **tuning.model_dump(include={*AS_TRAINED, "distill"})}
    step = _step("prune", settings, coverage, task, _cost(meter, task, request), warnings)
    return model, step, history


def _quantized(model: keras.Model, task: Task, request: OptimizeRequest) -> tuple[keras.Model, Step]:
    assert request.quantize is not None
    meter = _meter()
    calibration = task.inputs("train", request.calibration_examples) if request.quantize == "static" else None
    rows = task.inputs("test", ROWS)
    model, coverage = quantize(model, request.quantize, calibration, skip=request.skip, rows=rows)
    settings: dict[str, Any] = {"mode": request.quantize}
    if calibration is not None:
        settings["calibration_examples"] = len(next(iter(calibration.values())))
    return model, _step("quantize", settings, coverage, task, _cost(meter, task, request))


def _some_batches(task: Task, tuning: TrainRequest) -> Iterator[tuple[Any, Any]]:
    batches = task.batches("train", tuning.batch_size, seed=tuning.seed)
    return (batches[i] for i in range(min(TAYLOR_BATCHES, len(batches))))


def _fine_tuning(request: OptimizeRequest, task: Task, about: Artifact | None) -> TrainRequest:
    """The options of `fit`: what was asked for, else as trained; a rate that falls to 0, and no early stop."""
    trained = about.training.settings if about is not None and about.training is not None else {}
    settings: dict[str, Any] = {
        "learning_rate": FINE_TUNING_RATE.get(task.name, PRETRAINED_LEARNING_RATE),
        "batch_size": FINE_TUNING_BATCH,
        "distill": request.distill,
        **{name: trained[name] for name in AS_TRAINED if trained.get(name) is not None},
        **{name: value for name in AS_TRAINED if (value := getattr(request, name, None)) is not None},
    }
    return TrainRequest(
        family="bert" if task.is_text else "cnn",
        data=request.data or task.record.name,
        out=request.out,
        name=request.name,
        epochs=request.epochs,
        patience=request.epochs,
        schedule="linear",
        warmup_fraction=0.1,
        clip_norm=1.0,
        seed=request.seed,
        usd_per_hour=request.usd_per_hour,
        usd_basis=request.usd_basis,
        **settings,
    )


def _meter() -> Meter:
    machine = environment.collect()
    return Meter(machine.cores, len(machine.accelerators))


def _cost(meter: Meter, task: Task, request: OptimizeRequest) -> RunCost:
    labelled = sum(task.record.splits[split].count for split in ("train", "validation"))
    return run_cost(meter, labelled, request.usd_per_hour, request.usd_basis)


def _step(
    kind: Any, settings: dict[str, Any], coverage: Coverage, task: Task, cost: RunCost, warnings: Sequence[str] = ()
) -> Step:
    backend = os.environ["KERAS_BACKEND"]
    return Step(
        kind=kind,
        backend=backend,
        backend_version=version_of(backend) or "unknown",
        settings=settings,
        changed=tuple(map(_described, coverage.changed)),
        skipped=tuple(map(_described, coverage.skipped)),
        warnings=tuple(warnings),
        cost=cost,
    )


def _described(change: Change) -> str:
    return f"{change.layer}: {change.what}"

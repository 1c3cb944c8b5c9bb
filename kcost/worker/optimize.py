"""Makes a model cheaper: prunes and fine-tunes it, lowers its precision, and says what that cost in quality."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from kcost.core import environment
from kcost.core.artifact import RunCost, Step, open_model, refuse_existing
from kcost.core.errors import InputError
from kcost.core.process import version_of
from kcost.core.prune_spec import PruneSpec, StructuredPruning, parse_prune_spec
from kcost.core.request import OptimizeAnswer, OptimizeRequest, TrainRequest
from kcost.core.run_cost import Meter, run_cost
from kcost.core.score_drop import score_drop
from kcost.optimize.coverage import Change, Coverage
from kcost.optimize.importance import Labelled
from kcost.optimize.pruning import PruningCallback, coverage_of, prune
from kcost.optimize.quantization import quantize
from kcost.training.checkpoint import Checkpoint
from kcost.training.fit import EVALUATION_BATCH, fit
from kcost.training.losses import loss_of
from kcost.training.tasks import Task
from kcost.training.transfer import copy_weights
from kcost.worker.opening import open_with_data
from kcost.worker.train import PRETRAINED_LEARNING_RATE, write_artifact

FINE_TUNING_RATE = {"image-classification": 1e-3}
TAYLOR_BATCHES = 32
"""Batches of training data that first-order importance is taken on."""


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Optimizes as an OptimizeRequest says; answers with an OptimizeAnswer."""
    asked = OptimizeRequest.model_validate(request)
    refuse_existing(asked.out)
    spec = None if asked.prune is None else parse_prune_spec(asked.prune)
    if spec is None and asked.quantize is None:
        raise InputError("Something is to be done to the model.", received="neither --prune nor --int8 nor --bfloat16")
    keras.utils.set_random_seed(asked.seed)
    opened = open_with_data(asked.model, asked.data, asked.limit)
    about = open_model(asked.model).artifact
    task, model = opened.task, opened.model
    before = task.predict(model, "test", EVALUATION_BATCH)
    steps: list[Step] = []
    history: list[dict[str, float]] = []
    if spec is not None:
        model, step, history = _pruned(model, task, spec, asked)
        steps.append(step)
    if asked.quantize is not None:
        model, step = _quantized(model, task, asked)
        steps.append(step)
    artifact = write_artifact(
        asked.out,
        asked.name,
        "unknown" if about is None else about.family,
        model,
        task,
        (*(() if about is None else about.steps), *steps),
        history,
    )
    after = task.predict(model, "test", EVALUATION_BATCH)
    unit = "sentences" if task.name == "token-classification" else "examples"
    drop = score_drop(task.outcomes(before, "test"), task.outcomes(after, "test"), unit)
    return OptimizeAnswer(artifact=artifact, drop=drop).model_dump(mode="json")


def _pruned(
    model: keras.Model, task: Task, spec: PruneSpec, asked: OptimizeRequest
) -> tuple[keras.Model, Step, list[dict[str, float]]]:
    """A pruned model, fine-tuned where epochs are asked for."""
    meter = _meter()
    labelled = Labelled(_some_batches(task, asked), loss_of(task.name)) if spec.importance == "taylor" else None
    warnings: list[str] = []
    history: list[dict[str, float]] = []
    at_once = asked.epochs == 0 or isinstance(spec, StructuredPruning) or spec.importance == "taylor"
    coverage = Coverage()
    if at_once:
        model, coverage = prune(model, spec, skip=asked.skip, labelled=labelled)
    rate = asked.learning_rate or FINE_TUNING_RATE.get(task.name, PRETRAINED_LEARNING_RATE)
    if asked.epochs:
        request = _fine_tuning(asked, task, rate)
        steps = asked.epochs * len(task.batches("train", asked.batch_size, seed=asked.seed))
        callbacks: list[PruningCallback] = []
        if not isinstance(spec, StructuredPruning):
            callbacks.append(PruningCallback(None if at_once else spec, steps, skip=asked.skip))
        if not at_once:
            model = copy_weights(model, model)
        checkpoint = Checkpoint(asked.out.parent / f".{asked.out.name}.training", request)
        keepable: Callable[[], bool] = lambda: all(c.reached for c in callbacks)  # noqa: E731
        report = fit(model, task, request, rate, checkpoint, callbacks, keepable)
        history, warnings = report.history, report.warnings
        checkpoint.remove()
        model = copy_weights(model, model)  # without optimizer and masks
        if not isinstance(spec, StructuredPruning):
            coverage = coverage_of(model, spec, asked.skip)
    settings = {"prune": asked.prune, "epochs": len(history), "learning_rate": rate, "batch_size": asked.batch_size}
    step = _step("prune", settings, coverage, task, _cost(meter, task, asked), warnings)
    return model, step, history


def _quantized(model: keras.Model, task: Task, asked: OptimizeRequest) -> tuple[keras.Model, Step]:
    assert asked.quantize is not None
    meter = _meter()
    calibration = task.inputs("train", asked.calibration_examples) if asked.quantize == "static" else None
    model, coverage = quantize(model, asked.quantize, calibration, skip=asked.skip)
    settings: dict[str, Any] = {"mode": asked.quantize}
    if calibration is not None:
        settings["calibration_examples"] = len(next(iter(calibration.values())))
    return model, _step("quantize", settings, coverage, task, _cost(meter, task, asked))


def _some_batches(task: Task, asked: OptimizeRequest) -> Iterator[tuple[Any, Any]]:
    batches = task.batches("train", asked.batch_size, seed=asked.seed)
    return (batches[i] for i in range(min(TAYLOR_BATCHES, len(batches))))


def _fine_tuning(asked: OptimizeRequest, task: Task, rate: float) -> TrainRequest:
    """The options of `fit` for fine-tuning: a rate that falls to 0, and no early stop."""
    return TrainRequest(
        family="cnn" if task.name == "image-classification" else "bert",
        data=asked.data or task.record.name,
        out=asked.out,
        name=asked.name,
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        learning_rate=rate,
        patience=asked.epochs,
        schedule="linear",
        warmup_fraction=0.1,
        clip_norm=1.0,
        flip=asked.flip,
        seed=asked.seed,
        usd_per_hour=asked.usd_per_hour,
        usd_basis=asked.usd_basis,
    )


def _meter() -> Meter:
    machine = environment.collect()
    return Meter(machine.cores, len(machine.accelerators))


def _cost(meter: Meter, task: Task, asked: OptimizeRequest) -> RunCost:
    labelled = sum(task.record.splits[split].count for split in ("train", "validation"))
    return run_cost(meter, labelled, asked.usd_per_hour, asked.usd_basis)


def _step(
    kind: Any, settings: dict[str, Any], coverage: Coverage, task: Task, cost: RunCost, warnings: Sequence[str] = ()
) -> Step:
    backend = os.environ["KERAS_BACKEND"]
    return Step(
        kind=kind,
        backend=backend,
        backend_version=version_of(backend) or "unknown",
        settings=settings,
        changed=tuple(map(_told, coverage.changed)),
        skipped=tuple(map(_told, coverage.skipped)),
        warnings=tuple(warnings),
        cost=cost,
    )


def _told(change: Change) -> str:
    return f"{change.layer}: {change.what}"

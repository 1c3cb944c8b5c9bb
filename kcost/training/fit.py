"""Training a model on a task, on whichever backend this process runs."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kcost.core.errors import InputError, UnavailableError, storage
from kcost.core.request import TrainRequest
from kcost.training.augment import augmentation, flip_warning
from kcost.training.batches import ArrayBatches
from kcost.training.checkpoint import Checkpoint
from kcost.training.layers import choose_trainable
from kcost.training.losses import loss_of
from kcost.training.optimizer import make_optimizer
from kcost.training.progress import Progress
from kcost.training.tasks import Task

EVALUATION_BATCH = 256
GAP_WARNING = 1.2
"""A last validation loss of this many times the best one, while the training loss fell, is called overfitting."""


class TrainingReport:
    """What happened: history by epoch, what was changed of the model, warnings, and the time it took."""

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []
        self.changed: tuple[str, ...] = ()
        self.warnings: list[str] = []
        self.wall_s = 0.0
        self.parts_s: dict[str, float] = {}
        """Seconds of starting (compiling, in the first epoch), steps with their batches, evaluating and saving."""
        self.resumed_at_epoch: int | None = None
        self.pruned = False


def fit(
    model: keras.Model,
    task: Task,
    request: TrainRequest,
    learning_rate: float,
    checkpoint: Checkpoint,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    keepable: Callable[[], bool] = lambda: True,
    soft_targets: np.ndarray | None = None,
) -> TrainingReport:
    """Trains `model` in place; left in it are the weights of the epoch with the lowest validation loss.

    A run whose checkpoint is there goes on after the last epoch that it finished.

    Args:
        callbacks: called before the model is stored after an epoch.
        keepable: asked after an epoch whether its weights may be the ones that are left.
        soft_targets: another model's probabilities on the training split, which `request.distill` of the loss goes by.

    Raises:
        InputError: the loss stopped being a finite number, or an option does not fit the model.
        StorageError: the checkpoint or TensorBoard's files cannot be written, or the checkpoint is of a run with other
            settings, on other data or on another backend.
    """
    report, progress = TrainingReport(), Progress(request.epochs)
    report.changed = choose_trainable(model, request)
    batches = task.batches("train", request.batch_size, seed=request.seed)
    if request.augment or request.flip:
        report.warnings += _augment(batches, task, request)
    if request.augment_strength != 1 and not request.augment:
        report.warnings.append(f"--augment-strength {request.augment_strength:g} does nothing without --augment")
    for warning in report.warnings:
        progress.warn(warning)  # now, and not after hours
    batches.soft_targets = soft_targets
    trained = model
    if request.adversarial_epsilon:
        from kcost.training.adversarial import adversarial_model

        trained = adversarial_model(model, task.answers.main, task.is_text, request.adversarial_epsilon)
    weights = task.balanced_class_weights() if request.class_weights == "balanced" else None
    trained.compile(
        optimizer=make_optimizer(model, request, learning_rate, request.epochs * len(batches)),
        loss=loss_of(
            task.answers.main, request.label_smoothing, weights, 0.0 if soft_targets is None else request.distill
        ),
    )
    trained.optimizer.build(trained.trainable_variables)
    if checkpoint.resume(trained, task.record):
        report.resumed_at_epoch = checkpoint.epoch
        batches.start_at(checkpoint.epoch)
    keeper = _Keeper(checkpoint, request, keepable, progress)
    parts = _Parts()
    start = time.perf_counter()
    if checkpoint.epoch < request.epochs and checkpoint.wait <= request.patience:
        trained.fit(
            batches,
            validation_data=task.batches("validation", EVALUATION_BATCH, seed=None),
            epochs=request.epochs,
            initial_epoch=checkpoint.epoch,
            shuffle=False,  # the batches come shuffled, by seed and epoch; Keras's own order could not be resumed
            verbose=0,
            callbacks=[*callbacks, progress, parts, keeper, *_tensorboard(request)],
        )
    report.wall_s = time.perf_counter() - start
    report.parts_s = {**parts.seconds(), "saving": keeper.saving_s}
    report.history, report.pruned = checkpoint.history, keeper.pruned
    checkpoint.restore_best(trained)
    report.warnings += _gap_warning(checkpoint.history)
    return report


def _augment(batches: ArrayBatches, task: Task, request: TrainRequest) -> list[str]:
    """Makes the batches change their images; returns what to beware of."""
    if task.name != "image-classification":
        raise InputError("Augmentation is for images.", received=task.name, remedy="Leave --augment and --flip out.")
    strength = request.augment_strength if request.augment else 0.0
    batches.transform = augmentation(request.seed, flip=request.flip, strength=strength)
    warning = flip_warning(task.record.name) if request.flip else None
    return [] if warning is None else [warning]


class _Parts(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Measures what the epochs' time goes into."""

    def __init__(self) -> None:
        super().__init__()
        self._loops_s: list[float] = []
        self._evaluating_s = 0.0
        self._since_s = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this before the first step of an epoch."""
        self._since_s = time.perf_counter()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after the last step of an epoch."""
        now_s = time.perf_counter()
        self._loops_s.append(now_s - self._since_s)
        self._since_s = now_s

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after validation."""
        self._evaluating_s += time.perf_counter() - self._since_s

    def seconds(self) -> dict[str, float]:
        """Seconds by part. The first epoch compiles: what it took longer than the others did is starting; of one epoch
        that is not known, and all of it is steps."""
        total_s = sum(self._loops_s)
        first, *others = self._loops_s or [0.0]
        starting_s = max(0.0, first - statistics.median(others)) if others else 0.0
        return {"starting": starting_s, "steps": total_s - starting_s, "evaluating": self._evaluating_s}


class _Keeper(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Checks the loss, keeps checkpoints and stops early."""

    def __init__(
        self, checkpoint: Checkpoint, request: TrainRequest, keepable: Callable[[], bool], progress: Progress
    ) -> None:
        super().__init__()
        self._checkpoint, self._request, self._keepable, self._progress = checkpoint, request, keepable, progress
        self._gap_was_said = False
        self.pruned = False
        self.saving_s = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this when the model is built and before its first step."""
        self._checkpoint.restore_random_state()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after each step. The loss is a mean over the epoch, so it need not be read often."""
        if batch % 50 == 0:
            self._require_finite(logs or {}, f"step {batch + 1} of epoch {self._checkpoint.epoch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after validation."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        self._require_finite(values, f"epoch {epoch + 1}")
        keepable, begin_s = self._keepable(), time.perf_counter()
        self._checkpoint.end_epoch(self.model, values, keepable=keepable)
        self.saving_s += time.perf_counter() - begin_s
        if not self._gap_was_said:
            for warning in _gap_warning(self._checkpoint.history):
                self._gap_was_said = True
                self._progress.warn(warning)
        if self._checkpoint.wait > self._request.patience:
            self.model.stop_training = True
        limit = (self._request.prune_above or {}).get(epoch + 1)
        if limit is not None and values["val_loss"] > limit:
            self.model.stop_training = self.pruned = True

    def _require_finite(self, logs: dict[str, Any], where: str) -> None:
        bad = {name: float(value) for name, value in logs.items() if not math.isfinite(float(value))}
        if bad:
            # The same settings would end here again, and others may not go on from what is stored.
            self._checkpoint.remove()
            raise InputError(
                "Training keeps a finite loss.", received=f"{bad} at {where}", remedy="Lower --learning-rate."
            )


def _tensorboard(request: TrainRequest) -> list[keras.callbacks.Callback]:
    if request.tensorboard is None:
        return []
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "TensorBoard files are written by tensorboardX.",
            received="an environment without it",
            remedy="Install it: pip install 'kcost[tensorboard]'",
        ) from error
    with storage(request.tensorboard):
        writer = SummaryWriter(str(request.tensorboard))

    def write(epoch: int, logs: dict[str, Any]) -> None:
        for name, value in logs.items():
            writer.add_scalar(name, float(value), epoch + 1)
        writer.flush()

    return [keras.callbacks.LambdaCallback(on_epoch_end=write, on_train_end=lambda _: writer.close())]


def _gap_warning(history: list[dict[str, float]]) -> list[str]:
    best = min(range(len(history)), key=lambda i: history[i]["val_loss"])
    last = history[-1]
    if last["val_loss"] > GAP_WARNING * history[best]["val_loss"] and last["loss"] < history[best]["loss"]:
        ratio = last["val_loss"] / history[best]["val_loss"]
        return [
            f"overfitting: since epoch {best + 1} the training loss fell and the validation loss rose to {ratio:.2f} "
            f"times its best (limit {GAP_WARNING}); the weights of epoch {best + 1} were kept"
        ]
    return []

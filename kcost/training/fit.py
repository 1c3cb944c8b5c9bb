"""Training a model on a task, on whichever backend this process runs."""

from __future__ import annotations

import time
from typing import Any

import keras

from kcost.core.errors import InputError
from kcost.core.request import TrainRequest
from kcost.training.losses import loss_of
from kcost.training.progress import Progress
from kcost.training.tasks import Task

EVALUATION_BATCH = 256


def fit(model: keras.Model, task: Task, request: TrainRequest, learning_rate: float) -> dict[str, Any]:
    """Trains `model` in place and returns what happened: history, epochs run, wall seconds.

    The weights left in the model are those of the epoch with the lowest validation loss.

    Raises:
        InputError: the loss stopped being a finite number.
    """
    model.compile(optimizer=keras.optimizers.AdamW(learning_rate, weight_decay=0.01), loss=loss_of(task.name))
    start = time.perf_counter()
    history = model.fit(
        task.batches("train", request.batch_size, seed=request.seed),
        validation_data=task.batches("validation", EVALUATION_BATCH, seed=None),
        epochs=request.epochs,
        verbose=0,
        callbacks=[
            Progress(request.epochs),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.EarlyStopping("val_loss", patience=request.patience, restore_best_weights=True),
        ],
    ).history
    if not all(value == value and abs(value) != float("inf") for value in history["loss"]):
        raise InputError(
            "Training keeps a finite loss.",
            received=f"losses by epoch: {history['loss']}",
            remedy="Lower --learning-rate.",
        )
    values = {name: [float(v) for v in series] for name, series in history.items()}
    return {"history": values, "epochs": len(values["loss"]), "wall_s": time.perf_counter() - start}

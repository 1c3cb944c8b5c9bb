"""A progress bar for training, on standard error."""

from __future__ import annotations

from typing import Any

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bar,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Progress(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Shows steps, loss and time left; one line an epoch stays on screen."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs
        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
        )
        self._bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console, transient=True)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this first."""
        self._bar.start()
        self._task = self._bar.add_task("", total=None, loss="")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this before each epoch."""
        self._label = f"epoch {epoch + 1}/{self._epochs}"
        self._bar.reset(self._task, total=self.params["steps"], description=self._label, loss="")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after each step."""
        self._bar.advance(self._task)
        if logs and batch % 10 == 0:
            self._bar.update(self._task, loss=f"loss {float(logs['loss']):.4f}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after validation."""
        told = ", ".join(f"{name} {float(value):.4f}" for name, value in (logs or {}).items())
        self._console.print(f"{self._label}: {told}", highlight=False)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this last."""
        self._bar.stop()

"""A progress bar for training, on the standard output of a worker: its parent passes that on to standard error."""

from __future__ import annotations

import sys
from typing import Any

import keras
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bar,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kcost.core.console import UnreadConsole
from kcost.core.progress import OnProgress, ProgressLines, silent


class Progress(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Shows steps, loss and time left of the whole run; one line an epoch stays on screen, and each warning."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs
        self._task: TaskID | None = None
        self._console = UnreadConsole(file=sys.stdout)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
        )
        self._bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console, transient=True)
        # Where there is no terminal a bar shows nothing until its end.
        self._lines: OnProgress = silent if self._console.is_terminal else ProgressLines(self._print)
        self._done = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this first."""
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this before each epoch."""
        self._label, steps = f"epoch {epoch + 1}/{self._epochs}", self.params["steps"]
        if self._task is None:
            # A run that resumes begins with the steps that are done: they took this process no time.
            self._done, self._steps = epoch * steps, self._epochs * steps
            self._task = self._bar.add_task(self._label, total=self._steps, completed=self._done, loss="")
        self._bar.update(self._task, description=self._label)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after each step."""
        assert self._task is not None  # an epoch has begun
        self._bar.advance(self._task)
        self._done += 1
        if logs and batch % 10 == 0:
            loss = f"loss {float(logs['loss']):.4f}"
            self._bar.update(self._task, loss=loss)
            self._lines(self._done, self._steps, f"{self._label}, {loss}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after validation."""
        figures = ", ".join(f"{name} {float(value):.4f}" for name, value in (logs or {}).items())
        self._print(f"{self._label}: {figures}")

    def warn(self, text: str) -> None:
        """Says at once what the answer says again at the end."""
        self._print(f"warning: {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this last."""
        self._bar.stop()

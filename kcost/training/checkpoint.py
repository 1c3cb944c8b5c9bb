"""What lets a killed training run go on: after each epoch, everything that the next one depends on."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kcost.backends import driver
from kcost.core.artifact import Dataset
from kcost.core.errors import StorageError
from kcost.core.request import TrainRequest
from kcost.core.schema import write_bytes

STATE_FILE = "state.npz"
BEST_FILE = "best.npz"
PROGRESS_FILE = "progress.json"
RANDOM_STATE = "random_state"


class Checkpoint:
    """A folder beside the artifact to be, gone once that is written.

    Weights, optimizer and dropout seeds are kept as plain arrays: Keras's own weight files merge low-rank updates.
    """

    def __init__(self, folder: Path, request: TrainRequest) -> None:
        self._folder = folder
        self._driver = driver(keras.backend.backend())
        # Where a run goes on, and what an hour costs there, may change: a spot instance that is gone is one reason.
        settings = request.model_dump(mode="json", exclude={"out", "usd_per_hour", "usd_basis"})
        self._run = {**settings, "backend": keras.backend.backend()}
        self.epoch = 0
        self.best_loss = float("inf")
        self.wait = 0
        self.history: list[dict[str, float]] = []

    def resume(self, model: keras.Model, data: Dataset) -> bool:
        """Brings model and counters to where the run stopped; False where there is nothing to go on from.

        Raises:
            StorageError: the folder is of a run with other settings, on other data or on another backend.
        """
        self._run["content of the data"] = {name: split.sha256 for name, split in data.splits.items()}
        path = self._folder / PROGRESS_FILE
        if not path.exists():
            return False
        state = json.loads(path.read_text())
        held = state.get("run", {})
        if held != self._run:
            differs = sorted(k for k in self._run if held.get(k) != self._run[k])
            raise StorageError(
                "A run that was cut short goes on with the settings it began with.",
                received=f"{self._folder} with other {', '.join(differs)}",
                remedy="Give the same settings again, or remove that folder to start over.",
            )
        self.epoch, self.best_loss, self.wait = state["epoch"], state["best_loss"], state["wait"]
        self.history = state["history"]
        _load(self._state_file(), _variables(model))
        return True

    def restore_random_state(self) -> None:
        """Brings back the backend's own random numbers; called when Keras is about to run the first step."""
        if self.epoch == 0:
            return
        with np.load(self._state_file(), allow_pickle=False) as arrays:
            if RANDOM_STATE in arrays.files:
                self._driver.set_random_state(arrays[RANDOM_STATE])

    def _state_file(self) -> Path:
        return self._folder / f"{self.epoch}-{STATE_FILE}"

    def end_epoch(self, model: keras.Model, logs: dict[str, float], *, keepable: bool = True) -> bool:
        """Stores an epoch; returns whether its validation loss is the best so far.

        One that is not keepable, such as one whose model is not yet as sparse as was asked, is never the best.
        """
        self.epoch += 1
        self.history.append(logs)
        better = keepable and logs["val_loss"] < self.best_loss
        if better:
            self.best_loss, self.wait = logs["val_loss"], 0
            _save(self._folder / BEST_FILE, model.variables)
        elif keepable:
            self.wait += 1
        random = self._driver.random_state()
        extra = {} if random is None else {RANDOM_STATE: random}
        _save(self._state_file(), _variables(model), extra)
        counters = {"epoch": self.epoch, "best_loss": self.best_loss, "wait": self.wait, "history": self.history}
        # Written last: it names the state that it belongs to, so that a kill in between loses this epoch only.
        write_bytes(self._folder / PROGRESS_FILE, json.dumps({"run": self._run, **counters}).encode())
        (self._folder / f"{self.epoch - 1}-{STATE_FILE}").unlink(missing_ok=True)
        return better

    def restore_best(self, model: keras.Model) -> None:
        """Puts the weights of the epoch with the lowest validation loss into the model."""
        _load(self._folder / BEST_FILE, model.variables)

    def remove(self) -> None:
        """Ends the run for good."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _save(path: Path, variables: list[Any], extra: dict[str, np.ndarray] | None = None) -> None:
    content = io.BytesIO()
    arrays = {f"arr_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    np.savez(content, **arrays, **(extra or {}))  # type: ignore[arg-type]  # numpy types its own flag into **kwds
    write_bytes(path, content.getvalue())


def _load(path: Path, variables: list[Any]) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        for i, variable in enumerate(variables):
            variable.assign(arrays[f"arr_{i}"])

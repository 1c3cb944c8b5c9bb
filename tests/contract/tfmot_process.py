"""What tensorflow_model_optimization says, from a process of its own: it needs tensorflow and tf_keras.

tfmot_process.py FOLDER: for each *.npz with arrays x, y, weights_0... and `settings`, trains with pruning and writes
into FOLDER/answers, by the same name, the weights before each step, the masks after it, and the weights at the end.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def answer(made: Path, out: Path) -> None:
    import tensorflow_model_optimization as tfmot
    import tf_keras

    given = np.load(made)
    experiment: dict[str, Any] = json.loads(str(given["settings"]))
    schedules = {"constant": tfmot.sparsity.keras.ConstantSparsity, "polynomial": tfmot.sparsity.keras.PolynomialDecay}
    schedule = schedules[experiment["schedule"]](**experiment["schedule_arguments"])
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Input(given["x"].shape[1:]),
            tf_keras.layers.Conv2D(8, 3, activation="relu"),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(12, activation="relu"),
            tf_keras.layers.Dense(5, activation="softmax"),
        ]
        if experiment["convolution"]
        else [
            tf_keras.layers.Input(given["x"].shape[1:]),
            tf_keras.layers.Dense(30, activation="relu"),
            tf_keras.layers.Dense(5, activation="softmax"),
        ]
    )
    model.set_weights([given[f"weights_{i}"] for i in range(len(model.weights))])
    arguments = experiment["arguments"]
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model, schedule, **arguments)
    arrays: dict[str, np.ndarray] = {}

    class Keep(tf_keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            for name, (weight, _, _) in self.variables():
                arrays[f"before/{self.step}/{name}"] = weight.numpy()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            for name, (_, mask, _) in self.variables():
                arrays[f"mask/{self.step}/{name}"] = mask.numpy()

        def variables(self) -> Any:
            wrapped = [layer for layer in pruned.layers if getattr(layer, "pruning_vars", None)]
            self.step = int(wrapped[0].pruning_step.numpy())
            return [(str(i), layer.pruning_vars[0]) for i, layer in enumerate(wrapped)]

    pruned.compile(tf_keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), Keep()]
    settings = {"batch_size": 8, "epochs": experiment["epochs"], "shuffle": False, "verbose": 0}
    pruned.fit(given["x"], given["y"], callbacks=callbacks, **settings)
    for i, value in enumerate(tfmot.sparsity.keras.strip_pruning(pruned).get_weights()):
        arrays[f"end/{i}"] = value
    np.savez(out, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    folder = Path(sys.argv[1])
    (folder / "answers").mkdir()
    for path in sorted(folder.glob("*.npz")):
        answer(path, folder / "answers" / path.name)

"""Masks equal those of tensorflow_model_optimization, step by step, on whichever backend trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kcost.core.process import version_of
from kcost.core.prune_spec import parse_prune_spec
from kcost.optimize.kernels import kernels_of
from kcost.optimize.pruning.pruning import PruningCallback, masks_of
from testing.one_backend import BACKEND

pytestmark = [
    pytest.mark.skipif(
        version_of("tensorflow-model-optimization") is None or version_of("tf_keras") is None,
        reason="tensorflow_model_optimization and tf_keras are not installed",
    ),
    # The masks are made by the same numpy code everywhere: one backend in each run is enough.
    *([pytest.mark.slow] if BACKEND != "tensorflow" else []),
]

EPOCHS, STEPS = 4, 16
POLYNOMIAL = {"initial_sparsity": 0.0, "final_sparsity": 0.8, "begin_step": 3, "end_step": 11, "frequency": 2}
CONSTANT = {"target_sparsity": 0.55, "begin_step": 2, "end_step": 10, "frequency": 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "polynomial": (
        "magnitude:0.8,schedule=polynomial,begin=0.2,end=0.7,every=2",
        {"schedule": "polynomial", "schedule_arguments": POLYNOMIAL, "arguments": {}, "convolution": True},
    ),
    "constant": (
        "magnitude:0.55,begin=0.1,end=0.65,every=4",
        {"schedule": "constant", "schedule_arguments": CONSTANT, "arguments": {}, "convolution": True},
    ),
    "pattern": (
        "2:4",
        {
            "schedule": "constant",
            "schedule_arguments": {"target_sparsity": 0.5, "begin_step": 0, "end_step": 1, "frequency": 1},
            "arguments": {"sparsity_m_by_n": [2, 4]},
            "convolution": True,
        },
    ),
    "blocks": (
        "block:1x4:0.55,begin=0.1,end=0.65,every=4",
        {
            "schedule": "constant",
            "schedule_arguments": CONSTANT,
            "arguments": {"block_size": [1, 4]},
            "convolution": False,
        },
    ),
    "tall_blocks": (
        "block:16x1:0.55,begin=0.1,end=0.65,every=4,pooling=max",
        {
            "schedule": "constant",
            "schedule_arguments": CONSTANT,
            "arguments": {"block_size": [16, 1], "block_pooling_type": "MAX"},
            "convolution": False,
        },
    ),
}


class Spy(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the masks after each step."""

    def __init__(self, pruning: PruningCallback) -> None:
        super().__init__()
        self.pruning = pruning
        self.masks: list[list[np.ndarray]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.masks.append(list(self.pruning.masks.values()))


def made(case: str) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A model and data for it, the same each time."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    convolution = CASES[case][1]["convolution"]
    x = rng.normal(size=(32, 6, 6, 6) if convolution else (32, 26)).astype(np.float32)
    layers: list[Any] = [keras.layers.Dense(30, activation="relu")]
    if convolution:
        layers = [
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="relu"),
        ]
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers, keras.layers.Dense(5, activation="softmax")])
    # Rounded, so that there are ties.
    model.set_weights([np.round(w, 1) for w in model.get_weights()])
    return model, x, rng.integers(0, 5, 32)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what TFMOT says of each case, from one process for all of them."""
    folder = tmp_path_factory.mktemp("tfmot")
    for case, (_, settings) in CASES.items():
        model, x, y = made(case)
        weights = {f"weights_{i}": w for i, w in enumerate(model.get_weights())}
        np.savez(folder / f"{case}.npz", x=x, y=y, settings=json.dumps({**settings, "epochs": EPOCHS}), **weights)
    script = Path(__file__).with_name("tfmot_process.py")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder / "answers"


@pytest.mark.parametrize("case", CASES)
def test_masks_are_those_of_tfmot(case: str, answers: Path) -> None:
    spec = parse_prune_spec(CASES[case][0])
    model, x, y = made(case)
    theirs = np.load(answers / f"{case}.npz")
    pruning = PruningCallback(spec, STEPS)
    assert pruning.schedule is not None
    spy = Spy(pruning)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=8, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[pruning, spy])

    kernels, _ = kernels_of(model)
    updates = 0
    for step in range(1, STEPS + 1):
        for i, mask in enumerate(spy.masks[step - 1]):
            np.testing.assert_array_equal(mask, theirs[f"mask/{step}/{i}"].astype(bool), err_msg=f"step {step}")
        if pruning.schedule.updates_at(step):
            updates += 1
            before = [np.abs(theirs[f"before/{step - 1}/{i}"]) for i in range(len(kernels))]
            for i, mask in enumerate(masks_of(kernels, spec, before, pruning.schedule.sparsity_at(step))):
                np.testing.assert_array_equal(mask, theirs[f"mask/{step}/{i}"].astype(bool), err_msg=f"step {step}")
    assert updates == {"polynomial": 5, "pattern": 1}.get(case, 3)
    assert not all(mask.all() for mask in spy.masks[-1])
    for i, value in enumerate(model.get_weights()):
        np.testing.assert_allclose(value, theirs[f"end/{i}"], atol=1e-4)

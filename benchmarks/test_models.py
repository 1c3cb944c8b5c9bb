"""Forward passes and training steps of the two models: each method of the backend, two batch sizes.

The models have random weights and made-up inputs: only time is measured here. `kcost bench` measures
trained models on real data, paired between backends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from kcost.backends import driver
from kcost.core.artifact import answers_of_task
from kcost.core.plan import INFERENCE_METHODS
from kcost.models.bert import INPUT_NAMES, backbone, token_classifier
from kcost.models.cnn import cnn
from kcost.training.losses import loss_of
from testing.one_backend import BACKEND

BATCHES = (1, 32)
METHODS = INFERENCE_METHODS[BACKEND]
SEQUENCE_LENGTH = 128
TAGS = 7


def images(batch: int) -> tuple[keras.Model, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(size=(batch, 28, 28, 1)).astype("float32")
    return cnn((28, 28, 1), 10), {"images": pixels}, rng.integers(0, 10, batch).astype("int32")


def tokens(batch: int) -> tuple[keras.Model, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (batch, SEQUENCE_LENGTH)
    arrays = (rng.integers(0, 8000, shape), np.zeros(shape), np.ones(shape))
    inputs = {n: a.astype("int32") for n, a in zip(INPUT_NAMES, arrays, strict=True)}
    return token_classifier(backbone(8000, "tiny"), TAGS), inputs, rng.integers(0, TAGS, shape).astype("int32")


MODELS: dict[str, tuple[Callable[[int], Any], str]] = {
    "cnn": (images, "image-classification"),
    "bert-tiny": (tokens, "token-classification"),
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_forward(benchmark: Any, model: str, method: str, batch: int) -> None:
    benchmark.group = f"{model} forward, batch {batch}"
    own = driver(BACKEND)
    keras_model, inputs, _ = MODELS[model][0](batch)
    forward = own.predict_step(keras_model, batch) if method == "predict" else own.compile_forward(keras_model, method)
    outputs = benchmark.pedantic(lambda: own.to_host(forward(inputs)), warmup_rounds=3, rounds=20, iterations=1)
    assert len(outputs[0]) == batch


@pytest.mark.parametrize("model", MODELS)
def test_training_step(benchmark: Any, model: str) -> None:
    benchmark.group = f"{model} training step, batch 32"
    own = driver(BACKEND)
    make, task = MODELS[model]
    keras_model, inputs, labels = make(32)
    step = own.train_step(keras_model, loss_of(answers_of_task(task).main))
    loss = benchmark.pedantic(lambda: own.to_host(step(inputs, labels)), warmup_rounds=2, rounds=10, iterations=1)
    assert np.isfinite(loss[0]).all()

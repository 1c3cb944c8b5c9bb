"""Forward passes of the tagger and the small CNN in float32, bfloat16 and each int8 mode, one backend at a time.

The models have random weights and made-up inputs, on which static ranges are calibrated too: only time is measured
here. On tensorflow, `saved_model` is what TensorFlow Serving runs: an exported graph, without Keras and XLA.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest

from kcost.backends import driver
from kcost.core.errors import KcostError
from kcost.core.plan import INFERENCE_METHODS, SLOW_TO_COMPILE
from kcost.core.request import QuantizeMode
from kcost.models.bert import INPUT_NAMES, backbone, token_classifier
from kcost.models.cnn import cnn
from kcost.optimize.quantization import quantize
from testing.one_backend import BACKEND

BATCHES = {"cnn-small": (1, 32, 256), "minilm-tagger": (1, 32)}
MODES = ("float32", *get_args(QuantizeMode))
METHODS = [m for m in INFERENCE_METHODS[BACKEND] if m != "predict" and m not in SLOW_TO_COMPILE]
METHODS += ["saved_model"] if BACKEND == "tensorflow" else []
SEQUENCE_LENGTH = 128
TAGS = 7
CALIBRATION_EXAMPLES = 8


def images(batch: int) -> dict[str, np.ndarray]:
    return {"images": np.random.default_rng(0).uniform(size=(batch, 28, 28, 1)).astype("float32")}


def tokens(batch: int) -> dict[str, np.ndarray]:
    shape = (batch, SEQUENCE_LENGTH)
    arrays = (np.random.default_rng(0).integers(0, 8000, shape), np.zeros(shape), np.ones(shape))
    return {n: a.astype("int32") for n, a in zip(INPUT_NAMES, arrays, strict=True)}


INPUTS: dict[str, Callable[[int], dict[str, np.ndarray]]] = {"cnn-small": images, "minilm-tagger": tokens}


@functools.cache
def float_model(name: str) -> keras.Model:
    return cnn((28, 28, 1), 10, "small") if name == "cnn-small" else token_classifier(backbone(8000, "minilm"), TAGS)


@functools.cache
def optimized(name: str, mode: str) -> keras.Model:
    """The model in a mode; made once, since quantizing takes longer than measuring."""
    model = float_model(name)
    if mode == "float32":
        return model
    calibration = INPUTS[name](CALIBRATION_EXAMPLES) if mode == "static" else None
    return quantize(model, mode, calibration=calibration)[0]  # type: ignore[arg-type]


def saved_model_step(model: keras.Model, inputs: dict[str, np.ndarray]) -> Callable[[], list[np.ndarray]]:
    """A call of the exported model by TensorFlow's C++ library."""
    from kcost.runtimes.saved_model import SavedModelSession
    from kcost.worker.convert.saved_model import write_saved_model

    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(model, Path("model.keras"), Path(folder), portable=False)
        session = SavedModelSession(folder)
    return lambda: list(session.run(inputs).values())


def step_of(model: keras.Model, method: str, inputs: dict[str, np.ndarray]) -> Callable[[], list[np.ndarray]]:
    if method == "saved_model":
        return saved_model_step(model, inputs)
    own = driver(BACKEND)
    forward = own.compile_forward(model, method)
    return lambda: own.to_host(forward(inputs))


@pytest.mark.parametrize(("name", "batch"), [(name, batch) for name in INPUTS for batch in BATCHES[name]])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", MODES)
def test_optimized_forward(benchmark: Any, name: str, mode: str, method: str, batch: int) -> None:
    benchmark.group = f"{name} {method}, batch {batch}"
    try:
        step = step_of(optimized(name, mode), method, INPUTS[name](batch))
    except KcostError as error:
        pytest.skip(str(error))
    outputs = benchmark.pedantic(step, warmup_rounds=2, rounds=20 if batch == 1 else 8, iterations=1)
    assert len(outputs[0]) == batch
    assert np.isfinite(outputs[0]).all()

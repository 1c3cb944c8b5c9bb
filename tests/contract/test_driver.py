from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kcost.backends import driver
from kcost.backends.base import Driver, arrange
from kcost.core.artifact import answers_of_task
from kcost.core.plan import INFERENCE_METHODS
from kcost.models.bert import backbone, token_classifier
from kcost.models.cnn import cnn
from kcost.training.losses import loss_of
from tests.contract.inputs import token_inputs


@pytest.fixture(scope="module")
def own(backend: str) -> Driver:
    return driver(backend)


def image_model() -> tuple[keras.Model, dict[str, np.ndarray]]:
    images = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype("float32")
    return cnn((8, 8, 1), 4, "small"), {"images": images}


def text_model() -> tuple[keras.Model, dict[str, np.ndarray]]:
    return token_classifier(backbone(50, "tiny"), 5), token_inputs(3, 16)


class Plain(keras.Model):  # type: ignore[misc]
    """Its call knows nothing of training, as Keras allows."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.hidden(x)


def plain_model() -> tuple[keras.Model, dict[str, np.ndarray]]:
    model = Plain()
    rows = np.random.default_rng(0).uniform(size=(5, 4)).astype("float32")
    model(rows)
    return model, {"inputs": rows}


@pytest.mark.parametrize("make", [image_model, text_model, plain_model])
def test_every_method_answers_as_the_model_does(own: Driver, make: object) -> None:
    model, inputs = make()  # type: ignore[operator]
    expected = keras.ops.convert_to_numpy(model(arrange(model, inputs), training=False))
    methods = [m for m in INFERENCE_METHODS[own.name] if m != "compile"]  # type: ignore[index]
    assert "predict" in methods
    for method in methods:
        step = own.predict_step(model, 2) if method == "predict" else own.compile_forward(model, method)
        for _ in range(2):  # the second call finds what the first compiled
            outputs = own.to_host(step(inputs))
            assert outputs[0].dtype == np.float32
            np.testing.assert_allclose(outputs[0], expected, atol=1e-4, err_msg=method)
            assert own.device_kind(step(inputs)) == "cpu"


class Undecided(keras.Model):  # type: ignore[misc]  # keras is not read by the type checker
    """Looks at its values in Python, which torch.export cannot trace."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + 1 if float(keras.ops.sum(x)) > 0 else x


def small_model() -> tuple[keras.Model, dict[str, np.ndarray]]:
    return cnn((8, 8, 1), 4), image_model()[1]  # the smallest: compiling takes seconds for each layer


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_model, text_model])
@pytest.mark.filterwarnings("error:torch.compile takes this model")
def test_torch_compile_takes_a_model_whole(own: Driver, make: object) -> None:
    if own.name != "torch":
        assert "compile" not in INFERENCE_METHODS[own.name]  # type: ignore[index]
        return
    model, inputs = make()  # type: ignore[operator]
    step = own.compile_forward(model, "compile")
    for rows in (slice(None), slice(0, 2)):  # another shape is another program
        some = {name: array[rows] for name, array in inputs.items()}
        expected = keras.ops.convert_to_numpy(model(arrange(model, some), training=False))
        np.testing.assert_allclose(own.to_host(step(some))[0], expected, atol=1e-4)


@pytest.mark.slow
def test_torch_compile_says_that_it_takes_a_model_in_pieces(own: Driver) -> None:
    if own.name != "torch":
        return
    x = np.ones((2, 3), "float32")
    step = own.compile_forward(Undecided(), "compile")
    with pytest.warns(UserWarning, match="piece by piece"):
        np.testing.assert_array_equal(own.to_host(step({"x": x}))[0], x + 1)


def test_what_aotinductor_refuses_is_compiled_still(own: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    if own.name != "torch":
        return
    import torch._inductor

    def refuse(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("no shim for this operator")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", refuse)
    given = keras.Input((3,), name="x")
    model = keras.Model(given, keras.layers.Dense(2)(given))
    x = np.ones((2, 3), "float32")
    step = own.compile_forward(model, "compile")
    with pytest.warns(UserWarning, match="AOTInductor refuses it: RuntimeError: no shim"):
        outputs = own.to_host(step({"x": x}))[0]
    np.testing.assert_allclose(outputs, keras.ops.convert_to_numpy(model(x)), atol=1e-5)


def test_a_compiled_forward_outlives_predict(own: Driver) -> None:
    """Keras's predict on jax donates the buffers of the variables."""
    model, inputs = image_model()
    step = own.compile_forward(model, INFERENCE_METHODS[own.name][0])  # type: ignore[index]
    before = own.to_host(step(inputs))[0]
    own.predict_step(model, 5)(inputs)
    np.testing.assert_array_equal(own.to_host(step(inputs))[0], before)


@pytest.mark.parametrize("precision", ["bfloat16", "mixed_bfloat16"])
def test_a_loaded_model_takes_on_a_precision(own: Driver, precision: str, tmp_path: Path) -> None:
    model, inputs = image_model()
    path = tmp_path / "model.keras"
    model.save(path)
    expected = own.to_host(own.compile_forward(model, INFERENCE_METHODS[own.name][0])(inputs))[0]  # type: ignore[index]
    changed = own.load(path, precision)
    assert {w.dtype for w in changed.trainable_weights} == {"bfloat16" if precision == "bfloat16" else "float32"}
    outputs = own.to_host(own.compile_forward(changed, INFERENCE_METHODS[own.name][0])(inputs))[0]  # type: ignore[index]
    assert 0 < np.abs(outputs - expected).max() < 0.05


@pytest.mark.parametrize(
    ("make", "task"), [(image_model, "image-classification"), (text_model, "token-classification")]
)
def test_training_steps_lower_the_loss(own: Driver, make: object, task: str) -> None:
    model, inputs = make()  # type: ignore[operator]
    rng = np.random.default_rng(0)
    if task == "image-classification":
        labels = rng.integers(0, 4, 5).astype("int32")
    else:
        labels = np.where(inputs["padding_mask"] == 1, rng.integers(0, 5, (3, 16)), -1).astype("int32")
    step = own.train_step(model, loss_of(answers_of_task(task).main))
    losses = [float(own.to_host(step(inputs, labels))[0]) for _ in range(15)]
    assert losses[-1] < losses[0]


def test_the_driver_tells_what_it_runs_on(own: Driver, backend: str) -> None:
    assert own.version()
    assert own.devices()["cpu"]
    assert own.tf32() is None or own.devices()["gpu"]
    assert own.peak_device_bytes() is None or own.devices()["gpu"]
    assert not own.simulated
    assert own.name == backend

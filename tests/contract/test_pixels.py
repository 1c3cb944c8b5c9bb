"""Models that scale their pixels themselves: scored, made cheaper and attacked in the scale that they take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kcost import data
from kcost.core.artifact import open_model
from kcost.core.errors import InputError, UnavailableError
from kcost.core.request import AttackRequest, EvaluateRequest, OptimizeRequest
from kcost.models.pixels import OwnScaling, own_scaling
from kcost.worker import evaluate, optimize, robustness

PRICE = {"usd_per_hour": 0.1, "usd_basis": "a test"}
SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Handwritten digits as bytes, where they lie, and the accuracy of the nearest mean of a class."""
    from sklearn.datasets import load_digits

    handwritten = load_digits()
    x, y = np.rint(handwritten.images / 16 * 255).astype("uint8")[..., None], handwritten.target
    path = tmp_path_factory.mktemp("digits") / "data.npz"
    np.savez(path, x_train=x[:1300], y_train=y[:1300], x_test=x[1300:], y_test=y[1300:])
    return {"path": str(path), "x": x, "y": y}


Scale = Callable[[Any], Any]


def nearest_mean(digits: dict[str, Any], first: list[keras.layers.Layer], seen: Scale, dtype: str = "float32") -> Any:
    """A model of `first`, which turns bytes into what `seen` does, and then the nearest mean of a class."""
    x = seen(digits["x"][:1300].astype("float32")).reshape(1300, -1)
    means = np.stack([x[digits["y"][:1300] == c].mean(0) for c in range(10)])
    dense = layers.Dense(10, activation="softmax", name="classes")
    model = keras.Sequential([keras.Input(SHAPE, name="images", dtype=dtype), *first, layers.Flatten(), dense])
    dense.set_weights([means.T, -0.5 * np.square(means).sum(1)])
    return model


def accuracy(model: keras.Model, fed: np.ndarray, labels: np.ndarray) -> float:
    return float((np.asarray(model.predict(fed, verbose=0)).argmax(-1) == labels).mean())


def score(model: keras.Model, folder: Path, digits: dict[str, Any], **options: Any) -> tuple[float, str]:
    """The accuracy that kcost gives, and what it says of the pixels."""
    path = folder / "model.keras"
    model.save(path)
    evaluation = evaluate.run(EvaluateRequest(model=path, data=digits["path"], **options))
    (said,) = [note for note in evaluation.dataset.notes if note.startswith("pixels: ")]
    return evaluation.scores[0].value, said


def unit(x: Any) -> Any:
    return x / 255


def rescaling(digits: dict[str, Any]) -> Any:
    return nearest_mean(digits, [layers.Rescaling(1 / 255)], unit)


def signed_in_a_model(digits: dict[str, Any]) -> Any:
    inner = keras.Sequential([keras.Input(SHAPE), layers.RandomFlip(), layers.Rescaling(1 / 127.5, offset=-1)])
    return nearest_mean(digits, [inner], lambda x: x / 127.5 - 1)


def adapted(digits: dict[str, Any]) -> Any:
    normalization = layers.Normalization(axis=None)
    normalization.adapt(digits["x"][:1300].astype("float32"))
    mean, std = digits["x"][:1300].mean(), digits["x"][:1300].std()
    return nearest_mean(digits, [normalization], lambda x: (x - mean) / std)


def operations(digits: dict[str, Any]) -> Any:
    rest = nearest_mean(digits, [], lambda x: x / 127.5 - 1)
    start = keras.Input(SHAPE)
    return keras.Model(start, rest(start / 127.5 - 1.0))


def of_bytes(digits: dict[str, Any]) -> Any:
    return nearest_mean(digits, [layers.Rescaling(1 / 255)], unit, dtype="uint8")


@pytest.mark.parametrize(
    ("make", "by"),
    [
        (rescaling, "Rescaling"),
        (signed_in_a_model, "Rescaling"),
        (adapted, "Normalization"),
        (operations, "a constant factor"),
        (of_bytes, "Rescaling"),
    ],
)
def test_a_model_that_scales_is_fed_whole_pixels_and_told(digits, tmp_path, make, by) -> None:
    model = make(digits)
    value, said = score(model, tmp_path, digits)
    assert said == f"pixels: 0-255, as the model scales them itself ({by} in the file)"
    assert value == pytest.approx(accuracy(model, digits["x"][1300:], digits["y"][1300:]), abs=1e-6)
    assert value > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("MobileNetV3Small", "Rescaling"),
        ("EfficientNetB0", "Rescaling"),
        ("EfficientNetV2B0", "Rescaling"),
        ("ConvNeXtTiny", "Normalization"),
        ("MobileNetV2", None),
    ],
)
def test_models_of_keras_with_preprocessing_inside(tmp_path, name, by) -> None:
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=10)
    model.save(tmp_path / "model.keras")
    assert own_scaling(tmp_path / "model.keras") == (None if by is None else OwnScaling("0-255", by))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["mobilenet_v2", "vgg16", "densenet"])
def test_preprocessing_called_in_a_functional_model(tmp_path, module) -> None:
    start = keras.Input((32, 32, 3))
    scaled = getattr(keras.applications, module).preprocess_input(start)
    keras.Model(start, layers.Conv2D(2, 3)(scaled)).save(tmp_path / "model.keras")
    scaling = own_scaling(tmp_path / "model.keras")
    assert scaling is not None
    assert scaling.scale == "0-255"


def test_the_user_has_the_last_word(digits, tmp_path) -> None:
    """Nothing in this file says that its images were standardised before."""
    split = data.load(digits["path"]).splits["train"].x
    mean, std = split.mean() * 255, split.std() * 255
    model = nearest_mean(digits, [], lambda x: (x - mean) / std)
    plain, said = score(model, tmp_path, digits)
    assert said == "pixels: 0-1, as nothing in the model's file scales them"
    value, said = score(model, tmp_path, digits, pixels="mean-std")
    assert said.endswith("as --pixels says")
    fed = (digits["x"][1300:].astype("float32") - mean) / std
    assert value == pytest.approx(accuracy(model, fed, digits["y"][1300:]), abs=1e-6)
    assert value > plain
    black, _ = score(rescaling(digits), tmp_path, digits, pixels="0-1")
    assert black < 0.2


def test_pixels_are_of_images(digits, tmp_path) -> None:
    path = tmp_path / "model.keras"
    rescaling(digits).save(path)
    with pytest.raises(InputError, match="Pixels are of images"):
        evaluate.run(EvaluateRequest(model=path, data="ner-mini", pixels="0-1"))


@pytest.mark.parametrize("pixels", [None, "mean-std"])
def test_an_artifact_remembers_its_pixels(digits, tmp_path, pixels) -> None:
    split = data.load(digits["path"]).splits["train"].x
    standard: Scale = lambda x: (x / 255 - split.mean()) / split.std()  # noqa: E731
    model = rescaling(digits) if pixels is None else nearest_mean(digits, [], standard)
    path, out = tmp_path / "model.keras", tmp_path / "small"
    model.save(path)
    settings = {"model": str(path), "out": str(out), "name": "small", "data": digits["path"], "quantize": "static"}
    answer = optimize.run(OptimizeRequest.model_validate({**settings, "pixels": pixels, **PRICE}))
    assert answer.drop.before > 0.8
    assert answer.drop.after > 0.8
    assert open_model(out).artifact == answer.artifact
    assert answer.artifact.pixels is not None
    assert answer.artifact.pixels.scale == ("0-255" if pixels is None else pixels)
    again = evaluate.run(EvaluateRequest(model=out, limit=200))
    assert again.scores[0].value > 0.8
    assert again.dataset.notes[-1].startswith(f"pixels: {answer.artifact.pixels.scale}")
    assert again.dataset.notes[-1].endswith("as the artifact was made with")
    with np.load(out / "samples.npz") as samples:
        assert samples["images"].max() == (255 if pixels is None else answer.artifact.pixels.range[1])


def test_the_size_of_an_attack_is_that_on_images_in_0_to_1(digits, tmp_path) -> None:
    """The sign of the gradient of a linear model is known: towards the other classes by their share, from its own."""
    path, count, epsilon = tmp_path / "model.keras", 120, 0.1
    model = rescaling(digits)
    model.save(path)
    request = AttackRequest(model=path, data=digits["path"], epsilons=(epsilon,), limit=count)
    accuracies = [r.scores[0].value for r in robustness.run(request).results]

    test = data.load(digits["path"], limit=count).splits["test"]
    x, kernel, bias = test.x.reshape(count, -1), *map(np.asarray, model.get_layer("classes").get_weights())
    logits = x @ kernel + bias
    others = np.where(np.eye(10)[test.y] == 1, -np.inf, logits)
    shares = np.exp(others - others.max(1, keepdims=True))
    gradient = shares / shares.sum(1, keepdims=True) @ kernel.T - kernel.T[test.y]
    attacked = (x + epsilon * np.sign(gradient)).clip(0, 1)
    expected = [((v @ kernel + bias).argmax(1) == test.y).mean() for v in (x, attacked)]
    assert expected[1] < expected[0] - 0.1
    assert accuracies == pytest.approx(expected, abs=0.02)


def test_an_attack_on_whole_numbers_is_refused(digits, tmp_path) -> None:
    path = tmp_path / "model.keras"
    of_bytes(digits).save(path)
    with pytest.raises(UnavailableError, match="whole numbers do not have"):
        robustness.run(AttackRequest(model=path, data=digits["path"], epsilons=(0.1,)))

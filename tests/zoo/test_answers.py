"""`kcost evaluate` against Keras's own metrics on the same rows, for each kind of answer, within 1e-6."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, losses, metrics

from kcost.core.request import EvaluateRequest
from kcost.worker import evaluate

ROWS = 57
"""Of the test split: no multiple of a batch."""

FEATURES, STEPS = 6, 5
WITHIN = 1e-6

Metrics = Mapping[str, Callable[[], keras.metrics.Metric]]
"""kcost's name of a score -> Keras's metric."""


class Head(NamedTuple):
    """An output, the labels that go with it, and what Keras scores it by."""

    make: Callable[[Any], Any]
    """Features (batch, FEATURES), or (batch, STEPS, FEATURES) of tags, in; the output out."""
    labels: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    """From what the model answers: often right, and wrong in places."""
    loss: Callable[[], keras.losses.Loss]
    metrics: Metrics
    sequences: bool = False


def _classes(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    others = rng.integers(0, y.shape[-1], y.shape[:-1])
    return np.where(rng.random(y.shape[:-1]) < 0.7, y.argmax(-1), others).astype(np.int32)


def _one_hot(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.eye(y.shape[-1], dtype=np.float32)[_classes(y, rng)]


def _flipped(threshold: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    return lambda y, rng: ((y > threshold) ^ (rng.random(y.shape) < 0.3)).astype(np.int32)


def _near(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (y + rng.normal(0, 0.5, y.shape)).astype(np.float32)


SPARSE: Metrics = {"accuracy": metrics.SparseCategoricalAccuracy}
NUMBERS: Metrics = {
    "r2": metrics.R2Score,
    "mae": metrics.MeanAbsoluteError,
    "rmse": metrics.RootMeanSquaredError,
}
SEVERAL: Metrics = {
    "f1_micro": lambda: metrics.F1Score("micro", 0.5),
    "f1_macro": lambda: metrics.F1Score("macro", 0.5),
    "binary_accuracy": metrics.BinaryAccuracy,
}

HEADS: dict[str, Head] = {
    "multiclass probabilities": Head(
        layers.Dense(4, activation="softmax"), _classes, losses.SparseCategoricalCrossentropy, SPARSE
    ),
    "multiclass logits": Head(
        layers.Dense(4), _classes, lambda: losses.SparseCategoricalCrossentropy(from_logits=True), SPARSE
    ),
    "labels in a column": Head(
        layers.Dense(4, activation="softmax"),
        lambda y, rng: _classes(y, rng)[:, None],
        losses.SparseCategoricalCrossentropy,
        SPARSE,
    ),
    "one-hot labels": Head(
        layers.Dense(4, activation="softmax"),
        _one_hot,
        losses.CategoricalCrossentropy,
        {"accuracy": metrics.CategoricalAccuracy},
    ),
    "binary, a sigmoid unit": Head(
        layers.Dense(1, activation="sigmoid"),
        lambda y, rng: _flipped(0.5)(y, rng)[:, 0],
        losses.BinaryCrossentropy,
        {"accuracy": metrics.BinaryAccuracy},
    ),
    "binary, a logit": Head(
        layers.Dense(1),
        lambda y, rng: _flipped(0.0)(y, rng)[:, 0],
        lambda: losses.BinaryCrossentropy(from_logits=True),
        {"accuracy": lambda: metrics.BinaryAccuracy(threshold=0.0)},
    ),
    "binary, two units": Head(
        layers.Dense(2, activation="softmax"), _classes, losses.SparseCategoricalCrossentropy, SPARSE
    ),
    "multi-label": Head(layers.Dense(5, activation="sigmoid"), _flipped(0.5), losses.BinaryCrossentropy, SEVERAL),
    "regression": Head(layers.Dense(1), _near, losses.MeanSquaredError, NUMBERS),
    "regression without an axis": Head(
        lambda x: layers.Reshape(())(layers.Dense(1)(x)),
        _near,
        losses.MeanSquaredError,
        {name: NUMBERS[name] for name in ("mae", "rmse")},  # Keras's R2Score takes columns only
    ),
    "regression of three numbers": Head(layers.Dense(3), _near, losses.MeanSquaredError, NUMBERS),
    "tags": Head(
        layers.Dense(4, activation="softmax"), _classes, losses.SparseCategoricalCrossentropy, SPARSE, sequences=True
    ),
}

TOGETHER = {"animal": "multiclass probabilities", "young": "binary, a sigmoid unit", "weight": "regression"}
"""Outputs of a model with several, by name."""


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "not compiled"])
@pytest.mark.parametrize("kind", HEADS)
def test_scores_are_those_of_keras(kind: str, compiled: bool, tmp_path: Path) -> None:
    """A file that was not compiled says no loss: the layers and the labels tell."""
    _check(tmp_path, {"answer": HEADS[kind]}, compiled)


def test_scores_of_several_outputs_are_those_of_keras(tmp_path: Path) -> None:
    _check(tmp_path, {name: HEADS[kind] for name, kind in TOGETHER.items()}, True)


def _check(folder: Path, heads: dict[str, Head], compiled: bool) -> None:
    rng = np.random.default_rng(5)
    shape = (STEPS, FEATURES) if any(head.sequences for head in heads.values()) else (FEATURES,)
    x = {part: rng.normal(size=(rows, *shape)).astype(np.float32) for part, rows in (("train", 40), ("test", ROWS))}
    model, y = _model(heads, x, rng)
    single = len(heads) == 1
    named = {f"y_{part}" + ("" if single else f"/{name}"): labels for (part, name), labels in y.items()}
    data = folder / "data.npz"
    np.savez(data, x_train=x["train"], x_test=x["test"], **named)  # type: ignore[arg-type]  # numpy types its own flag
    scored = {name: {key: metric() for key, metric in head.metrics.items()} for name, head in heads.items()}
    if not compiled:
        model.save(folder / "model.keras")
    model.compile(
        loss=[head.loss() for head in heads.values()],
        metrics=[list(of.values()) for of in scored.values()],
    )
    if compiled:
        model.save(folder / "model.keras")

    # At once: of outputs without a second axis Keras averages the means of batches, however many rows these have.
    model.evaluate(x["test"], [y["test", name] for name in heads], batch_size=ROWS, verbose=0)
    scores = evaluate.run(EvaluateRequest(model=folder / "model.keras", data=str(data), batch_size=16)).scores

    score_of = {(None if single else score.output, score.name): score.value for score in scores}
    expected = {
        (None if single else name, key): float(metric.result())
        for name, of in scored.items()
        for key, metric in of.items()
    }
    assert {key: score_of.get(key) for key in expected} == pytest.approx(expected, abs=WITHIN)
    assert all(score.count >= ROWS for score in scores)


def _model(
    heads: dict[str, Head], x: dict[str, np.ndarray], rng: np.random.Generator
) -> tuple[keras.Model, dict[tuple[str, str], np.ndarray]]:
    """A model with random weights, and labels by part and output."""
    inputs = keras.Input(x["test"].shape[1:], name="features")
    outputs = []
    for name, head in heads.items():
        # A layer belongs to one model only.
        make = head.make
        fresh = type(make).from_config(make.get_config()) if isinstance(make, layers.Layer) else make
        outputs.append(layers.Identity(name=name)(fresh(inputs)))
    model = keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 1, variable.shape))
    labels = {}
    for part, rows in x.items():
        answers = keras.tree.flatten(model.predict(rows, verbose=0))
        for (name, head), answer in zip(heads.items(), answers, strict=True):
            labels[part, name] = head.labels(np.asarray(answer), rng)
    return model, labels

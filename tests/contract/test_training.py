"""Each training option on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kcost import data
from kcost.core.artifact import answers_of_task
from kcost.core.errors import InputError, StorageError
from kcost.models.cnn import cnn
from kcost.models.precision import with_precision
from kcost.training import fit as fit_module
from kcost.training.checkpoint import Checkpoint
from kcost.training.distillation import soft_targets
from kcost.training.fit import fit
from kcost.training.layers import depth_of_layers
from kcost.training.losses import WeightedCrossEntropy, loss_of
from kcost.training.optimizer import LayerwiseAdamW, WarmupDecay
from kcost.training.tasks import ImageClassification, TokenClassification
from kcost.training.transfer import copy_weights
from tests.contract.trainings import tagger, train, train_request


@pytest.fixture(scope="module")
def images() -> ImageClassification:
    data_set = data.load("digits", limit=96)
    assert isinstance(data_set, data.ImageSet)
    return ImageClassification(data_set)


@pytest.fixture(scope="module")
def texts() -> TokenClassification:
    data_set = data.load("ner-mini", limit=48)
    assert isinstance(data_set, data.TagSet)
    return TokenClassification.with_own_vocabulary(data_set, 300, 32)


def weights_by_layer(model: keras.Model) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def changed_layers(before: dict[str, list[np.ndarray]], after: dict[str, list[np.ndarray]]) -> set[str]:
    return {n for n in before if any((a != b).any() for a, b in zip(before[n], after[n], strict=True))}


@pytest.mark.parametrize(
    ("options", "frozen"),
    [
        (
            {"freeze": "embeddings"},
            {"token_embedding", "position_embedding", "segment_embedding", "embeddings_layer_norm"},
        ),
        pytest.param(
            *({"freeze_layers": 1}, {"token_embedding", "embeddings_layer_norm", "transformer_layer_0"}),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *({"freeze": "backbone"}, {"token_embedding", "transformer_layer_0", "transformer_layer_1"}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_frozen_layers_keep_their_weights(
    texts: TokenClassification, tmp_path: Path, options: dict[str, Any], frozen: set[str]
) -> None:
    model = tagger(texts)
    before = weights_by_layer(model)
    report = train(model, texts, tmp_path, epochs=1, **options)
    changed = changed_layers(before, weights_by_layer(model))
    assert not changed & frozen
    assert "logits" in changed
    assert "frozen" in report.changed[0]


def test_what_a_model_has_not_cannot_be_frozen(
    images: ImageClassification, texts: TokenClassification, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="Use --freeze backbone"):
        train(cnn((8, 8, 1), 10), images, tmp_path, freeze="embeddings")
    with pytest.raises(InputError, match="2 layers to freeze"):
        train(tagger(texts), texts, tmp_path, freeze_layers=3)
    with pytest.raises(InputError, match="which has none"):
        train(cnn((8, 8, 1), 10), images, tmp_path, lora_rank=2)


@pytest.mark.slow
def test_low_rank_updates_are_merged_into_the_plain_model(texts: TokenClassification, tmp_path: Path) -> None:
    plain = tagger(texts)
    model = with_precision(plain, "float32")
    before = weights_by_layer(copy_weights(plain, plain))
    train(model, texts, tmp_path, epochs=1, lora_rank=2, learning_rate=1e-2)
    fresh = copy_weights(model, plain)
    batch, _ = texts.batches("validation", 8, seed=None)[0]
    expected = keras.ops.convert_to_numpy(model(batch))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(fresh(batch)), expected, atol=1e-5)
    changed = changed_layers(before, weights_by_layer(fresh))
    assert changed == {"transformer_layer_0", "transformer_layer_1", "logits"}
    assert len(fresh.weights) == sum(map(len, before.values())), "no low-rank weights are left"
    assert all(layer.trainable for layer in fresh.layers)


def test_mixed_precision_leaves_a_float32_model(images: ImageClassification, tmp_path: Path) -> None:
    plain = cnn((8, 8, 1), 10)
    model = with_precision(plain, "mixed_bfloat16")
    report = train(model, images, tmp_path, precision="mixed_bfloat16")
    fresh = copy_weights(model, plain)
    assert {layer.compute_dtype for layer in fresh.layers} == {"float32"}
    assert report.history[-1]["loss"] < report.history[0]["loss"]
    np.testing.assert_array_equal(fresh.get_weights()[0], model.get_weights()[0])


def test_a_layer_nearer_the_input_learns_more_slowly(texts: TokenClassification) -> None:
    model = tagger(texts)
    depths = depth_of_layers(model)
    assert [depths[n] for n in ("token_embedding", "transformer_layer_0", "transformer_layer_1", "logits")] == [
        0,
        1,
        2,
        3,
    ]
    assert list(depth_of_layers(cnn((8, 8, 1), 10)).values()) == [0, 0, 0, 0, 1]


def small_model() -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")])


def optimizers_by_variable() -> list[type[keras.optimizers.Optimizer]]:
    """Those with a factor of the rate for each variable, on this backend."""
    if keras.backend.backend() != "torch":
        return [LayerwiseAdamW]
    from kcost.backends.kernels.torch_adamw import FusedAdamW

    return [LayerwiseAdamW, FusedAdamW]


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_factor_of_one_is_keras_adamw_and_of_zero_no_step_at_all(clip_norm: float | None) -> None:
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    y = np.random.default_rng(1).integers(0, 2, 16).astype("int32")

    def after_steps(optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
        model = small_model()
        model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        for _ in range(5):
            model.train_on_batch(x, y)
        return [keras.ops.convert_to_numpy(w) for w in model.weights]

    start = [keras.ops.convert_to_numpy(w) for w in small_model().weights]
    plain = after_steps(keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=clip_norm))
    for kind in optimizers_by_variable():
        same = after_steps(kind(0.01, [1.0] * 4, [0.1] * 4, global_clipnorm=clip_norm))
        part = after_steps(kind(0.01, [0.0, 0.0, 1.0, 1.0], [0.1] * 4, global_clipnorm=clip_norm))
        for expected, actual in zip(plain, same, strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-6)
        np.testing.assert_array_equal(part[0], start[0])
        assert (part[2] != start[2]).any()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0, 0.5, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 0.5, 0]),
        ("cosine", [0, 0.5, 1, 0.5, 0]),
    ],
)
def test_the_rate_rises_and_falls(kind: str, expected: list[float]) -> None:
    schedule = WarmupDecay(2.0, kind, warmup_steps=10, total_steps=30)
    shares = [float(keras.ops.convert_to_numpy(schedule(step))) / 2 for step in (0, 5, 10, 20, 30)]
    np.testing.assert_allclose(shares, expected, atol=1e-6)


@pytest.mark.slow
def test_options_together_run_and_learn(texts: TokenClassification, tmp_path: Path) -> None:
    report = train(
        tagger(texts, dropout=0.2),
        texts,
        tmp_path,
        layer_decay=0.8,
        schedule="linear",
        warmup_fraction=0.1,
        clip_norm=1.0,
        weight_decay=0.05,
        label_smoothing=0.1,
        class_weights="balanced",
        epochs=3,
        batch_size=8,
    )
    assert report.history[-1]["loss"] < report.history[0]["loss"]


@pytest.mark.parametrize(("task", "from_logits"), [("image-classification", False), ("token-classification", True)])
def test_the_weighted_loss_is_the_formula(task: str, from_logits: bool) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 5, 3)).astype("float32")
    labels = rng.integers(-1, 3, (4, 5)).astype("int32")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    given = logits if from_logits else p
    class_weights, smoothing = np.array([1.0, 2.0, 0.5]), 0.2
    kept = labels >= 0
    nll = -np.log(np.take_along_axis(p, np.maximum(labels, 0)[..., None], -1)[..., 0])
    element = (1 - smoothing) * nll - smoothing * np.log(p).mean(-1)
    weight = class_weights[np.maximum(labels, 0)] * kept
    loss = WeightedCrossEntropy(from_logits, smoothing, class_weights)(labels, given)
    assert float(loss) == pytest.approx((weight * element).sum() / weight.sum(), rel=1e-5)
    q = rng.dirichlet(np.ones(3), (4, 5)).astype("float32")
    both = np.concatenate([labels[..., None], q], -1).astype("float32")
    taught = 0.7 * element - 0.3 * (q * np.log(p)).sum(-1)
    loss = WeightedCrossEntropy(from_logits, smoothing, class_weights, 0.3)(both, given)
    assert float(loss) == pytest.approx((weight * taught).sum() / weight.sum(), rel=1e-5)
    plain = WeightedCrossEntropy(True, 0.0, None)(labels, logits)
    own = loss_of(answers_of_task("token-classification").main)
    assert float(plain) == pytest.approx(float(own(labels, logits)), rel=1e-5)
    assert float(plain) == pytest.approx(nll[kept].mean(), rel=1e-5)


def test_a_batch_without_a_label_has_no_loss() -> None:
    labels, logits = np.full((2, 3), -1, "int32"), np.ones((2, 3, 4), "float32")
    assert float(WeightedCrossEntropy(True, 0.1, None)(labels, logits)) == 0


@pytest.mark.parametrize("kind", ["images", pytest.param("texts", marks=pytest.mark.slow)])
def test_a_model_learns_the_answers_of_another(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    task = request.getfixturevalue(kind)
    teacher, pupil = (cnn((8, 8, 1), 10) if kind == "images" else tagger(task) for _ in range(2))
    soft, labels = soft_targets(teacher, task, 16), task.labels("train")
    assert soft.shape == (*labels.shape, len(task.label_names))
    np.testing.assert_allclose(soft.astype("float32").sum(-1)[labels >= 0], 1, atol=5e-3)
    assert (soft.argmax(-1) == task.predict(teacher, "train", 16))[labels >= 0].mean() > 0.99

    def apart() -> float:
        return float(np.abs(soft_targets(pupil, task, 16).astype("float32") - soft)[labels >= 0].mean())

    before = apart()
    settings = train_request(epochs=4, batch_size=16, distill=1.0, patience=4)
    fit(pupil, task, settings, 1e-3, Checkpoint(tmp_path / "state", settings), soft_targets=soft)
    assert apart() < 0.7 * before


def test_balanced_weights_weigh_rare_classes_more(texts: TokenClassification, images: ImageClassification) -> None:
    weights = texts.balanced_class_weights()
    assert weights[0] == min(weights), "O is the most frequent tag"
    assert np.mean(images.balanced_class_weights()) == pytest.approx(1, abs=0.2)


def test_the_best_epoch_is_kept_and_overfitting_told(images: ImageClassification, tmp_path: Path) -> None:
    model = cnn((8, 8, 1), 10)
    few = ImageClassification(images.data)
    report = train(model, few, tmp_path, epochs=40, learning_rate=0.05, patience=3)
    losses = [h["val_loss"] for h in report.history]
    assert len(losses) < 40, "it stopped early"
    assert len(losses) - 1 - int(np.argmin(losses)) == 4
    model.compile(loss=loss_of(few.answers.main))
    loss = model.evaluate(few.batches("validation", 256, seed=None), verbose=0)
    assert loss == pytest.approx(min(losses), rel=1e-4)


def test_a_widening_gap_is_called_overfitting() -> None:
    history = [{"loss": 1.0, "val_loss": 1.0}, {"loss": 0.8, "val_loss": 0.9}, {"loss": 0.2, "val_loss": 1.5}]
    assert "since epoch 2" in fit_module._gap_warning(history)[0]
    assert fit_module._gap_warning(history[:2]) == []


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_run_that_was_cut_short_ends_as_if_it_had_not(
    texts: TokenClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 4, "patience": 10, "batch_size": 8, "schedule": "linear"}
    keras.utils.set_random_seed(0)
    whole = tagger(texts)
    uninterrupted = train(whole, texts, tmp_path / "whole", **options)

    keras.utils.set_random_seed(0)
    end_epoch = Checkpoint.end_epoch

    def die_after_two(self: Checkpoint, model: keras.Model, logs: dict[str, float], **options: Any) -> bool:
        better = end_epoch(self, model, logs, **options)
        if self.epoch == 2:
            raise Killed
        return better

    monkeypatch.setattr(Checkpoint, "end_epoch", die_after_two)
    with pytest.raises(Killed):
        train(tagger(texts), texts, tmp_path / "cut", **options)
    monkeypatch.setattr(Checkpoint, "end_epoch", end_epoch)
    keras.utils.set_random_seed(99)
    again = tagger(texts)
    resumed = train(again, texts, tmp_path / "cut", **options)
    assert resumed.resumed_at_epoch == 2
    assert [h["val_loss"] for h in resumed.history] == pytest.approx(
        [h["val_loss"] for h in uninterrupted.history], rel=1e-4
    )
    with pytest.raises(StorageError, match="with other batch_size"):
        train(tagger(texts), texts, tmp_path / "cut", **{**options, "batch_size": 16})


def test_a_hopeless_run_ends_where_it_is_told_to(images: ImageClassification, tmp_path: Path) -> None:
    report = train(cnn((8, 8, 1), 10), images, tmp_path, epochs=5, prune_above={2: 0.001})
    assert (report.pruned, len(report.history)) == (True, 2)


def test_tensorboard_gets_each_epoch(images: ImageClassification, tmp_path: Path) -> None:
    train(cnn((8, 8, 1), 10), images, tmp_path, tensorboard=str(tmp_path / "board"))
    assert list((tmp_path / "board").glob("events.out.tfevents.*"))

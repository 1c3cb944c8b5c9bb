from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_nlp.models import BertBackbone

from kcost import data
from kcost.core.answer import Answer
from kcost.core.artifact import answers_of_task
from kcost.core.errors import InputError, UnavailableError
from kcost.core.request import AttackRequest, EvaluateRequest, TrainRequest
from kcost.models.bert import token_classifier
from kcost.models.cnn import cnn
from kcost.models.loading import load_keras_file
from kcost.training.adversarial import (
    PerturbedModel,
    adversarial_model,
    cross_entropy,
    input_gradient,
    split_at_embeddings,
)
from kcost.training.attacks import fgsm
from kcost.training.losses import loss_of
from kcost.training.tasks import ImageClassification
from kcost.worker import evaluate, robustness, train
from tests.contract.inputs import token_inputs

IMAGES, TOKENS = "image-classification", "token-classification"
OF = {IMAGES: (answers_of_task(IMAGES).main, False), TOKENS: (answers_of_task(TOKENS).main, True)}
"""Task -> what its models answer, and whether they take tokens."""

NUMBERS = Answer(output="y", kind="regression", because="a test")


def tagged(batch: int = 4, length: int = 12) -> tuple[Any, np.ndarray]:
    inputs = token_inputs(batch, length)
    labels = np.random.default_rng(1).integers(0, 5, (batch, length))
    return inputs, np.where(inputs["padding_mask"] == 1, labels, -1).astype("int32")


def tagger(dropout: float = 0.0) -> keras.Model:
    """The smallest tagger: compiling a larger one takes longer than all else here."""
    encoder = BertBackbone(
        vocabulary_size=50,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        dropout=dropout,
        max_sequence_length=32,
    )
    return token_classifier(encoder, 5, dropout=dropout)


def answers(model: keras.Model, inputs: Any) -> np.ndarray:
    return np.asarray(model.predict_on_batch(inputs))  # a call that is not compiled takes seconds on jax


def losses_of(task: str, labels: np.ndarray, outputs: np.ndarray) -> float:
    """The task's loss summed over its labels, in numpy and float64."""
    outputs = outputs.astype(np.float64)
    if task == TOKENS:
        outputs = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    known = labels >= 0
    return float(-np.log(outputs[known][np.arange(known.sum()), labels[known]]).sum())


def test_an_image_gradient_is_that_of_the_loss() -> None:
    model = cnn((8, 8, 1), 4)
    model.set_weights([*model.get_weights()[:-2], 20 * model.get_weights()[-2], model.get_weights()[-1]])
    x = np.random.default_rng(0).random((3, 8, 8, 1), dtype=np.float32)
    y = np.array([0, 3, 1], np.int32)
    gradient = input_gradient(model, *OF[IMAGES])(x, y)
    assert gradient.shape == x.shape
    step = 2e-4
    up, down = (losses_of(IMAGES, y, answers(model, x + s * np.sign(gradient))) for s in (step, -step))
    assert up - down > 1e-3
    assert np.abs(gradient).sum() == pytest.approx((up - down) / (2 * step), rel=0.05)


def test_a_text_gradient_is_that_of_the_loss_at_the_embeddings() -> None:
    model = tagger()
    inputs, labels = tagged()
    gradient = input_gradient(model, *OF[TOKENS])(inputs, labels)
    assert gradient.shape == (4, 12, 16)
    seen = PerturbedModel(model, *OF[TOKENS])
    point = seen.points(inputs)
    step = 1e-4
    moved = (seen.predict(point + s * np.sign(gradient), inputs) for s in (step, -step))
    up, down = (losses_of(TOKENS, labels, outputs) for outputs in moved)
    assert up - down > 1e-3
    assert np.abs(gradient).sum() == pytest.approx((up - down) / (2 * step), rel=0.05)
    assert not gradient[inputs["padding_mask"] == 0].any()  # padding is not attacked


def test_a_gradient_follows_the_weights() -> None:
    """It is compiled once, and not with the weights of that moment."""
    model = cnn((8, 8, 1), 4)
    x, y = np.full((2, 8, 8, 1), 0.5, np.float32), np.zeros(2, np.int32)
    gradient = input_gradient(model, *OF[IMAGES])
    before = gradient(x, y)
    model.set_weights([2 * w for w in model.get_weights()])
    assert np.abs(gradient(x, y) - before).max() > 0.01 * np.abs(before).max()


def test_the_two_parts_of_a_split_tagger_are_the_tagger_and_it_can_still_be_saved(tmp_path: Path) -> None:
    model = tagger()
    inputs, _ = tagged()
    embed, rest = split_at_embeddings(model)
    whole = answers(model, inputs)
    parts = answers(rest, [answers(embed, inputs), *(inputs[name] for name in model.input)])
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(answers(load_keras_file(tmp_path / "model.keras"), inputs), whole)


def test_what_cannot_be_attacked_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="token_embedding"):
        adversarial_model(cnn((8, 8, 1), 4), *OF[TOKENS], 0.1)
    with pytest.raises(UnavailableError, match="taken as regression"):
        adversarial_model(cnn((8, 8, 1), 4), NUMBERS, False, 0.1)


@pytest.mark.parametrize("from_logits", [True, False])
def test_the_attacked_loss_is_the_cross_entropy(from_logits: bool) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (2, 5, 4)).astype("float32")
    labels = np.array([[0, 1, 2, 3, -1], [3, -1, -1, 0, 2]], np.int32)
    outputs = logits if from_logits else np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    loss = float(cross_entropy(labels, outputs, from_logits))
    assert loss == pytest.approx(losses_of(TOKENS, labels, logits), rel=1e-5)


def test_a_model_that_is_sure_of_itself_still_has_a_gradient() -> None:
    """Keras's own loss has none where a probability rounds to 1, and such a model would seem robust."""
    model = cnn((8, 8, 1), 4)
    weights = model.get_weights()
    model.set_weights([*weights[:-1], np.array([20, 0, 0, 0], np.float32)])
    x, y = np.random.default_rng(0).random((3, 8, 8, 1), dtype=np.float32), np.zeros(3, np.int32)
    assert (answers(model, x)[:, 0] == 1).any()
    gradient = input_gradient(model, *OF[IMAGES])(x, y)
    assert (np.abs(gradient).reshape(3, -1).max(axis=1) > 0).all()


@pytest.mark.parametrize("task", [IMAGES, TOKENS])
def test_with_no_attack_it_is_ordinary_training_of_the_models_own_weights(task: str) -> None:
    if task == IMAGES:
        models = [cnn((8, 8, 1), 4) for _ in range(2)]
        x: Any = np.random.default_rng(0).random((6, 8, 8, 1), dtype=np.float32)
        y = np.arange(6, dtype=np.int32) % 4
    else:
        models = [tagger() for _ in range(2)]
        x, y = tagged()
    models[1].set_weights(models[0].get_weights())
    before = models[0].get_weights()
    trainer = adversarial_model(models[1], *OF[task], 0.0)
    for trained in (models[0], trainer):
        trained.compile(keras.optimizers.SGD(0.1), loss=loss_of(OF[task][0]))
        for _ in range(3):
            trained.train_on_batch(x, y)
    assert max(np.abs(a - b).max() for a, b in zip(before, models[0].get_weights(), strict=True)) > 1e-3
    for plain, adversarial in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(adversarial, plain, atol=2e-5)


@pytest.mark.slow
def test_training_against_fgsm_makes_a_cnn_withstand_it(tmp_path: Path) -> None:
    image_set = data.load("digits", limit=600)
    assert isinstance(image_set, data.ImageSet)
    task = ImageClassification(image_set)
    test = image_set.splits["test"]
    withstood = {}
    for name in ("plain", "adversarial"):
        keras.utils.set_random_seed(0)
        model = cnn(image_set.image_shape, 10)
        trained = model if name == "plain" else adversarial_model(model, *OF[IMAGES], 0.2)
        trained.compile(keras.optimizers.Adam(1e-2), loss=loss_of(OF[IMAGES][0]), metrics=["accuracy"])
        history = trained.fit(
            task.batches("train", 64, seed=0),
            validation_data=task.batches("validation", 256, seed=None),
            epochs=5,
            verbose=0,
            callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)],
        ).history
        assert history["val_accuracy"][-1] > 0.8
        seen = PerturbedModel(model, *OF[IMAGES])
        moved = fgsm(seen.gradient_fn(test.x), test.x, test.y, 0.2)
        withstood[name] = (seen.predict(moved, moved).argmax(-1) == test.y).mean()
        model.save(tmp_path / f"{name}.keras")
    assert withstood["adversarial"] > withstood["plain"] + 0.1
    again = load_keras_file(tmp_path / "adversarial.keras")
    assert type(again) is type(model)
    np.testing.assert_allclose(answers(again, test.x[:5]), answers(model, test.x[:5]), atol=1e-6)


@pytest.mark.slow
def test_a_tagger_is_trained_against_attacks_with_dropout_and_in_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tagger(dropout=0.1)
    finally:
        keras.config.set_dtype_policy("float32")
    inputs, labels = tagged()
    trainer = adversarial_model(model, *OF[TOKENS], 0.5)
    trainer.compile(keras.optimizers.Adam(1e-2), loss=loss_of(OF[TOKENS][0]))
    losses = [float(trainer.train_on_batch(inputs, labels)) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory, family="cnn", data="digits", epochs=4, limit=300, learning_rate=5e-3)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"epochs": 5, "max_length": 32, "learning_rate": 3e-3, "limit": 400}
    return trained(tmp_path_factory, family="bert", data="ner-mini", **settings)


def trained(folders: pytest.TempPathFactory, **settings: Any) -> Path:
    out = folders.mktemp("robustness") / "model"
    fixed = {"out": out, "name": "m", "usd_per_hour": 1.0, "usd_basis": "a test"}
    train.run(TrainRequest.model_validate({**fixed, **settings}))
    return out


@pytest.mark.parametrize(
    ("which", "attack", "epsilons"),
    [
        ("digits", "fgsm", [0.1, 0.2]),
        ("digits", "pgd", [0.1, 0.2]),
        pytest.param("people", "pgd", [1.0], marks=pytest.mark.slow),
    ],
)
def test_scores_fall_under_attack(
    which: str, attack: str, epsilons: list[float], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    settings = {"limit": 60, "epsilons": epsilons, "attack": attack, "steps": 4, "batch_size": 32}
    answer = robustness.run(AttackRequest.model_validate({"model": model, **settings}))
    assert [r.epsilon for r in answer.results] == [0.0, *epsilons]
    clean = evaluate.run(EvaluateRequest(model=model, limit=60)).scores[0]
    assert answer.results[0].scores[0].model_dump() == pytest.approx(clean.model_dump())
    values = [r.scores[0].value for r in answer.results]
    assert values[0] > 0.2
    assert values[0] > values[1] + 0.02
    assert values == sorted(values, reverse=True)
    assert answer.norm == ("linf" if which == "digits" else "l2")
    assert (answer.mean_length is None) == (which == "digits")


def test_bad_requests_are_refused(digits: Path) -> None:
    with pytest.raises(InputError, match="Give --data"):
        robustness.run(AttackRequest(model=digits / "model.keras", epsilons=(0.1,)))
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        AttackRequest(model=digits, epsilons=(-0.1,))

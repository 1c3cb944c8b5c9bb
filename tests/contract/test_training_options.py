"""Each option of training reaches what it is for, and what is wrong with a run is told in time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kcost import data
from kcost.core.errors import InputError, StorageError
from kcost.core.request import TrainRequest
from kcost.models.cnn import cnn
from kcost.models.precision import with_precision
from kcost.training.checkpoint import Checkpoint
from kcost.training.fit import TrainingReport, fit
from kcost.training.optimizer import make_optimizer
from kcost.training.progress import Progress
from kcost.training.tasks import ImageClassification, TokenClassification
from kcost.worker.train import make
from testing.unread import unread_stdout
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


def steps(model: keras.Model, request: TrainRequest, gradient: float, count: int) -> list[list[np.ndarray]]:
    """The trainable weights before and after each of some steps whose gradient is the same everywhere."""
    variables = model.trainable_variables
    optimizer = make_optimizer(model, request, 0.01, total_steps=count)
    optimizer.build(variables)
    weights = [[keras.ops.convert_to_numpy(v).copy() for v in variables]]
    for _ in range(count):
        optimizer.apply([keras.ops.full(v.shape, gradient) for v in variables], variables)
        weights.append([keras.ops.convert_to_numpy(v).copy() for v in variables])
    return weights


def moves(weights: Sequence[Sequence[np.ndarray]], variable: int) -> list[float]:
    """How far each step moved the first value of a variable."""
    values = [float(w[variable].flat[0]) for w in weights]
    return [float(move) for move in np.diff(values)]


def test_a_layer_learns_at_a_factor_of_the_rate_of_the_one_above(texts: TokenClassification) -> None:
    model = tagger(texts)
    weights = steps(model, train_request(layer_decay=0.5, weight_decay=0.0), 1.0, 1)
    paths = [v.path for v in model.trainable_variables]
    for layer, factor in (("logits", 1), ("transformer_layer_1", 0.5), ("transformer_layer_0", 0.25)):
        at = next(i for i, path in enumerate(paths) if layer in path)
        assert moves(weights, at) == pytest.approx([-0.01 * factor], rel=1e-2), layer
    at = next(i for i, path in enumerate(paths) if "token_embedding" in path)
    assert moves(weights, at) == pytest.approx([-0.01 / 8], rel=1e-2)


@pytest.mark.parametrize(
    ("schedule", "shares"), [("constant", [0, 0.5, 1, 1]), ("linear", [0, 0.5, 1, 0.5]), ("cosine", [0, 0.5, 1, 0.5])]
)
def test_the_rate_warms_up_and_decays_over_the_steps_of_the_run(schedule: str, shares: list[float]) -> None:
    request = train_request(schedule=schedule, warmup_fraction=0.5, weight_decay=0.0)
    moved = moves(steps(cnn((8, 8, 1), 10), request, 1.0, 4), 0)
    assert moved == pytest.approx([-0.01 * share for share in shares], rel=1e-2, abs=1e-6)


def test_kernels_decay_and_biases_do_not() -> None:
    model = cnn((8, 8, 1), 10)
    model.set_weights([w + 0.5 for w in model.get_weights()])
    before, after = steps(model, train_request(weight_decay=0.2), 0.0, 1)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, old * (1 - 0.01 * 0.2) if old.ndim > 1 else old, rtol=1e-6)
    assert {v.ndim > 1 for v in before} == {True, False}


def test_the_gradient_is_clipped_at_the_norm_that_was_asked_for() -> None:
    for decay in (1.0, 0.5):
        request = train_request(clip_norm=0.25, layer_decay=decay)
        assert make_optimizer(cnn((8, 8, 1), 10), request, 0.01, 4).global_clipnorm == 0.25


@pytest.mark.slow
def test_dropout_is_that_of_the_request_or_the_familys_own() -> None:
    def rates(**changes: Any) -> set[float]:
        _, model = make(train_request(**changes))
        layers = model._flatten_layers(include_self=False)
        return {layer.rate for layer in layers if isinstance(layer, keras.layers.Dropout)}

    bert = {"family": "bert", "data": "ner-mini", "limit": 20, "vocabulary_size": 300}
    assert (rates(**bert), rates(**bert, dropout=0.4)) == ({0.1}, {0.4})
    assert (rates(size="small"), rates(size="small", dropout=0.4), rates()) == ({0.2}, {0.4}, set())
    with pytest.raises(InputError, match=r"seed has no dropout(.|\n)*--size small"):
        rates(dropout=0.4)


@pytest.fixture(scope="module")
def plain(images: ImageClassification, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    return of_the_same_start(images, tmp_path_factory.mktemp("plain")).history


def of_the_same_start(task: ImageClassification, tmp_path: Path, **options: Any) -> TrainingReport:
    keras.utils.set_random_seed(7)
    model = with_precision(cnn((8, 8, 1), 10), options.get("precision", "float32"))
    return train(model, task, tmp_path, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.2},
        {"class_weights": "balanced"},
        {"augment": True},
        {"flip": True},
        {"adversarial_epsilon": 0.1},
        {"clip_norm": 0.05},
        {"weight_decay": 2.0},
        {"schedule": "cosine"},
        {"warmup_fraction": 0.5},
        {"layer_decay": 0.5},
        {"freeze": "backbone"},
        {"precision": "mixed_bfloat16"},
        {"batch_size": 16},
        {"seed": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_no_option_is_left_unread(
    images: ImageClassification, plain: list[dict[str, float]], tmp_path: Path, options: dict[str, Any]
) -> None:
    history = of_the_same_start(images, tmp_path, **options).history
    assert abs(history[-1]["val_loss"] - plain[-1]["val_loss"]) > 1e-5


def test_without_options_the_numbers_are_the_same(
    images: ImageClassification, plain: list[dict[str, float]], tmp_path: Path
) -> None:
    """So that the test above can fail."""
    assert of_the_same_start(images, tmp_path).history[-1]["val_loss"] == pytest.approx(plain[-1]["val_loss"], abs=1e-6)


def test_a_rank_beyond_the_width_is_refused(texts: TokenClassification, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--lora-rank 129 for a width of 128"):
        train(tagger(texts), texts, tmp_path, lora_rank=129)


def test_warnings_are_told_before_the_first_epoch_and_reported(
    images: ImageClassification, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = train(cnn((8, 8, 1), 10), images, tmp_path, epochs=1, flip=True, augment_strength=0.5)
    assert [w.split(":")[0] for w in report.warnings] == [
        "Mirrored digits are no digits",
        "--augment-strength 0.5 does nothing without --augment",
    ]
    output = " ".join(capsys.readouterr().out.split())
    assert 0 <= output.index("warning: Mirrored digits") < output.index("warning: --augment-strength 0.5")
    assert output.index("warning: --augment-strength 0.5") < output.index("epoch 1/1: loss")


def test_overfitting_is_told_when_the_gap_opens(
    images: ImageClassification, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels at random can be learnt by heart only."""
    train_split = images.data.splits["train"]
    y = np.random.default_rng(0).integers(0, 10, len(train_split)).astype("int32")
    splits = {**images.data.splits, "train": data.Images(train_split.x, y)}
    task = ImageClassification(data.ImageSet("noise", images.label_names, splits, images.record))
    report = train(cnn((8, 8, 1), 10), task, tmp_path, epochs=40, learning_rate=0.02, patience=40)
    assert len(report.history) == 40
    assert "overfitting: since epoch" in report.warnings[-1]
    output = " ".join(capsys.readouterr().out.split())
    assert output.count("warning: overfitting") == 1
    assert output.index("warning: overfitting") < output.index("epoch 40/40")


def test_time_left_is_that_of_the_whole_run_and_of_what_is_left_of_one_that_resumes(
    images: ImageClassification, tmp_path: Path
) -> None:
    for first in (0, 2):
        progress = Progress(epochs=4)
        progress.set_params({"steps": 5})
        progress.on_train_begin()
        for epoch in (first, first + 1):
            progress.on_epoch_begin(epoch)
            for batch in range(5):
                progress.on_train_batch_end(batch, {"loss": 1.0})
        (task,) = progress._bar.tasks
        assert (task.completed, task.total) == (5 * (first + 2), 20)
        assert task.time_remaining is not None
        assert task.description == f"epoch {first + 2}/4"
        progress.on_train_end()


def test_training_goes_on_where_nobody_reads_how_far_it_is() -> None:
    with unread_stdout():
        progress = Progress(epochs=1)
        progress.set_params({"steps": 1})
        progress.on_train_begin()
        progress.on_epoch_begin(0)
        progress.on_train_batch_end(0, {"loss": 1.0})
        progress.on_epoch_end(0, {"loss": 1.0})
        progress.warn("overfitting")
        progress.on_train_end()


def cut_short(model: keras.Model, task: ImageClassification, request: TrainRequest, folder: Path) -> None:
    """What a run leaves that was killed after its first epoch."""
    stored = Checkpoint(folder, request)
    fit(model, task, request.model_copy(update={"epochs": 1}), 1e-3, stored)
    stored._run["epochs"] = request.epochs
    progress = json.loads((folder / "progress.json").read_text())
    (folder / "progress.json").write_text(json.dumps({**progress, "run": stored._run}))


def test_a_run_goes_on_with_the_same_data_on_the_same_backend_only(
    images: ImageClassification, backend: str, tmp_path: Path
) -> None:
    request = train_request(epochs=2, usd_per_hour=0.5)
    folder = tmp_path / "state"
    cut_short(cnn((8, 8, 1), 10), images, request, folder)
    progress = json.loads((folder / "progress.json").read_text())

    def go_on(task: ImageClassification, **changes: Any) -> TrainingReport:
        other = train_request(epochs=2, **changes)
        return fit(cnn((8, 8, 1), 10), task, other, 1e-3, Checkpoint(folder, other))

    digits = data.load("digits", limit=90)
    assert isinstance(digits, data.ImageSet)
    with pytest.raises(StorageError, match="with other content of the data\n"):
        go_on(ImageClassification(digits))
    with pytest.raises(StorageError, match="with other seed\n"):
        go_on(images, seed=1)
    elsewhere = {**progress, "run": {**progress["run"], "backend": "another"}}
    (folder / "progress.json").write_text(json.dumps(elsewhere))
    with pytest.raises(StorageError, match="with other backend\n"):
        go_on(images)
    (folder / "progress.json").write_text(json.dumps({**progress, "run": {**progress["run"], "backend": backend}}))
    resumed = go_on(images, usd_per_hour=3.0, out="elsewhere")
    assert (resumed.resumed_at_epoch, len(resumed.history)) == (1, 2), "a price or a place may change"


def test_a_loss_that_is_not_finite_leaves_nothing_that_a_lower_rate_would_be_refused_for(
    images: ImageClassification, tmp_path: Path
) -> None:
    class Spoil(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
        def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            if epoch == 1:
                self.model.set_weights([np.full_like(w, np.nan) for w in self.model.get_weights()])

    request = train_request(epochs=3)
    checkpoint = Checkpoint(tmp_path / "state", request)
    with pytest.raises(InputError, match="Lower --learning-rate"):
        fit(cnn((8, 8, 1), 10), images, request, 1e-3, checkpoint, callbacks=[Spoil()])
    assert len(checkpoint.history) == 1
    assert not (tmp_path / "state").exists()
    train(cnn((8, 8, 1), 10), images, tmp_path, epochs=1, learning_rate=1e-4)


def test_tensorboard_files_that_cannot_be_written(images: ImageClassification, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="kcost needs to write to /proc/board"):
        train(cnn((8, 8, 1), 10), images, tmp_path, tensorboard="/proc/board")

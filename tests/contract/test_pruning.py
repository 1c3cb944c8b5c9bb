"""Pruning of weights on tiny models: once, and while they are trained."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kcost.core.errors import InputError
from kcost.core.prune_spec import parse_prune_spec
from kcost.models.bert import backbone, token_classifier
from kcost.models.loading import load_keras_file
from kcost.optimize.kernels import kernels_of
from kcost.optimize.pruning.importance import Labelled
from kcost.optimize.pruning.pruning import PruningCallback, prune

PATTERN, BLOCKS = "2:4", "block:1x4:0.5"


def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(48, 6, 6, 4)).astype(np.float32), rng.integers(0, 3, 48)


def classifier() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(12, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="probabilities"),
        ],
        name="classifier",
    )


def tagger() -> tuple[keras.Model, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 50, (8, 12)).astype(np.int32)
    inputs = {"token_ids": ids, "segment_ids": ids * 0, "padding_mask": np.ones_like(ids)}
    return token_classifier(backbone(50, "tiny"), 4), inputs, rng.integers(0, 4, (8, 12))


def zeros(model: keras.Model) -> dict[str, np.ndarray]:
    return {kernel.path: kernel.values() == 0 for kernel in kernels_of(model)[0]}


class Spy(keras.callbacks.Callback):  # type: ignore[misc]
    """Looks at the weights after each step, as any callback may."""

    def __init__(self) -> None:
        super().__init__()
        self.sparsities: list[float] = []
        self.zeros: list[dict[str, np.ndarray]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.zeros.append(zeros(self.model))
        self.sparsities.append(float(np.mean(self.zeros[-1]["hidden"])))


def train(model: keras.Model, pruning: PruningCallback, steps: int, optimizer: Any) -> Spy:
    x, y = images()
    spy = Spy()
    model.compile(optimizer, "sparse_categorical_crossentropy")
    epochs = steps // 3
    model.fit(x, y, batch_size=16, epochs=epochs, verbose=0, callbacks=[pruning, spy], validation_data=(x, y))
    return spy


def test_a_transposed_convolution_is_pruned() -> None:
    model = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2DTranspose(8, 3, name="up")])
    pruned, coverage = prune(model, parse_prune_spec("magnitude:0.5"))
    assert [change.layer for change in coverage.changed] == ["up"]
    assert zeros(pruned)["up"].mean() == 0.5


def test_a_convolution_with_low_rank_updates_is_left() -> None:
    model = classifier()
    model.get_layer("conv").enable_lora(2)
    kernels, left = kernels_of(model)
    assert [kernel.path for kernel in kernels] == ["hidden", "probabilities"]
    assert "low-rank updates" in left[0].what


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_masks_hold_through_every_step(optimizer: str, tmp_path: Path) -> None:
    model = classifier()
    made = keras.optimizers.SGD(0.5, momentum=0.9) if optimizer == "momentum" else keras.optimizers.AdamW(0.1)
    # With momentum from before, so that there is something to hold against.
    model.compile(made, "sparse_categorical_crossentropy")
    model.fit(*images(), verbose=0)
    spec = parse_prune_spec("magnitude:0.5")
    pruned, _ = prune(model, spec)
    before = zeros(pruned)
    spy = train(pruned, PruningCallback(None, 6), 6, type(made).from_config(made.get_config()))
    assert len(spy.zeros) == 6
    for path, mask in before.items():
        assert 0.45 < mask.mean() < 0.55
        for step_zeros in spy.zeros:
            assert step_zeros[path][mask].all()
    moved = {v.path: np.array(v) for v in pruned.trainable_variables}
    pruned.fit(*images(), verbose=0)  # without the callback nothing is held any more
    assert any((np.array(v) != moved[v.path]).any() for v in pruned.trainable_variables)
    assert not zeros(pruned)["hidden"][before["hidden"]].all()


def test_the_schedule_is_followed_and_its_sparsity_reached() -> None:
    model = classifier()
    pruning = PruningCallback(parse_prune_spec("magnitude:0.8,schedule=polynomial,begin=0.1,end=0.5,every=3"), 18)  # type: ignore[arg-type]
    spy = train(model, pruning, 18, keras.optimizers.SGD(0.1, momentum=0.9))
    assert pruning.reached
    assert pruning.schedule is not None
    after = [s for step, s in enumerate(spy.sparsities, 1) if step >= pruning.schedule.end_step]
    assert after
    for sparsity in after:
        assert sparsity == pytest.approx(0.8, abs=0.01)
    updates = [step for step in range(1, 19) if pruning.schedule.updates_at(step)]
    reached = [spy.sparsities[step - 1] for step in updates]
    assert reached == sorted(reached)
    assert reached[0] < 0.1


def test_a_run_that_resumes_goes_on_with_its_masks() -> None:
    spec = parse_prune_spec("magnitude:0.5")
    x, y = images()
    model = classifier()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[PruningCallback(spec, 100)])  # type: ignore[arg-type]
    before = zeros(model)
    assert before["hidden"].mean() == pytest.approx(0.5, abs=0.05)
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[PruningCallback(spec, 100)])  # type: ignore[arg-type]
    for path, mask in zeros(model).items():
        np.testing.assert_array_equal(mask, before[path])


def test_a_pattern_holds_in_each_group() -> None:
    pruned, coverage = prune(classifier(), parse_prune_spec(PATTERN))
    conv = np.array(pruned.get_layer("conv").kernel)
    assert (np.count_nonzero(conv, axis=2) == 2).all()  # its 4 input channels are one group
    hidden = np.array(pruned.get_layer("hidden").kernel)
    assert (np.count_nonzero(hidden.reshape(-1, 4, 12), axis=1) == 2).all()
    assert {c.layer: c.what for c in coverage.changed}["hidden"] == "Dense -> 2:4, sparsity 0.5000"


def test_blocks_go_as_a_whole() -> None:
    pruned, _ = prune(classifier(), parse_prune_spec(BLOCKS))
    blocks = np.array(pruned.get_layer("hidden").kernel).reshape(-1, 3, 4)
    assert set(np.unique(np.count_nonzero(blocks, axis=2))) == {0, 4}


def test_the_kernels_inside_composite_layers_are_pruned(tmp_path: Path) -> None:
    model, inputs, _ = tagger()
    before = [np.array(v) for v in model.weights]
    pruned, coverage = prune(model, parse_prune_spec("magnitude:0.75"))
    paths = {c.layer for c in coverage.changed}
    inside = "transformer_layer_0/self_attention_layer/"
    assert {f"{inside}{name}" for name in ("query", "key", "value", "attention_output")} <= paths
    assert "logits" in paths
    assert all("sparsity 0.75" in c.what for c in coverage.changed if c.layer != "logits")
    assert any("Embedding" in c.what for c in coverage.skipped)
    for value, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(value, np.array(variable))
    pruned.save(tmp_path / "pruned.keras")
    loaded = load_keras_file(tmp_path / "pruned.keras")
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), pruned.predict(inputs, verbose=0))
    with zipfile.ZipFile(tmp_path / "pruned.keras") as archive:
        assert "kcost" not in json.dumps(json.loads(archive.read("config.json")))


class Subclassed(keras.Model):  # type: ignore[misc]
    """A model of somebody's own, without a graph."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = layers.Dense(8, activation="relu", name="hidden")
        self.logits = layers.Dense(2, name="logits")

    def call(self, inputs: Any) -> Any:
        return self.logits(self.hidden(inputs))


def test_a_subclassed_model_is_pruned() -> None:
    model = Subclassed()
    x = np.ones((2, 6), np.float32)
    expected = model.predict(x, verbose=0)
    pruned, coverage = prune(model, parse_prune_spec("magnitude:0.5"))
    assert [c.layer for c in coverage.changed] == ["hidden", "logits"]
    assert zeros(pruned)["hidden"].mean() == 0.5
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    with pytest.raises(InputError, match="Structured pruning"):
        prune(model, parse_prune_spec("structured:neurons=0.5"))


def test_coverage_names_what_was_left() -> None:
    _, coverage = prune(classifier(), parse_prune_spec("magnitude:0.5"), skip=["probabilities"])
    assert [c.layer for c in coverage.changed] == ["conv", "hidden"]
    left = {c.layer: c.what for c in coverage.skipped}
    assert left["probabilities"] == "Dense: left out on request"
    assert left["depthwise"].startswith("DepthwiseConv2D: one small filter a channel")


def test_global_pruning_takes_from_the_layers_with_small_weights() -> None:
    model = classifier()
    conv = model.get_layer("conv")
    conv.set_weights([10 * w for w in conv.get_weights()])
    pruned, _ = prune(model, parse_prune_spec("magnitude:0.5,global"))
    zeros_of = zeros(pruned)
    assert zeros_of["conv"].mean() < 0.2 < 0.4 < zeros_of["hidden"].mean()
    everything = np.concatenate([mask.ravel() for mask in zeros_of.values()])
    assert everything.mean() == pytest.approx(0.5, abs=0.01)


def test_taylor_keeps_what_the_loss_depends_on() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0], [-2.0], [3.0], [4.0]], np.float32)])
    rng = np.random.default_rng(0)
    # The largest weights belong to inputs that are always 0: no gradient.
    x = rng.normal(size=(16, 4)).astype(np.float32) * np.array([1, 1, 0, 0], np.float32)
    y = np.zeros((16, 1), np.float32)
    labelled = Labelled([(x[:8], y[:8]), (x[8:], y[8:])], keras.losses.MeanSquaredError())
    spec = parse_prune_spec("magnitude:0.5,importance=taylor")
    pruned, _ = prune(model, spec, labelled=labelled)
    np.testing.assert_array_equal(np.array(pruned.weights[0]).ravel(), [1, -2, 0, 0])
    np.testing.assert_array_equal(np.array(model.weights[0]).ravel(), [1, -2, 3, 4])
    with pytest.raises(InputError, match="labelled data"):
        prune(model, spec)


def test_what_cannot_be_pruned_is_refused() -> None:
    model = keras.Sequential([keras.Input((6, 6, 1)), layers.DepthwiseConv2D(3, name="depthwise")])
    with pytest.raises(InputError, match="depthwise: DepthwiseConv2D"):
        prune(model, parse_prune_spec("magnitude:0.5"))
    with pytest.raises(InputError, match="by magnitude"):
        PruningCallback(parse_prune_spec("magnitude:0.5,importance=taylor"), 10)  # type: ignore[arg-type]

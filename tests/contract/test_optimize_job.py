"""`kcost optimize`'s worker, called in this process: prune, fine-tune, quantize, score before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost.core.artifact import open_model
from kcost.core.errors import InputError
from kcost.core.request import EvaluateRequest, OptimizeAnswer, OptimizeRequest, TrainRequest
from kcost.models.loading import load_keras_file
from kcost.worker import evaluate, optimize, train

AS_TRAINED = {"learning_rate": 2e-3, "label_smoothing": 0.1, "batch_size": 16}
PRICE = {"usd_per_hour": 0.1, "usd_basis": "a test"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("optimize") / "digits"
    settings = {
        "family": "cnn",
        "data": "digits",
        "out": str(out),
        "name": "m",
        "epochs": 8,
        "limit": 400,
        **AS_TRAINED,
    }
    train.run(TrainRequest.model_validate({**settings, **PRICE}))
    return out


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("optimize") / "tagger"
    settings = {"family": "bert", "data": "ner-mini", "out": str(out), "name": "t", "epochs": 2, "limit": 200}
    train.run(TrainRequest.model_validate({**settings, "max_length": 48, **PRICE}))
    return out


def optimized(model: Path, out: Path, **changes: Any) -> OptimizeAnswer:
    settings = {"model": str(model), "out": str(out), "name": "smaller", "limit": 400, "epochs": 1, **PRICE, **changes}
    return optimize.run(OptimizeRequest.model_validate(settings))


def zeros(path: Path, layer: str) -> float:
    kernel = np.asarray(load_keras_file(path / "model.keras").get_layer(layer).weights[0])
    return float((kernel == 0).mean())


def test_pruned_while_fine_tuned_and_then_int8(digits: Path, tmp_path: Path, backend: str) -> None:
    pruned = optimized(digits, tmp_path / "pruned", prune="magnitude:0.5,schedule=polynomial")
    assert [(s.kind, s.backend) for s in pruned.artifact.steps] == [("train", backend), ("prune", backend)]
    assert zeros(tmp_path / "pruned", "probabilities") == pytest.approx(0.5, abs=0.01)
    assert "sparsity 0.5" in pruned.artifact.steps[1].changed[0]

    settings = pruned.artifact.steps[1].settings
    assert {name: settings[name] for name in AS_TRAINED} == AS_TRAINED

    both = optimized(digits, tmp_path / "both", prune="magnitude:0.5", quantize="dynamic", batch_size=32)
    assert both.artifact.steps[1].settings["batch_size"] == 32
    assert [s.kind for s in both.artifact.steps] == ["train", "prune", "quantize"]
    # The zeros of pruning are zeros of int8 too.
    assert zeros(tmp_path / "both", "probabilities") >= 0.49
    assert abs(both.drop.value) < 0.1
    assert both.drop.count == 359
    again = evaluate.run(EvaluateRequest(model=tmp_path / "both", limit=400)).scores[0]
    assert again.value == pytest.approx(both.drop.after, abs=0.006)


@pytest.mark.slow
def test_a_tagger_loses_neurons_and_heads_and_gets_static_int8(tagger: Path, tmp_path: Path) -> None:
    before = open_model(tagger).artifact
    made = optimized(
        tagger, tmp_path / "small", prune="structured:ffn=0.5,heads=0.5,importance=taylor", quantize="static"
    )
    assert before is not None
    assert before.parameters is not None
    assert made.artifact.parameters is not None
    assert made.artifact.parameters < 0.9 * before.parameters
    assert (made.drop.score, made.drop.unit) == ("entity_f1", "sentences")
    assert made.artifact.steps[-1].settings == {"mode": "static", "calibration_examples": 256}
    assert (tmp_path / "small" / "vocab.txt").exists()
    assert open_model(tmp_path / "small").artifact == made.artifact


def test_a_bare_file_of_ones_own_on_data_that_are_named(digits: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.keras"
    mine.write_bytes((digits / "model.keras").read_bytes())
    made = optimized(mine, tmp_path / "out", quantize="weight-only", data="digits")
    assert made.artifact.family == "unknown"
    assert [s.kind for s in made.artifact.steps] == ["quantize"]


def test_what_cannot_be_done_is_refused(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Something is to be done"):
        optimized(digits, tmp_path / "a")
    with pytest.raises(InputError, match="by kind and amount"):
        optimized(digits, tmp_path / "b", prune="magnitude:2")
    with pytest.raises(InputError):
        optimized(digits, tmp_path / "c", quantize="dynamic", skip=("*",), prune="magnitude:0.5")
    assert list(tmp_path.iterdir()) == []

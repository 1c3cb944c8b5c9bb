"""The worker's jobs, called in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost.core.artifact import open_model
from kcost.core.errors import DataError, InputError, StorageError
from kcost.worker import evaluate, train


def request(out: Path, **changes: Any) -> dict[str, Any]:
    price = {"usd_per_hour": 0.1, "usd_basis": "a test"}
    return {
        "family": "cnn",
        "data": "digits",
        "out": str(out),
        "name": "m",
        "epochs": 3,
        "limit": 200,
        **price,
        **changes,
    }


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "digits"
    train.run(request(out))
    return out


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "tagger"
    train.run(request(out, family="bert", data="ner-mini", max_length=48))
    return out


def test_training_writes_an_artifact_that_says_how_it_was_made(digits: Path, backend: str) -> None:
    model = open_model(digits)
    assert model.artifact is not None
    assert (model.artifact.task, model.artifact.family) == ("image-classification", "cnn")
    step = model.artifact.steps[0]
    assert (step.kind, step.backend, step.settings["epochs"]) == ("train", backend, 3)
    score = model.artifact.scores[0]
    assert (score.name, score.split, score.count) == ("accuracy", "test", 200)
    assert score.low < score.value < score.high
    with np.load(digits / "samples.npz") as samples:
        assert samples["images"].shape == (200, 8, 8, 1)


def test_a_tagger_carries_its_vocabulary_and_real_samples(tagger: Path) -> None:
    model = open_model(tagger)
    assert model.artifact is not None
    assert model.artifact.dataset is not None
    assert model.artifact.dataset.synthetic
    assert model.artifact.label_names[0] == "O"
    assert (tagger / "vocab.txt").read_text().startswith("[PAD]\n")
    with np.load(tagger / "samples.npz") as samples:
        assert set(samples.files) == {"token_ids", "segment_ids", "padding_mask", "labels"}
        assert samples["labels"].max() < len(model.artifact.label_names)
    assert model.artifact.scores[0].name == "entity_f1"


@pytest.mark.parametrize("which", ["digits", "tagger"])
def test_evaluating_gives_the_scores_of_the_artifact(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    stored = json.loads((folder / "artifact.json").read_text())["scores"]
    found = evaluate.run({"model": str(folder), "limit": 200})["scores"]
    assert found[0]["value"] == pytest.approx(stored[0]["value"], abs=1e-6)
    assert found[0]["count"] == stored[0]["count"]


def test_the_same_seed_gives_the_same_numbers(digits: Path, tmp_path: Path) -> None:
    again = train.run(request(tmp_path / "again"))
    other = train.run(request(tmp_path / "other", seed=1))
    stored = open_model(digits).artifact
    assert stored is not None
    assert again["artifact"]["scores"][0]["value"] == stored.scores[0].value
    assert again["history"] != other["history"]


def test_an_existing_folder_is_refused_before_training(digits: Path) -> None:
    with pytest.raises(StorageError, match="never overwrites"):
        train.run(request(digits))


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Lower --learning-rate"):
        train.run(request(tmp_path / "bad", family="bert", data="ner-mini", learning_rate=1e30, max_length=48))
    assert not (tmp_path / "bad").exists()


def test_data_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="learns from tagged sentences"):
        train.run(request(tmp_path / "out", family="bert"))


def test_a_model_is_not_scored_on_data_of_another_task(digits: Path) -> None:
    with pytest.raises(InputError, match="of its own task"):
        evaluate.run({"model": str(digits), "data": "ner-mini"})


def test_a_bare_file_is_scored_on_data_that_are_named(digits: Path) -> None:
    with pytest.raises(InputError, match="Give --data"):
        evaluate.run({"model": str(digits / "model.keras")})
    found = evaluate.run({"model": str(digits / "model.keras"), "data": "digits", "limit": 200})["scores"]
    assert found[0]["count"] == 200

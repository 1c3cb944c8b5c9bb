"""Text classification: head, task, artifact."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from kcost.core.artifact import Artifact, Step
from kcost.core.errors import InputError
from kcost.data import TextSet, load
from kcost.models.bert import INPUT_NAMES, backbone, sequence_classifier
from kcost.models.loading import load_keras_file
from kcost.training.losses import loss_of
from kcost.training.sequence_task import SequenceClassification

FRUIT, TOOL = ("apple", "pear", "plum", "grape"), ("hammer", "saw", "drill", "wrench")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> TextSet:
    """Texts that name a fruit or a tool, of three to thirty words."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(240):
        words = ["the"] * int(rng.integers(2, 30))
        words[int(rng.integers(len(words)))] = str(rng.choice(FRUIT if i % 2 else TOOL))
        lines.append(json.dumps({"text": " ".join(words), "label": "fruit" if i % 2 else "tool"}))
    path = tmp_path_factory.mktemp("texts") / "things.jsonl"
    path.write_text("\n".join(lines))
    data_set = load(str(path))
    assert isinstance(data_set, TextSet)
    return data_set


@pytest.fixture(scope="module")
def task(texts: TextSet) -> SequenceClassification:
    return SequenceClassification.with_own_vocabulary(texts, 100, 32)


def test_logits_for_any_batch_and_length_and_padding_is_ignored() -> None:
    model = sequence_classifier(backbone(50, "tiny"), 3)
    ids = np.random.default_rng(0).integers(5, 50, (4, 9)).astype("int32")
    short = dict(zip(INPUT_NAMES, (ids, np.zeros_like(ids), np.ones_like(ids)), strict=True))
    padded = {name: np.pad(array, ((0, 0), (0, 5))) for name, array in short.items()}
    logits = model.predict_on_batch(short)
    assert (logits.shape, logits.dtype) == ((4, 3), np.float32)
    np.testing.assert_allclose(model.predict_on_batch(padded), logits, atol=1e-5)


def pairs(inputs: dict[str, np.ndarray], labels: np.ndarray) -> list[tuple[list[int], int]]:
    """The pieces of each text without padding, and its label."""
    rows = zip(inputs["token_ids"], inputs["padding_mask"], labels, strict=True)
    return [(ids[mask == 1].tolist(), int(label)) for ids, mask, label in rows]


def test_batches_hold_each_text_once_with_its_label(task: SequenceClassification) -> None:
    seen: list[tuple[list[int], int]] = []
    batches = task.batches("train", 16, seed=0)
    for i in range(len(batches)):
        inputs, labels = batches[i]
        assert labels.shape == (len(inputs["token_ids"]),)
        assert inputs["padding_mask"].sum(axis=1).max() <= inputs["token_ids"].shape[1]
        seen += pairs(inputs, labels)
    assert sorted(seen) == sorted(pairs(task.encoded("train"), task.labels("train")))
    assert len({batches[i][0]["token_ids"].shape[1] for i in range(len(batches))}) > 1


@pytest.mark.slow
def test_a_classifier_learns_and_its_file_gives_the_same_scores(task: SequenceClassification, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = sequence_classifier(backbone(len(task.pieces.vocab), "tiny", dropout=0.0), 2, dropout=0.0)
    model.compile(keras.optimizers.Adam(1e-3), loss_of(task.answers.main))
    (before,) = task.scores(model, "train", 64)
    model.fit(task.batches("train", 16, seed=0), epochs=6, verbose=0)
    (score,) = task.scores(model, "test", 64)
    assert (score.name, score.unit, score.count) == ("accuracy", "texts", len(task.data.splits["test"]))
    assert score.value > 0.9 > 0.8 > before.value
    model.save(tmp_path / "model.keras")
    assert task.scores(load_keras_file(tmp_path / "model.keras"), "test", 64) == (score,)
    samples = task.samples()
    assert set(samples) == {*INPUT_NAMES, "labels"}
    assert samples["labels"].shape == (score.count,)
    logits = model.predict({name: samples[name] for name in INPUT_NAMES}, verbose=0)
    assert (logits.argmax(-1) == samples["labels"]).mean() == score.value


def test_other_data_is_scored_with_the_labels_and_pieces_of_the_model(
    texts: TextSet, task: SequenceClassification, tmp_path: Path
) -> None:
    task.save_files(tmp_path)
    step = Step(kind="train", backend="jax", backend_version="0", settings={"max_length": 16})
    about = Artifact(
        name="m",
        task="sequence-classification",
        family="bert",
        model_sha256="",
        parameters=1,
        inputs=(),
        outputs=(),
        label_names=("animal", "tool", "fruit"),
        steps=(step,),
        created_at="2000-01-01T00:00:00+00:00",
    )
    other = SequenceClassification.of_artifact(texts, tmp_path, about)
    assert (other.max_length, other.pieces.vocab) == (16, task.pieces.vocab)
    names = np.array(other.label_names)[other.labels("test")]
    assert names.tolist() == np.array(texts.label_names)[texts.splits["test"].y].tolist()
    with pytest.raises(InputError, match="Received: tool"):
        SequenceClassification(texts, ("animal", "fruit"), other.pieces, 16)

"""References from stored predictions and real data, without a backend: the predictions are made up here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost import data
from kcost.api import reference as module
from kcost.api.reference import make_reference, read_reference
from kcost.core.artifact import Artifact, Model, TensorSpec
from kcost.core.errors import InputError, SchemaError
from kcost.core.pixels import Pixels
from kcost.core.predictions import Predictions, PredictionsHeader, SplitPredictions
from kcost.data.sets import ImageSet, TagSet
from kcost.data.tokenize import WordPiece
from kcost.risk.drift_reference import Reference
from kcost.risk.drift_watch import DriftWatch
from kcost.serving.monitor.rows import read_rows

LENGTH = 48


def artifact(task: str, family: str, names: tuple[str, ...], **more: Any) -> Artifact:
    tensor = TensorSpec(name="x", shape=(None,), dtype="float32")
    return Artifact(
        name="m", task=task, family=family, model_sha256="0", parameters=1, inputs=(tensor,), outputs=(tensor,),
        label_names=names, created_at="2026-01-01", **more,
    )  # fmt: skip


def answered(labels: np.ndarray, rows: np.ndarray, classes: int, seed: int) -> SplitPredictions:
    """Nine of ten are right."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 0.99, len(labels))
    predicted = np.where(rng.random(len(labels)) < 0.1, (labels + 1) % classes, labels)
    probabilities = np.tile(((1 - sure) / (classes - 1))[:, None], (1, classes))
    probabilities[np.arange(len(labels)), predicted] = sure
    count = int(rows.max()) + 1
    return SplitPredictions(labels, predicted, np.log(probabilities).astype(np.float32), rows, np.arange(count))


def stored(
    read: ImageSet | TagSet, names: tuple[str, ...], kind: str, splits: dict[str, SplitPredictions]
) -> Predictions:
    header = PredictionsHeader(
        model="m", model_sha256="0", backend="torch", dataset=read.record, label_names=names, kind=kind,
        unit="images" if kind == "multiclass" else "sentences", train_examples=100,
    )  # fmt: skip
    return Predictions(header, splits, "0")


def of_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Reference, ImageSet]:
    read = data.load("digits", limit=300)
    assert isinstance(read, ImageSet)
    about = artifact("image-classification", "cnn", read.label_names, pixels=Pixels(scale="0-1", why="as made"))
    model = Model(name="m", keras_file=tmp_path / "model.keras", sha256="0", artifact=about)
    splits = {
        name: answered(part.y.astype(np.int64), np.arange(len(part.y)), 10, i)
        for i, (name, part) in enumerate(read.splits.items())
    }
    predictions = stored(read, read.label_names, "multiclass", splits)
    monkeypatch.setattr("kcost.api.risk_predictions.predict_and_store", lambda *_, **__: (model, read, predictions))
    return make_reference("m"), read


def test_a_reference_of_images_holds_what_live_rows_are_held_against(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reference, read = of_images(monkeypatch, tmp_path)
    assert read_reference(tmp_path) == reference == read_reference(tmp_path / "reference.json")
    assert reference.rows == len(read.splits["test"])
    names = {f.name for f in reference.features}
    assert {"confidence", "class", "input mean", "input distance", "input residual distance"} <= names
    assert 0.02 < sum(b.wrong for b in reference.bands) / reference.rows < 0.2
    assert not reference.reading.logits
    # Images of the validation part are no drift; the same with dark and bright exchanged are.
    calm, watch = read.splits["validation"].x, DriftWatch(reference, 60, 0.01)
    rng = np.random.default_rng(0)
    answer = np.exp(
        answered(read.splits["validation"].y.astype(np.int64), np.arange(len(calm)), 10, 9).log_probabilities
    )
    for images, drifted in ((calm, False), (1 - calm, True)):
        request = {"instances": images.tolist()}
        watch.add(read_rows(reference, request, {"predictions": answer.tolist()}, rng).columns)
        names = {f.name for f in watch.report(1.0, 0.0).drifted}
        assert ("input mean" in names) == drifted, names


def test_a_reference_of_a_tagger_looks_where_words_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read = data.load("ner-mini", limit=200)
    assert isinstance(read, TagSet)
    pieces = WordPiece.train(read.splits["train"], 400)
    pieces.save(tmp_path)
    about = artifact("token-classification", "bert", read.tag_names)
    model = Model(name="m", keras_file=tmp_path / "model.keras", sha256="0", artifact=about)
    monkeypatch.setattr(module, "_DEFAULT_MAX_LENGTH", LENGTH)
    classes, splits = len(read.tag_names), {}
    for i, (name, sentences) in enumerate(read.splits.items()):
        encoded = pieces.encode(sentences, read.tag_names, LENGTH)
        places = np.nonzero(encoded.labels >= 0)
        splits[name] = answered(encoded.labels[places].astype(np.int64), places[0], classes, i)
    predictions = stored(read, read.tag_names, "tags", splits)
    monkeypatch.setattr("kcost.api.risk_predictions.predict_and_store", lambda *_, **__: (model, read, predictions))
    reference = make_reference("m", out=tmp_path / "other.json")
    assert {f.name for f in reference.features} == {
        *("confidence", "mean confidence", "entities", "tag"),
        *("input length", "input unknown words", "input word pieces"),
    }
    assert reference.rows == len(read.splits["test"])
    assert reference.reading.logits
    # The same sentences, read as the proxy reads them, are the reference again.
    encoded = pieces.encode(read.splits["test"], read.tag_names, LENGTH)
    logits = np.zeros((len(encoded), LENGTH, classes))
    logits[encoded.labels >= 0] = splits["test"].log_probabilities
    request = {"inputs": {"token_ids": encoded.token_ids.tolist(), "padding_mask": encoded.padding_mask.tolist()}}
    live = read_rows(reference, request, {"outputs": logits.tolist()}, np.random.default_rng(0)).columns
    for feature in reference.features:
        if feature.name == "tag":
            continue  # a word of each sentence is drawn by chance
        counts = np.bincount(feature.codes(live[feature.name]), minlength=len(feature.counts))
        assert counts.tolist() == list(feature.counts), feature.name


def test_a_reference_that_is_not_there_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kcost monitor reference"):
        read_reference(tmp_path)
    (tmp_path / "reference.json").write_text('{"schema": 1}')
    with pytest.raises(SchemaError):
        read_reference(tmp_path)
    with pytest.raises(InputError, match="train, validation or test"):
        make_reference("m", split="all")  # type: ignore[arg-type]

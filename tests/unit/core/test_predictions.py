"""Stored predictions: what comes back is what was written, and damage is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kcost.core.answer import Answer, AnswerChoice
from kcost.core.artifact import Dataset
from kcost.core.errors import InputError, SchemaError
from kcost.core.predictions import (
    PredictionsHeader,
    log_probabilities_of,
    read_predictions,
    write_predictions,
)
from tests.unit.risk.answers import classifier, tagger

HEADER = PredictionsHeader(
    model="m",
    model_sha256="0" * 64,
    backend="torch",
    dataset=Dataset(name="d", synthetic=True, source="a test", licence="none", splits={}),
    label_names=("a", "b", "c", "d"),
    kind="multiclass",
    unit="examples",
    train_examples=100,
)


def test_what_is_written_comes_back_and_equal_predictions_have_equal_hashes(tmp_path: Path) -> None:
    splits = {"train": classifier(30, 0), "test": classifier(20, 1)}
    for name in ("a", "b"):
        write_predictions(tmp_path / name, HEADER, splits)
    a, b = (read_predictions(tmp_path / name) for name in ("a", "b"))
    assert a.header == HEADER
    assert a.sha256 == b.sha256
    assert np.array_equal(a.splits["test"].log_probabilities, splits["test"].log_probabilities)
    assert a.splits["test"].entity_counts is None


def test_what_the_user_said_is_kept(tmp_path: Path) -> None:
    header = HEADER.model_copy(update={"choice": AnswerChoice(threshold=0.3), "pixels": "0-255"})
    write_predictions(tmp_path / "p", header, {"test": classifier(10, 0)})
    assert read_predictions(tmp_path / "p").header == header


def test_a_tagger_keeps_its_counts(tmp_path: Path) -> None:
    header = HEADER.model_copy(update={"label_names": ("O", "B-X"), "entity_types": ("X", "Y")})
    write_predictions(tmp_path / "t", header, {"test": tagger(10, 0)})
    counts = read_predictions(tmp_path / "t").splits["test"].entity_counts
    assert counts is not None
    assert counts.shape == (10, 2, 3)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"{}"])
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(SchemaError, match="Delete it"):
        read_predictions(tmp_path / "p.npz")


def test_arrays_that_do_not_fit_are_told(tmp_path: Path) -> None:
    answers = classifier(10, 0)
    object.__setattr__(answers, "labels", answers.labels[:5])
    write_predictions(tmp_path / "p.npz", HEADER, {"test": answers})
    with pytest.raises(SchemaError, match="different lengths"):
        read_predictions(tmp_path / "p.npz")


def answer(kind: str, logits: bool) -> Answer:
    return Answer(output="o", kind=kind, logits=logits, because="a test")  # type: ignore[arg-type]


def test_probabilities_of_each_kind() -> None:
    half = np.log(0.5)
    assert log_probabilities_of(answer("multiclass", True), np.zeros((1, 2))) == pytest.approx(np.full((1, 2), half))
    assert log_probabilities_of(answer("binary", True), np.zeros((3,))) == pytest.approx(np.full((3, 2), half))
    binary = log_probabilities_of(answer("binary", False), np.array([[0.25]]))
    assert np.exp(binary) == pytest.approx(np.array([[0.75, 0.25]]))
    sure = log_probabilities_of(answer("multiclass", False), np.array([[1.0, 0.0]]))
    assert np.exp(sure[0]) == pytest.approx([1.0, 1e-7])
    assert log_probabilities_of(answer("tags", True), np.zeros((2, 3, 4))).shape == (2, 3, 4)


@pytest.mark.parametrize("numbers", [[[2.0, -1.0]], [[0.5, 0.6]]])
def test_numbers_that_are_no_probabilities_are_refused(numbers: list[list[float]]) -> None:
    with pytest.raises(InputError, match="from_logits=True"):
        log_probabilities_of(answer("multiclass", False), np.array(numbers))


def test_answers_without_classes_are_refused() -> None:
    with pytest.raises(InputError, match="classifier or a tagger"):
        log_probabilities_of(answer("regression", False), np.zeros((2, 1)))

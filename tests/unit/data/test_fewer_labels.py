"""A data set with fewer labels: the same test, the right counts, each class at its share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost import data
from kcost.core.errors import DataError


@pytest.fixture(scope="module")
def digits() -> data.DataSet:
    return data.load("digits")


@given(labels=st.integers(10, 1438))
@settings(max_examples=20, deadline=None)
def test_as_many_labels_as_asked_for_and_the_test_stays(digits: data.DataSet, labels: int) -> None:
    fewer = data.fewer_labels(digits, labels, seed=3)
    counts = {name: split.count for name, split in fewer.record.splits.items()}
    assert counts["train"] + counts["validation"] == labels
    assert counts == {name: len(split) for name, split in fewer.splits.items()}
    assert fewer.record.splits["test"] == digits.record.splits["test"]
    assert counts["validation"] == pytest.approx(labels / 10, abs=1)


def test_classes_keep_their_share(digits: data.DataSet) -> None:
    assert isinstance(digits, data.ImageSet)
    fewer = data.fewer_labels(digits, 400, seed=0)
    assert isinstance(fewer, data.ImageSet)
    whole, part = (np.bincount(s.splits["train"].y, minlength=10) / len(s.splits["train"]) for s in (digits, fewer))
    assert np.abs(whole - part).max() < 0.01
    assert "400 labels" in fewer.record.notes[-1]


def test_sentences_and_texts_have_fewer_labels_too(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text("text,label\n" + "".join(f"text number {i},{'ab'[i % 2]}\n" for i in range(200)))
    for name in ("ner-mini", str(file)):
        whole = data.load(name)
        fewer = data.fewer_labels(whole, 30, seed=0)
        assert {split: len(part) for split, part in fewer.splits.items()} == {
            split: count.count for split, count in fewer.record.splits.items()
        }
        assert len(fewer.splits["train"]) + len(fewer.splits["validation"]) == 30
        assert fewer.record.splits["test"] == whole.record.splits["test"]


def test_arrays_of_any_kind_are_refused(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=numbers.normal(size=(60, 4)).astype(np.float32), y=numbers.integers(0, 3, 60))
    with pytest.raises(DataError, match="holds arrays"):
        data.fewer_labels(data.load(str(tmp_path / "a.npz")), 20, seed=0)


def test_other_seeds_take_other_examples(digits: data.DataSet) -> None:
    hashes = {data.fewer_labels(digits, 100, seed=s).record.splits["train"].sha256 for s in (0, 0, 1, 2)}
    assert len(hashes) == 3


def test_more_labels_than_there_are_is_refused(digits: data.DataSet) -> None:
    with pytest.raises(DataError, match=r"1,439 of 1,438"):
        data.fewer_labels(digits, 1439, seed=0)

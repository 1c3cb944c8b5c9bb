"""Arrays of any kind from an .npz file, for models that are no image classifiers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kcost.core.errors import DataError
from kcost.data import ArraySet, ImageSet, load
from kcost.data.arrays import is_one_hot

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(30, 6))
IMAGES = RNG.integers(0, 256, (30, 8, 8), dtype=np.uint8)
CLASSES = np.arange(30) % 3


def loaded(folder: Path, **arrays: np.ndarray) -> ArraySet:
    np.savez(folder / "set.npz", **arrays)  # type: ignore[arg-type]  # numpy types its own flag into **kwds
    read = load(str(folder / "set.npz"))
    assert isinstance(read, ArraySet)
    return read


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (ROWS, CLASSES),
        (ROWS, ROWS[:, 0]),
        (IMAGES, ROWS[:, 0]),
        (IMAGES, np.stack([CLASSES > 0, CLASSES > -1], axis=1)),
        (ROWS.reshape(30, 3, 2), CLASSES),
        (np.zeros((30, 3, 8, 8), np.uint8), CLASSES),
    ],
)
def test_features_and_labels_of_any_shape(tmp_path: Path, x: np.ndarray, y: np.ndarray) -> None:
    read = loaded(tmp_path, x=x, y=y)
    assert {split: len(part) for split, part in read.splits.items()} == {"train": 22, "validation": 2, "test": 6}
    assert "values are taken as they are" in read.record.notes
    taken = np.concatenate([part.x[""] for part in read.splits.values()])
    assert sorted(taken.reshape(30, -1)[:, 0].tolist()) == sorted(x.astype(taken.dtype).reshape(30, -1)[:, 0].tolist())


def test_one_class_an_image_is_still_an_image_set(tmp_path: Path) -> None:
    for number, labels in enumerate((CLASSES, CLASSES[:, None], np.eye(3)[CLASSES])):
        np.savez(tmp_path / f"{number}.npz", x=IMAGES, y=labels)
        read = load(str(tmp_path / f"{number}.npz"))
        assert isinstance(read, ImageSet)
        assert read.label_names == ("0", "1", "2")


def test_several_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    read = loaded(tmp_path, **{"x/ids": CLASSES[:, None], "x/values": ROWS, "y/kind": CLASSES, "y/size": ROWS[:, 0]})
    assert read.splits["test"].x.keys() == {"ids", "values"}
    assert read.splits["test"].y.keys() == {"kind", "size"}
    assert read.splits["test"].x["values"].dtype == np.float32


def test_a_limit_takes_as_many_of_each_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=ROWS, y=CLASSES)
    read = load(str(tmp_path / "set.npz"), limit=4)
    assert {split: len(part) for split, part in read.splits.items()} == {"train": 4, "validation": 2, "test": 4}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": ROWS, "y": CLASSES[:9]}, "x: 30, labels : 9"),
        ({"x_train": ROWS, "y_train": CLASSES, "x_test": ROWS}, "holds x_train, y_train"),
        ({"x_test": ROWS, "y_test": CLASSES}, "holds x_train, y_train"),
        ({"x": np.full((30, 6), np.nan), "y": CLASSES}, "180 that are nan or infinite"),
        ({"x": ROWS, "y": ROWS[:, 0] > 99, "x/other": np.full((30, 1), "a")}, "<U1"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        loaded(tmp_path, **arrays)
    assert "set.npz" in str(caught.value)


def test_what_is_one_hot() -> None:
    assert is_one_hot(np.eye(3))
    assert not is_one_hot(np.ones((3, 1)))
    assert not is_one_hot(np.ones((3, 2)))
    assert not is_one_hot(np.array([["a", "b"]]))

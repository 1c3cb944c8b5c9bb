"""What a risk report takes from the data themselves: columns to slice by, leaks, personal data."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kcost.core.errors import DataError
from kcost.core.predictions import Predictions
from kcost.risk.leakage import Leakage, leaked_arrays, leaked_texts
from kcost.risk.personal_data import PersonalData, count_personal_data
from kcost.risk.slices import Columns, quartiles

if TYPE_CHECKING:
    from kcost.data import Arrays, DataSet


def columns_of(read: DataSet, predictions: Predictions) -> dict[str, np.ndarray]:
    """Columns that every data set has: the class of a classifier's example, the words of a text, an image's brightness.

    Each has a value for each test example, shape (n,), strings.
    """
    from kcost.data import ImageSet

    test = predictions.splits["test"]
    columns = {}
    if test.entity_counts is None and len(test.labels) == len(test):
        columns["class"] = np.array(predictions.header.label_names)[test.labels]
    texts = _texts(read, "test")
    if texts is not None:
        columns["words"] = quartiles("words", np.array([len(text.split()) for text in texts]))
    if isinstance(read, ImageSet):
        images = read.splits["test"].x
        columns["brightness"] = quartiles("brightness", images.reshape(len(images), -1).mean(1).round(4))
    return columns


def read_columns(path: Path, count: int) -> Columns:
    """Columns of a user's own CSV file: a header, then a row for each test example, in the order of the test split.

    Raises:
        DataError: there is no such file, it is no CSV, or it has another number of rows.
    """
    rule = "A file of columns is CSV with a header and a row for each test example, in the order of the test split."
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(rule, f"{path}: {error}", "Give another file with --columns.") from error
    rows = [row for row in rows if row]
    header = rows[0] if rows else []
    wrong = next((i for i, row in enumerate(rows, 1) if len(row) != len(header)), None)
    if not header or wrong is not None or len(set(header)) != len(header) or "" in header:
        received = f"{path}, without a line" if not header else f"{path}: a header with an empty or a double name"
        if wrong is not None:
            received = f"{path}, row {wrong}: {len(rows[wrong - 1])} values under {len(header)} names"
        raise DataError(rule, received, "Correct that row.")
    if len(rows) - 1 != count:
        raise DataError(
            rule, f"{path} with {len(rows) - 1:,} rows, for {count:,} test examples", "Give a row for each."
        )
    return {name: np.array([row[i] for row in rows[1:]]) for i, name in enumerate(header)}


def leakage_of(read: DataSet) -> Leakage:
    """Test examples that stand in the training split."""
    from kcost.data import ArraySet, ImageSet

    train, test = _texts(read, "train"), _texts(read, "test")
    if train is not None and test is not None:
        return leaked_texts(train, test)
    if isinstance(read, ImageSet):
        return leaked_arrays(read.splits["train"].x, read.splits["test"].x, "images")
    assert isinstance(read, ArraySet)
    return leaked_arrays(_in_rows(read.splits["train"]), _in_rows(read.splits["test"]))


def _in_rows(part: Arrays) -> np.ndarray:
    """All features of each example, shape (n, numbers), float32."""
    return np.concatenate([a.reshape(len(a), -1).astype(np.float32) for _, a in sorted(part.x.items())], 1)


def personal_data_of(read: DataSet) -> PersonalData | None:
    """Personal data in the texts of all splits; None for data that are no texts."""
    parts = [_texts(read, split) for split in read.splits]
    texts = [text for part in parts if part is not None for text in part]
    return count_personal_data(texts) if texts else None


def _texts(read: DataSet, split: str) -> list[str] | None:
    from kcost.data import TagSet, TextSet

    if isinstance(read, TagSet):
        return [" ".join(sentence.tokens) for sentence in read.splits[split]]
    return list(read.splits[split].texts) if isinstance(read, TextSet) else None

"""A user's own columns: read, or refused with one clear message."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcost.api.risk_data import read_columns
from kcost.core.errors import DataError


def test_columns_are_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('source,age\nweb,"10, 20"\napp,30\n', encoding="utf-8-sig")
    columns = read_columns(path, 2)
    assert {name: values.tolist() for name, values in columns.items()} == {
        "source": ["web", "app"], "age": ["10, 20", "30"]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "without a line"),
        ("a,b\n1,2\n", "1 rows, for 2 test examples"),
        ("a,b\n1,2\n3\n", "row 3: 1 values under 2 names"),
        ("a,a\n1,2\n3,4\n", "double name"),
        ("a,\n1,2\n3,4\n", "double name"),
        ('a\n"1\n2\n', "unexpected end of data"),
    ],
)
def test_a_file_that_does_not_fit_is_told(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(content)
    with pytest.raises(DataError) as raised:
        read_columns(path, 2)
    assert message in str(raised.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_columns(tmp_path / "none.csv", 2)

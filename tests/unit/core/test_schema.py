from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import Field

from kcost.core import schema
from kcost.core.errors import SchemaError, StorageError


class Thing(schema.Record):
    schema_: int = Field(default=3, alias="schema")
    size_bytes: int


@pytest.fixture
def third_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schema.VERSIONS, "thing", 3)
    monkeypatch.setitem(schema.UPGRADES, ("thing", 2), lambda d: {"size_bytes": d["size_kb"] * 1024})


def put(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.usefixtures("third_version")
class TestReading:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        schema.write(tmp_path / "a" / "thing.json", Thing(size_bytes=5))
        assert schema.read("thing", tmp_path / "a" / "thing.json", Thing) == Thing(size_bytes=5)
        assert json.loads((tmp_path / "a" / "thing.json").read_text())["schema"] == 3

    def test_an_older_file_is_upgraded(self, tmp_path: Path) -> None:
        path = put(tmp_path / "t.json", {"schema": 2, "size_kb": 2})
        assert schema.read("thing", path, Thing) == Thing(size_bytes=2048)

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ({"schema": 4, "size_bytes": 1}, "pip install --upgrade kcost"),
            ({"schema": 1, "size_bytes": 1}, "no upgrade for thing files of schema 1"),
            ({"size_bytes": 1}, "positive integer `schema`"),
            ({"schema": True}, "positive integer `schema`"),
            ({"schema": 0}, "positive integer `schema`"),
            ({"schema": "3"}, "positive integer `schema`"),
            ({"schema": 3}, "size_bytes: Field required"),
            ({"schema": 3, "size_bytes": 1, "colour": 2}, "colour: Extra inputs"),
            ('{"schema": 3, "size', "is a JSON object"),
            ("[]", "a JSON list, not an object"),
            ("", "is a JSON object"),
        ],
    )
    def test_a_file_that_cannot_be_used(self, tmp_path: Path, document: Any, message: str) -> None:
        with pytest.raises(SchemaError) as caught:
            schema.read("thing", put(tmp_path / "t.json", document), Thing)
        assert message in str(caught.value)
        assert "t.json" in str(caught.value)

    @given(st.binary(max_size=200))
    def test_no_bytes_end_in_another_error(self, content: bytes) -> None:
        path = Path(os.environ.get("TMPDIR", "/tmp")) / f"kcost-{os.getpid()}.json"
        path.write_bytes(content)
        try:
            schema.read("thing", path, Thing)
        except SchemaError:
            pass
        finally:
            path.unlink()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    schema.write_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match="The disk is full"):
        schema.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match="Name another folder"):
        schema.write_bytes(tmp_path / "f" / "t.json", b"")

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kcost.core.artifact import Artifact, new_folder, open_model, sha256_of
from kcost.core.errors import ArtifactError, SchemaError, StorageError
from kcost.core.schema import write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    path.mkdir()
    (path / "model.keras").write_bytes(b"weights")
    about = Artifact(
        name="m",
        task="unknown",
        family="unknown",
        model_sha256=sha256_of(path / "model.keras"),
        parameters=1,
        inputs=(),
        outputs=(),
        created_at="2026-01-01",
    )
    write(path / "artifact.json", about)
    return path


def test_a_folder_and_a_bare_file_are_models(folder: Path) -> None:
    assert open_model(folder).name == "m"
    bare = open_model(folder / "model.keras")
    assert (bare.name, bare.artifact, bare.task, bare.samples_file) == ("model", None, "unknown", None)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.keras").unlink(), "holds model.keras"),
        (lambda f: (f / "artifact.json").unlink(), "holds artifact.json"),
        (lambda f: (f / "model.keras").write_bytes(b"weig"), "changed or cut short"),
    ],
)
def test_a_spoilt_folder_is_refused(folder: Path, spoil: object, message: str) -> None:
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(ArtifactError) as caught:
        open_model(folder)
    assert message in str(caught.value)


def test_an_artifact_of_a_newer_schema_is_refused(folder: Path) -> None:
    path = folder / "artifact.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(SchemaError, match="pip install --upgrade kcost"):
        open_model(folder)


@pytest.mark.parametrize("name", ["nowhere", "model.h5"])
def test_what_is_no_model_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.h5").write_bytes(b"")
    with pytest.raises(ArtifactError, match="kcost train"):
        open_model(tmp_path / name)


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a" / "b") as draft:
        (draft / "x").write_text("1")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "x").read_text() == "1"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_a_new_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "b"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with new_folder(tmp_path / "b"):
        pass
    (tmp_path / "b" / "x").write_text("mine")
    with pytest.raises(StorageError, match="never overwrites"), new_folder(tmp_path / "b"):
        pass

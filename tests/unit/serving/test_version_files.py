"""What a runtime takes for a version, and what is said where there is none or one that does not say its signature."""

from __future__ import annotations

from pathlib import Path

import pytest

import kcost
from kcost.core.conversion import FILE_NAMES, Runtime
from kcost.core.errors import ArtifactError, InputError
from kcost.serving.config import read_models, versions_in
from kcost.serving.version_files import SUFFIXES, version_files
from kcost.worker.serve import ServedConversion


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"{}")
    return folder


@pytest.mark.parametrize("runtime", ["litert", "onnx", "openvino"])
def test_a_converted_model_lies_below_its_version_or_in_it(runtime: Runtime, tmp_path: Path) -> None:
    name, base = FILE_NAMES[runtime], tmp_path / "m"
    put(base / "1", "saved_model.pb")
    beside = put(base / "2" / runtime, "conversion.json", name)
    put(base / "2", "saved_model.pb")
    alone = put(base / "3", "conversion.json", name)
    bare = put(base / "4", f"some{SUFFIXES[runtime]}")
    put(base / "5", "conversion.json")  # of another runtime
    assert versions_in(base) == (1, 2)
    assert versions_in(base, runtime) == (2, 3, 4)
    assert [entry.name for entry in read_models(tmp_path, runtime)] == ["m"]
    for version, folder, marker in ((2, beside, "conversion.json"), (3, alone, "conversion.json"), (4, bare, None)):
        files = version_files(base / str(version), runtime)
        assert files is not None
        assert files.folder == folder
        assert files.marker.name == (marker or f"some{SUFFIXES[runtime]}")


def test_a_converted_saved_model_is_one(tmp_path: Path) -> None:
    put(tmp_path / "m" / "7" / "saved_model", "saved_model.pb")
    put(tmp_path / "m" / "7", "conversion.json")
    files = version_files(tmp_path / "m" / "7", "saved_model")
    assert files is not None
    assert files.folder == tmp_path / "m" / "7" / "saved_model"


def test_a_file_that_does_not_say_its_signature_is_refused_with_the_rule(tmp_path: Path) -> None:
    folder = put(tmp_path / "m" / "1", "model.onnx")
    with pytest.raises(ArtifactError, match=r"says its signature.*\nReceived: .*without it\n.*--to onnx"):
        ServedConversion("onnx", folder, 1)


def test_a_folder_without_a_version_for_the_backend_says_how_to_make_one(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1", "saved_model.pb")
    with pytest.raises(InputError, match=r"VERSION/litert/conversion.json.*\n.*\n.*--to litert"):
        kcost.serve_models(tmp_path, backend="litert")
    with pytest.raises(InputError, match=r"one of saved_model, litert, onnx, openvino.\nReceived: tflite"):
        kcost.serve_models(tmp_path, backend="tflite")  # type: ignore[arg-type]

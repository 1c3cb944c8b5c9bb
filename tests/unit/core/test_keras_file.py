"""Reading a `.keras` file without Keras: hand-made archives, whole and broken."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.errors import ArtifactError
from kcost.core.keras_file import inspect_keras_file

DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "end"}, "registered_name": None}
BERT = {
    "module": "keras_hub.src.models.bert.bert_backbone",
    "class_name": "BertBackbone",
    "config": {"name": "bert"},
    "registered_name": "keras_hub>BertBackbone",
}


def model(*layers: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {"name": "net", "layers": list(layers)},
        "registered_name": "Functional",
    }


def keras_file(folder: Path, members: dict[str, Any] | None = None, **compression: Any) -> Path:
    path = folder / "model.keras"
    defaults = {
        "metadata.json": {"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"},
        "config.json": model(DENSE),
        "model.weights.h5": "weights " * 100,
    }
    with zipfile.ZipFile(path, "w", **compression) as archive:
        for name, content in {**defaults, **(members or {})}.items():
            if content is not None:
                archive.writestr(name, content if isinstance(content, (str, bytes)) else json.dumps(content))
    return path


def test_a_summary(tmp_path: Path) -> None:
    summary = inspect_keras_file(keras_file(tmp_path, {"config.json": model(DENSE, BERT)}))
    assert (summary.name, summary.class_name, summary.keras_version) == ("net", "Functional", "3.15.1")
    assert summary.modules == (
        *("keras.layers", "keras.src.models.functional", "keras_hub"),
        "keras_hub.src.models.bert.bert_backbone",
    )
    assert summary.needs_keras_hub
    assert not inspect_keras_file(keras_file(tmp_path)).needs_keras_hub


def test_no_framework_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys; from kcost.core.keras_file import inspect_keras_file; inspect_keras_file(sys.argv[1]); "
        "print([m for m in ('keras', 'keras_nlp', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    path = str(keras_file(tmp_path))
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"config.json": None}, "without config.json"),
        ({"model.weights.h5": None}, "without model.weights.h5"),
        ({"config.json": "{"}, "not JSON"),
        ({"config.json": b"\xff\xfe{"}, "not JSON"),
        ({"config.json": "[" * 100_000}, "not JSON"),
        ({"config.json": []}, "describes no model"),
        ({"config.json": {"class_name": "Functional"}}, "describes no model"),
        ({"config.json": {"class_name": 3, "config": {}}}, "describes no model"),
    ],
)
def test_damaged_archives(tmp_path: Path, members: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        inspect_keras_file(keras_file(tmp_path, members))


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.keras").write_text("not a zip")
    (tmp_path / "empty.keras").write_bytes(b"")
    (tmp_path / "folder.keras").mkdir()
    for name, message in (
        ("text.keras", "not a whole zip archive"),
        ("empty.keras", "not a whole zip archive"),
        ("folder.keras", "read from a .keras file"),
        ("gone.keras", "which is not there"),
        ("model.h5", "read from a .keras file"),
    ):
        with pytest.raises(ArtifactError, match=message):
            inspect_keras_file(tmp_path / name)


@settings(max_examples=50)
@given(st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, part: float) -> None:
    path = keras_file(tmp_path_factory.mktemp("cut"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ArtifactError, match="cut short"):
        inspect_keras_file(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_byte_is_seen(tmp_path: Path, method: int) -> None:
    path = keras_file(tmp_path, compression=method)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        weights = archive.getinfo("model.weights.h5")
    content[weights.header_offset + 30 + len(weights.filename) + 5] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"checksum|not a whole zip archive"):
        inspect_keras_file(path)


def with_class(**changes: Any) -> dict[str, Any]:
    return {**DENSE, **changes}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (with_class(class_name="Lambda", config={"name": "l"}), "the layer 'l' is a Lambda"),
        (
            with_class(config={"name": "d", "activation": {"class_name": "__lambda__", "config": {"code": "x"}}}),
            "the layer 'd' holds a lambda",
        ),
        (with_class(module="os", class_name="system"), "'system' from the module 'os'"),
        (with_class(module="kerasx.layers"), "the module 'kerasx.layers'"),
        (with_class(module=None, registered_name="Own", class_name="Own"), "'Own' from a script"),
        (with_class(registered_name="own>Dense"), "the package 'own'"),
        (
            with_class(config={"name": "d", "activation": {**DENSE, "class_name": "function", "config": "own>f"}}),
            "the function 'own>f' from the package 'own'",
        ),
        (with_class(module="subprocess", class_name="function", config="run"), "'run' from the module 'subprocess'"),
    ],
)
def test_code_that_is_not_known_is_refused_wherever_it_hides(
    tmp_path: Path, layer: dict[str, Any], message: str
) -> None:
    for config in (model(layer), model(DENSE, model(BERT, layer)), model(with_class(config={"x": [[{"y": layer}]]}))):
        with pytest.raises(ArtifactError, match=message):
            inspect_keras_file(keras_file(tmp_path, {"config.json": config}))


def test_the_loss_may_be_anybodys_own(tmp_path: Path) -> None:
    compiled = {**model(DENSE), "compile_config": {"loss": {"class_name": "__lambda__", "config": {}}}}
    assert inspect_keras_file(keras_file(tmp_path, {"config.json": compiled})).class_name == "Functional"
    with pytest.raises(ArtifactError, match="lambda"):  # that of a nested model would be built
        inspect_keras_file(keras_file(tmp_path, {"config.json": model(compiled)}))


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_any_json_is_a_summary_or_an_artifact_error(tmp_path_factory: pytest.TempPathFactory, config: Any) -> None:
    path = keras_file(tmp_path_factory.mktemp("any"), {"config.json": {**model(DENSE), "extra": config}})
    assert inspect_keras_file(path).name == "net"

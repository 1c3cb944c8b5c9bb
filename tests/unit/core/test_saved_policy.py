import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kcost.core.saved_policy import saved_policy


def policy(name: str, kind: str = "DTypePolicy", **more: Any) -> dict[str, Any]:
    return {"module": "keras", "class_name": kind, "config": {"name": name, **more}, "registered_name": None}


def layer(dtype: Any, class_name: str = "Dense") -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": {"name": "layer", "dtype": dtype}}


def write(path: Path, *layers: dict[str, Any], **more: Any) -> Path:
    config = {"module": "keras", "class_name": "Functional", "config": {"name": "m", "layers": list(layers)}, **more}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([layer(policy("float32"))], None),
        ([layer(policy("mixed_float16")), layer(policy("float32"))], "mixed_float16"),
        ([layer(policy("mixed_bfloat16")), layer(policy("bfloat16"))], "bfloat16 and mixed_bfloat16"),
        ([layer("mixed_float16")], "mixed_float16"),
        ([layer(policy("int8_from_float32", "QuantizedDTypePolicy", mode="int8"))], None),
        (
            [layer(policy("int8_from_mixed_bfloat16", "QuantizedDTypePolicy", mode="int8"))],
            "int8_from_mixed_bfloat16",
        ),
        # None of these is computed in: an input, a cast in the graph, numbers of classes and texts.
        ([layer("float16", "InputLayer"), layer("bfloat16", "Cast")], None),
        ([layer(policy("int64"), "IntegerLookup"), layer(policy("string"), "StringLookup")], None),
    ],
)
def test_the_policy_is_that_of_the_layers(tmp_path: Path, layers: list[dict[str, Any]], expected: str | None) -> None:
    assert saved_policy(write(tmp_path / "m.keras", *layers)) == expected


def test_what_the_model_was_compiled_with_is_no_policy_of_a_layer(tmp_path: Path) -> None:
    compiled = {"optimizer": {"class_name": "Adam", "config": {"dtype": policy("mixed_float16")}}}
    assert saved_policy(write(tmp_path / "m.keras", layer(policy("float32")), compile_config=compiled)) is None


def test_a_file_that_is_no_archive_has_none(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    path.write_text("{}")
    assert saved_policy(path) is None

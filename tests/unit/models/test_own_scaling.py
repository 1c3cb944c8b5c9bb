"""What a `.keras` file says of the pixels it takes, read without Keras: hand-made archives in the form of Keras's."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.models.pixels import OwnScaling, own_scaling

CONV = ("Conv2D", {})
BYTES = OwnScaling("0-255", "Rescaling")
UNIT_STATISTICS = {"mean": [0.485, 0.456, 0.406], "variance": [0.0524, 0.0502, 0.0506]}
BYTE_STATISTICS = {"mean": [123.7, 116.3, 103.5], "variance": [3410.0, 3263.0, 3292.0]}


def layer(kind: str, config: dict[str, Any], name: str) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": kind, "config": {"name": name, **config}, "name": name}


def source(name: str) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"shape": [None, 8, 8, 3], "keras_history": [name, 0, 0]}}


def start(dtype: str = "float32") -> dict[str, Any]:
    return layer("InputLayer", {"batch_shape": [None, 8, 8, 3], "dtype": dtype}, "start")


def sequential(*kinds: tuple[str, dict[str, Any]], dtype: str = "float32", name: str = "net") -> dict[str, Any]:
    layers = [layer(kind, config, f"{name}_{i}") for i, (kind, config) in enumerate(kinds)]
    return layer("Sequential", {"layers": [start(dtype), *layers]}, name)


def functional(*kinds: tuple[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """A chain; a list in the place of a config holds what follows the tensor among the arguments of an operation."""
    layers, before = [start(dtype)], "start"
    for i, (kind, config) in enumerate(kinds):
        more = config if isinstance(config, list) else []
        made = layer(kind, {} if isinstance(config, list) else config, f"at_{i}")
        layers.append({**made, "inbound_nodes": [{"args": [source(before), *more], "kwargs": {}}]})
        before = f"at_{i}"
    return layer("Functional", {"layers": layers, "input_layers": [["start", 0, 0]]}, "net")


def keras_file(folder: Path, config: Any, adapted: dict[str, tuple[Any, Any]] | None = None) -> Path:
    content = io.BytesIO()
    with h5py.File(content, "w") as weights:
        for name, (mean, variance) in (adapted or {}).items():
            group = weights.create_group(f"layers/of_class_{name}/vars")
            group.attrs["name"] = name
            group["0"], group["1"], group["2"] = mean, variance, 5
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", content.getvalue())
    return path


def tensor(*values: float) -> dict[str, Any]:
    return {"class_name": "__tensor__", "config": {"value": [[list(values)]], "dtype": "float32"}}


SCALED = {
    "tutorial": (sequential(("Rescaling", {"scale": 1 / 255, "offset": 0.0}), CONV), BYTES),
    "from -1 to 1": (functional(("Rescaling", {"scale": 1 / 127.5, "offset": -1.0}), CONV), BYTES),
    "a scale for each channel": (sequential(("Rescaling", {"scale": [0.0039, 0.004], "offset": 0}), CONV), BYTES),
    "after augmentation": (
        sequential(("RandomFlip", {}), ("Resizing", {}), ("Rescaling", {"scale": 1 / 255, "offset": 0.0}), CONV),
        BYTES,
    ),
    "nested": (
        layer(
            "Sequential",
            {
                "layers": [
                    start(),
                    sequential(("RandomZoom", {}), name="augment"),
                    sequential(("Rescaling", {"scale": 1 / 255, "offset": 0}), CONV, name="inner"),
                ]
            },
            "net",
        ),
        BYTES,
    ),
    "statistics of bytes": (
        functional(("Normalization", BYTE_STATISTICS), CONV),
        OwnScaling("0-255", "Normalization"),
    ),
    "statistics of images in 0 to 1": (
        functional(("Normalization", UNIT_STATISTICS), CONV),
        OwnScaling("0-1", "Normalization"),
    ),
    "rescaled, then statistics": (
        functional(("Rescaling", {"scale": 1 / 255, "offset": 0}), ("Normalization", UNIT_STATISTICS), CONV),
        BYTES,
    ),
    "not adapted, then rescaled": (
        functional(
            ("Normalization", {"mean": [0.0], "variance": [1.0]}), ("Rescaling", {"scale": 1 / 255, "offset": 0}), CONV
        ),
        BYTES,
    ),
    "operations": (
        functional(("TrueDivide", [127.5]), ("Subtract", [1.0]), CONV),
        OwnScaling("0-255", "a constant factor"),
    ),
    "product": (functional(("Multiply", [0.00392]), CONV), OwnScaling("0-255", "a constant factor")),
    "means of channels": (
        functional(("GetItem", [[0]]), ("Stack", []), ("Add", [tensor(-103.9, -116.8, -123.7)]), CONV),
        OwnScaling("0-255", "a constant that is added"),
    ),
    "from 0 to 16": (
        sequential(("Rescaling", {"scale": 1 / 16, "offset": 0}), CONV),
        OwnScaling("as-is", "Rescaling"),
    ),
    "whole numbers": (sequential(CONV, dtype="uint8"), OwnScaling("0-255", "its input of uint8")),
    "whole numbers, rescaled": (
        sequential(("Rescaling", {"scale": 1 / 255, "offset": 0}), CONV, dtype="uint8"),
        BYTES,
    ),
    "no scaling": (sequential(CONV), None),
    "from 0 to 1 to -1 to 1": (sequential(("Rescaling", {"scale": 2.0, "offset": -1.0}), CONV), None),
    "scaled after weights": (sequential(CONV, ("Rescaling", {"scale": 1 / 255, "offset": 0})), None),
    "two tensors multiplied": (functional(("Multiply", [source("start")]), CONV), None),
    "scaled by one": (
        functional(("Identity", {}), ("Rescaling", {"scale": 1.0, "offset": 0.0}), CONV),
        None,
    ),
    "a class of one's own": (layer("Mine", {}, "net"), None),
}


@pytest.mark.parametrize(("config", "expected"), SCALED.values(), ids=SCALED.keys())
def test_who_scales_is_read_from_the_file(tmp_path: Path, config: Any, expected: OwnScaling | None) -> None:
    assert own_scaling(keras_file(tmp_path, config)) == expected


@pytest.mark.parametrize(
    ("mean", "variance", "scale"),
    [
        ([33.3], [78.6**2], "0-255"),
        ([0.13], [0.095], "0-1"),
        ([4.9], [36.0], "as-is"),
    ],
)
def test_what_a_layer_was_adapted_to_is_read_from_the_weights(tmp_path: Path, mean, variance, scale) -> None:
    config = sequential(("Normalization", {"mean": None, "variance": None}), CONV)
    path = keras_file(tmp_path, config, {"net_0": (np.array(mean), np.array(variance)), "net_1": ([7.0], [9.0])})
    assert own_scaling(path) == OwnScaling(scale, "Normalization")
    assert own_scaling(keras_file(tmp_path, config)) == OwnScaling(
        "as-is", "Normalization, whose mean the file does not say"
    )
    assert own_scaling(keras_file(tmp_path, config, {"net_0": ([0.0], [1.0])})) is None


def test_a_branch_without_weights_does_not_hide_the_other(tmp_path: Path) -> None:
    config = functional(CONV, ("Dense", {}))
    scaling = layer("Rescaling", {"scale": 1 / 255, "offset": 0}, "beside")
    config["config"]["layers"].append({**scaling, "inbound_nodes": [{"args": [source("start")], "kwargs": {}}]})
    assert own_scaling(keras_file(tmp_path, config)) == BYTES


def test_the_form_of_keras_2_is_read(tmp_path: Path) -> None:
    config = functional(("Rescaling", {"scale": 1 / 255, "offset": 0}), CONV)
    for i, one in enumerate(config["config"]["layers"][1:]):
        one["inbound_nodes"] = [[["start" if i == 0 else f"at_{i - 1}", 0, 0, {}]]]
    assert own_scaling(keras_file(tmp_path, config)) == BYTES


anything = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=True) | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(["Rescaling", "Normalization", "TrueDivide", "Multiply", "Add", "InputLayer", "Sequential"])
names = ("scale", "offset", "mean", "variance", "layers")
settings_of = st.fixed_dictionaries({}, optional=dict.fromkeys(names, anything))


@settings(max_examples=150, deadline=None)
@given(layers=st.lists(st.tuples(kinds, settings_of), max_size=4), nodes=anything, graph=st.booleans())
def test_any_settings_give_an_answer(tmp_path_factory, layers, nodes, graph) -> None:
    config = functional(*layers) if graph else sequential(*layers)
    config["config"]["layers"][-1]["inbound_nodes"] = nodes
    own_scaling(keras_file(tmp_path_factory.mktemp("any"), config))


def test_no_framework_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys; from kcost.models.pixels import own_scaling; own_scaling(sys.argv[1]);"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    path = keras_file(tmp_path, sequential(CONV))
    child = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"

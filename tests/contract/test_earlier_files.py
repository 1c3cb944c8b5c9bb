"""Files of an earlier kcost, one with each layer that it registers with Keras, load and answer as they did."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from kcost.core.own_code import CLASSES_VARIABLE
from kcost.models.loading import load_keras_file

FOLDER = Path(__file__).parent / "earlier_files"
"""Each with an .npz of inputs and of what they were answered with on TensorFlow. `own` names own_model.OwnModel."""

REGISTERED = (
    *("ConvolutionChain", "EncoderBlock", "InferenceLayerNormalization", "QuantizedConv2D", "QuantizedDense"),
    *("QuantizedDepthwiseConv2D", "QuantizedEinsumDense", "QuantizedEmbedding", "RewrittenLayer", "RewrittenModel"),
)
NAMES = sorted(path.stem for path in FOLDER.glob("*.keras"))


@pytest.mark.parametrize("name", NAMES)
def test_an_earlier_file_answers_as_it_did(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CLASSES_VARIABLE, "tests.contract.own_model")
    model = load_keras_file(FOLDER / f"{name}.keras")
    with np.load(FOLDER / f"{name}.npz") as kept:
        arrays = dict(kept)
    expected = arrays.pop("outputs")
    inputs = arrays.get("x", arrays)
    answered = keras.ops.convert_to_numpy(model(inputs, training=False))
    # Backends round a number that lies half way between two of int8's to either.
    assert np.linalg.norm(answered - expected) < 0.01 * np.linalg.norm(expected)


def test_every_registered_layer_is_in_a_kept_file() -> None:
    configs = "".join(zipfile.ZipFile(path).read("config.json").decode() for path in FOLDER.glob("*.keras"))
    assert [name for name in REGISTERED if f'"kcost>{name}"' not in configs] == []
    import kcost.optimize.quantization  # noqa: F401 -- registers every layer

    registered = keras.saving.get_custom_objects().keys()
    assert sorted(name.removeprefix("kcost>") for name in registered if name.startswith("kcost>")) == list(REGISTERED)

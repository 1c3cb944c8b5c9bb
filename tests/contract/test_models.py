from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from kcost.core.errors import InputError
from kcost.models.bert import SIZES, backbone, token_classifier
from kcost.models.cnn import cnn
from kcost.models.loading import load_keras_file
from tests.contract.inputs import token_inputs


@pytest.mark.parametrize("size", ["seed", "small"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (20, 33, 3)])
def test_cnn_gives_probabilities_for_any_image_shape(size: str, shape: tuple[int, int, int]) -> None:
    model = cnn(shape, 7, size)
    images = np.random.default_rng(0).uniform(size=(3, *shape)).astype("float32")
    answer = keras.ops.convert_to_numpy(model(images))
    assert answer.shape == (3, 7)
    np.testing.assert_allclose(answer.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (224, 224, 3)])
def test_small_cnn_stays_under_100k_parameters(shape: tuple[int, int, int]) -> None:
    assert cnn(shape, 10, "small").count_params() < 100_000


@pytest.mark.parametrize("arguments", [((28, 28, 1), 10, "huge"), ((3, 3, 1), 10, "seed"), ((4, 4, 1), 10, "small")])
def test_cnn_refuses_what_it_cannot_build(arguments: tuple[tuple[int, int, int], int, str]) -> None:
    with pytest.raises(InputError, match="Received"):
        cnn(*arguments)


def test_bert_has_the_sizes_of_its_names() -> None:
    shapes = {name: (s.layers, s.width) for name, s in SIZES.items()}
    assert shapes == {"tiny": (2, 128), "mini": (4, 256), "minilm": (6, 384), "base": (12, 768)}
    with pytest.raises(InputError, match="Received: 'giant'"):
        backbone(50, "giant")


def test_tagger_gives_logits_for_any_batch_and_length_and_ignores_padding() -> None:
    model = token_classifier(backbone(50, "tiny"), 5)
    inputs = token_inputs(3, 11)
    whole = keras.ops.convert_to_numpy(model(inputs))
    assert whole.shape == (3, 11, 5)
    longer = {
        n: np.pad(a, ((0, 0), (0, 6)), constant_values=0 if n == "padding_mask" else 7) for n, a in inputs.items()
    }
    longer["segment_ids"][:] = 0
    padded = keras.ops.convert_to_numpy(model(longer))[:, :11]
    real = inputs["padding_mask"].astype(bool)
    np.testing.assert_allclose(padded[real], whole[real], atol=1e-5)


@pytest.mark.parametrize("kind", ["cnn", "bert"])
def test_a_saved_model_loads_with_the_same_outputs(kind: str, tmp_path: Path) -> None:
    if kind == "cnn":
        model, inputs = cnn((8, 8, 1), 4), np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype("float32")
    else:
        model, inputs = token_classifier(backbone(50, "tiny"), 5), token_inputs(2, 9)
    path = tmp_path / "model.keras"
    model.save(path)
    again = load_keras_file(path)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(inputs)), keras.ops.convert_to_numpy(model(inputs)))

"""Models given as module:function, or as a checkpoint's folder, become .keras files."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kcost.core.errors import ArtifactError, InputError
from kcost.models.bert import backbone, token_classifier
from kcost.models.checkpoint_writer import write_checkpoint
from kcost.models.factory import write_keras_file
from kcost.models.loading import load_keras_file
from tests.contract.inputs import token_inputs

MODULE = """
import sys
import keras

def build():
    x = keras.Input((4,), name="x")
    return keras.Model(x, keras.layers.Dense(3)(x))

def fails():
    raise RuntimeError("no weights at hand")

def leaves():
    sys.exit(3)

def takes_one(size):
    return build()

def nothing():
    return None

def unbuilt():
    return keras.Sequential([keras.layers.Dense(3)])

class Doubled(keras.layers.Layer):
    def call(self, x):
        return x * 2

def custom():
    x = keras.Input((4,))
    return keras.Model(x, Doubled(name="twice")(x))

constant = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_models.py").write_text(MODULE)
    (tmp_path / "broken_models.py").write_text("import a_package_that_nobody_has")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    return tmp_path


def test_a_function_becomes_a_file(here: Path) -> None:
    write_keras_file("own_models:build", here / "own.keras")
    model = load_keras_file(here / "own.keras")
    assert model(np.ones((2, 4), np.float32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("own_models", "module:function"),
        ("own_models:", "module:function"),
        ("no_such_models:build", "there is no module 'no_such_models'"),
        ("own_models.inner:build", "there is no module 'own_models.inner'"),
        ("broken_models:build", "raised ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
        ("own_models:absent", "no such name"),
        ("own_models:constant", "a int of that name"),
        ("own_models:fails", "raised RuntimeError: no weights at hand"),
        ("own_models:leaves", "raised SystemExit: 3"),
        ("own_models:takes_one", "raised TypeError"),
        ("own_models:nothing", "returned a NoneType"),
        ("own_models:unbuilt", "returned a model that is not built"),
    ],
)
def test_what_is_no_model_is_named(here: Path, source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_keras_file(source, here / "own.keras")
    assert not (here / "own.keras").exists()


def test_a_layer_of_the_users_own_is_refused(here: Path) -> None:
    with pytest.raises(ArtifactError, match="'twice'"):
        write_keras_file("own_models:custom", here / "own.keras")
    assert not (here / "own.keras").exists()


def test_a_checkpoint_becomes_a_file(tmp_path: Path) -> None:
    model = token_classifier(backbone(50, "tiny"), 5)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_checkpoint(model, "token-classification", tuple("ABCDE"), 0, folder)
    write_keras_file(str(folder), tmp_path / "own.keras")
    inputs = token_inputs(3, 16)
    expected, actual = (
        keras.ops.convert_to_numpy(m(inputs, training=False)) for m in (model, load_keras_file(tmp_path / "own.keras"))
    )
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"config\.json"):
        write_keras_file(str(tmp_path), tmp_path / "own.keras")

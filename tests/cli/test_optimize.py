"""`kcost optimize` from the command line, both models measured for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kcost.core.process import installed
from tests.cli.commands import kcost

pytestmark = pytest.mark.skipif(not installed("torch"), reason="torch is not installed")


@pytest.mark.slow
def test_a_model_is_measured_before_and_after_and_one_that_may_have_lost_too_much_is_kept_apart(tmp_path: Path) -> None:
    model = tmp_path / "digits"
    trained = kcost(
        *("train", "cnn", "--data", "digits", "--limit", 200, "--epochs", 2, "--backend", "torch", "--out", model)
    )
    assert trained.returncode == 0, trained.stderr
    common = ("--backend", "torch", "--rounds", 2, "--batches", "8", "--limit", 200, "--json")

    out = tmp_path / "kept"
    finished = kcost("optimize", model, "--int8", "weight-only", "--max-drop", 0.5, "--out", out, *common)
    assert finished.returncode == 0, finished.stderr
    payoff = json.loads(finished.stdout)
    assert payoff["word"] in ("pays", "size only", "no gain", "slower")
    assert [s["kind"] for s in payoff["steps"]] == ["quantize"]
    (speed,) = payoff["speeds"]
    assert (speed["batch"], speed["times_faster"]["rounds"]) == (8, 2)
    assert (out / "artifact.json").exists()
    assert payoff["after"]["file_bytes"] < payoff["before"]["file_bytes"]

    # 200 examples cannot show that a drop is below a thousandth, however equal the answers are.
    refused = kcost("optimize", model, "--int8", "weight-only", "--max-drop", 0.001, "--out", tmp_path / "b", *common)
    assert refused.returncode == 1, refused.stderr
    assert json.loads(refused.stdout)["word"] == "refused"
    assert not (tmp_path / "b").exists()
    assert (tmp_path / "b-refused" / "artifact.json").exists()


OWN_MODEL = """
import keras
import numpy as np


@keras.saving.register_keras_serializable(package="mine")
class Own(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.flat, self.hidden = keras.layers.Flatten(), keras.layers.Dense(64, activation="relu", name="hidden")
        self.end = keras.layers.Dense(10, activation="softmax", name="end")

    def call(self, x):
        return self.end(self.hidden(self.flat(x)))


if __name__ == "__main__":
    from my_models import Own

    model = Own(name="own")
    model(np.zeros((1, 8, 8, 1), "float32"))
    model.save("own.keras")
"""


@pytest.mark.slow
def test_a_subclassed_model_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(OWN_MODEL)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "my_models.py"], check=True, timeout=120)
    command = ("optimize", "own.keras", "--int8", "weight-only", "--max-drop", 0.5, "--data", "digits", "--rounds", 2)
    refused = kcost(*command, "--out", "refused")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the class 'Own' from the package 'mine'" in refused.stderr

    finished = kcost("--classes", "my_models", *command, "--out", "out", "--json")
    assert finished.returncode == 0, finished.stderr
    (step,) = json.loads(finished.stdout)["steps"]
    assert any("own/hidden" in change for change in step["changed"])


def test_two_precisions_at_once_are_refused(tmp_path: Path) -> None:
    finished = kcost("optimize", tmp_path / "none.keras", "--int8", "dynamic", "--bfloat16", "--out", tmp_path / "o")
    assert finished.returncode == 2
    assert "one precision" in finished.stderr
    assert "Traceback" not in finished.stderr

"""The zoo's own parts: that each way to end can be told from the others, and the page from which it is checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kcost.core.errors import ArtifactError
from kcost.core.plan import BACKENDS

from . import trial
from .specimens import guessed, label, layer_classes, layer_specimen
from .table import FILE, MODES, Row, Table, backends_of, committed, render
from .trial import Trial, WrongError, agree, show


@pytest.fixture
def dense(tmp_path: Path) -> Trial:
    return Trial(show("Dense", layer_specimen("Dense"), tmp_path))


def test_right_is_told_with_what_the_layer_became(dense: Trial) -> None:
    assert [(r.outcome, r.form) for r in dense.rows(["load", "quantize weight-only"])] == [
        ("right", "float"),
        ("right", "int8"),
    ]


def test_other_outputs_are_wrong(dense: Trial) -> None:
    (expected,) = dense.subject.expected
    other = dense.subject._replace(expected=[expected + 1e-3])
    row = Trial(other).row("load")
    assert (row.outcome, row.form) == ("wrong", "")
    assert row.reason.startswith("off by")


@pytest.mark.parametrize(("message", "outcome"), [(label(layer_classes()["Dense"]), "refused"), ("a layer", "wrong")])
def test_a_refusal_names_the_layer(dense: Trial, message: str, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise ArtifactError("Files can be loaded.", received=f"{path} with {message}")

    monkeypatch.setattr(trial, "load_keras_file", refuse)
    row = dense.row("load")
    assert row.outcome == outcome
    assert f"model.keras with {message}" in row.reason
    assert str(dense.folder) not in row.reason


def test_an_error_that_nobody_meant_is_a_traceback(dense: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "load_keras_file", lambda path: 1 / 0)
    row = dense.row("load")
    assert row.outcome == "traceback"
    assert row.reason.startswith("ZeroDivisionError: division by zero")


def test_a_class_that_cannot_be_guessed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.zoo.specimens.TABLE", {})
    with pytest.raises(LookupError, match=r"keras\.layers\.Reshape"):
        layer_specimen("Reshape")
    assert guessed(layer_classes()["Dense"]).layers == ("zoo_dense", "Dense")


def test_agreement_has_limits() -> None:
    ones = np.ones((2, 2), np.float32)
    agree([ones * (1 + 5e-7)], [ones])
    agree([100 * ones + 5e-5], [100 * ones])
    agree([ones * 1.04], [ones], mean=0.05)
    for actual, expected, mean in (
        ([ones * (1 + 5e-6)], [ones], None),
        ([ones * np.nan], [ones], None),
        ([ones * 1.06], [ones], 0.05),
        ([ones[:1]], [ones], None),
        ([ones.astype(np.int32) + 1], [ones.astype(np.int32)], None),
    ):
        with pytest.raises(WrongError):
            agree(actual, expected, mean=mean)


def test_a_page_is_read_as_it_was_written() -> None:
    tried = [(b, m) for b in BACKENDS for m in MODES if b in backends_of(m)]
    rows = [Row("Dense", b, m, "right", "int8" if m == "quantize dynamic" else "float", "") for b, m in tried]
    rows += [Row("Hashing", b, m, "refused", "", "it needs TensorFlow") for b, m in tried if b != "tensorflow"]
    rows += [Row("Hashing", "tensorflow", m, "right", "float", "no int8 form of Hashing") for m in MODES]
    page = render(rows, {"FlaxLayer": "it needs flax"}, "# Layers\n\n")
    assert Table.parse(page) == Table.of_rows(rows)
    assert "- it needs TensorFlow: Hashing on jax, torch (all modes)" in page
    assert "- no int8 form of Hashing: Hashing" in page
    assert "| FlaxLayer | - |" in page


def test_the_page_tells_of_each_layer_and_of_nothing_wrong() -> None:
    cells = committed().cells
    assert set(cells.values()) == {"float", "bfloat16", "int8", "refused"}
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert {line.split("|")[1].strip() for line in lines if line.startswith("| ")} == {*layer_classes(), "Layer", "---"}
    counts = [line for line in lines if line.endswith(" right") or " refused, " in line]
    assert len(counts) == len(BACKENDS)
    assert all(line.endswith(", 0 wrong, 0 traceback") for line in counts)
    for name in {name for name, _, _ in cells}:
        tried = [(m, b) for m in MODES for b in backends_of(m)]
        assert [(m, b) for m, b in tried if (name, m, b) not in cells] == [], name

"""The program of a cell, run as its reader would, on each backend."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kcost.core.plan import INFERENCE_METHODS, CellSpec
from kcost.optimize.quantization import quantize
from kcost.report.program import Program, program_of
from testing.one_backend import BACKEND

ROWS = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)


def model_of_two_layers() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, activation="relu"), keras.layers.Dense(3)])


def cell(method: str, **changes: Any) -> CellSpec:
    fields = {"backend": BACKEND, "device": "cpu", "precision": "float32", "batch": 4, "phase": "inference"}
    return CellSpec(model="two", model_sha256="0" * 64, method=method, threads=0, **{**fields, **changes})


def forward_of(program: Program, folder: Path) -> Any:
    """The function of a program, which has run to its end."""
    (folder / "program.py").write_text(program.text)
    return runpy.run_path(str(folder / "program.py"))["forward"]


@pytest.mark.parametrize("method", [m for m in INFERENCE_METHODS[BACKEND] if m != "compile"])
def test_a_program_of_each_method_is_short_plain_and_right(tmp_path: Path, method: str) -> None:
    model = model_of_two_layers()
    model.save(tmp_path / "two.keras")
    program = program_of(cell(method), None, tmp_path / "two.keras", None)
    assert not program.needs_kcost
    assert "kcost" not in program.text
    assert len([line for line in program.text.splitlines() if line]) <= 25
    expected = keras.ops.convert_to_numpy(model(ROWS, training=False))
    np.testing.assert_allclose(forward_of(program, tmp_path)(ROWS), expected, atol=1e-6)


def test_what_plain_code_runs_slower_is_loaded_by_kcost(tmp_path: Path) -> None:
    model = model_of_two_layers()
    quantize(model, "dynamic", measure=False)[0].save(tmp_path / "int8.keras")
    model.save(tmp_path / "two.keras")
    method = INFERENCE_METHODS[BACKEND][0]
    for file, changes in (("int8.keras", {}), ("two.keras", {"precision": "bfloat16"})):
        program = program_of(cell(method, **changes), None, tmp_path / file, None)
        assert program.needs_kcost
        assert f'backend="{BACKEND}"' in program.text
        answer = forward_of(program, tmp_path)(ROWS)
        expected = keras.ops.convert_to_numpy(model(ROWS, training=False))
        assert np.linalg.norm(answer - expected) < 0.05 * np.linalg.norm(expected)

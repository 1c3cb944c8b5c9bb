"""Cells of several models in one block."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kcost.bench.runner import measure
from kcost.core.plan import Plan


@pytest.mark.parametrize("together", [False, True])
def test_models_take_turns_with_each_other_where_that_is_asked(tmp_path: Path, together: bool) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.keras").write_text(json.dumps({"step_s": 0.001, "name": name}))
    document = {
        "models": [str(tmp_path / "a.keras"), str(tmp_path / "b.keras")],
        "backends": ["fake"],
        "precisions": ["float32"],
        "batches": [1],
        "phases": ["inference"],
        "methods": ["eager"],
        "together": together,
        "settings": {"rounds": 2, "round_s": 0.01, "warmup_s": 0.0},
    }
    lines: list[str] = []
    run = measure(Plan.parse(document), tmp_path / "run", lambda done, total, text: lines.append(text))
    assert [len(c.rounds) for c in run.cells] == [2, 2]
    first_round, last_preparation = (
        next(i for i, text in enumerate(lines) if text.startswith("round")),
        max(i for i, text in enumerate(lines) if text.startswith("preparing")),
    )
    assert (last_preparation < first_round) == together

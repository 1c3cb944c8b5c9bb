"""The benchmark of the schedule on figures that were measured before it recorded pieces."""

from __future__ import annotations

import importlib.util
import json
import math
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, with a measuring that does one piece of work."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("recommend_figures", FOLDER / "recommend_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def measure(plan: object, folder: Path, on_progress: Any, *args: Any, **settings: Any) -> None:
        on_progress(0, 1, "starting m")
        on_progress(1, 1, "")

    monkeypatch.setattr(module, "measure", measure)
    for name in ("plan_of", "open_models"):
        monkeypatch.setattr(module, name, lambda *args, **settings: None)
    monkeypatch.setattr(module, "specs_of", lambda *args: ())
    return module


@pytest.mark.parametrize(
    ("before", "recorded"),
    [
        (None, ["starting m"]),
        ({"seconds": 100.0, "done": False, "pieces": {"converting m": 2.0}}, ["converting m", "starting m"]),
        ({"seconds": 100.0, "done": False}, None),  # of what was done by then nothing is known
    ],
)
def test_what_was_cut_short_goes_on_and_has_pieces_where_all_of_them_were_recorded(
    tmp_path: Path, program: ModuleType, before: dict[str, Any] | None, recorded: list[str] | None
) -> None:
    folder = tmp_path / "everything"
    if before is not None:
        folder.mkdir()
        (folder / program.EVERYTHING).write_text(json.dumps(before))
    seconds = program.everything(folder, tmp_path / "m.keras", SimpleNamespace(candidates=()))
    assert seconds > (0 if before is None else 100)
    record = json.loads((folder / program.EVERYTHING).read_text())
    assert (record["seconds"], record["done"]) == (seconds, True)
    pieces = program.pieces_of(tmp_path)
    assert (None if pieces is None else sorted(pieces)) == recorded


def test_finished_figures_without_pieces_are_printed_without_an_oracle(
    tmp_path: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cnn" / "everything" / program.EVERYTHING
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"seconds": 100.0, "done": True}))
    part = program.Part("cnn", 0, "jit", "jit", 0.0, 0.25)
    monkeypatch.setattr(program, "recommended", lambda *_: SimpleNamespace(winner="jit"))
    monkeypatch.setattr(program, "compared", lambda *_: part)
    given = Namespace(out=tmp_path, models="cnn", seeds=1, backends="torch", batches="1,8", stop_after=math.inf)
    program.print_real(given)
    printed = capsys.readouterr().out
    assert "the same winner: 1 of 1" in printed
    assert printed.endswith("cnn: measured before pieces were recorded, so that nothing is known of an oracle\n")

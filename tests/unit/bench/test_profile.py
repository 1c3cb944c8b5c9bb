"""`kcost bench --profile` on the simulated backend: what is looked into, once, and what a failure in it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kcost.bench.runner import measure
from kcost.bench.store import open_run
from kcost.cli import app
from kcost.core.plan import Plan
from tests.unit.bench.plans import SETTINGS, by_label, fake_plan

PROFILED = {**SETTINGS, "profile": True}


def small(folder: Path, script: dict[str, Any], **settings: Any) -> Plan:
    return fake_plan(
        folder, script, methods=["eager"], precisions=["float32"], batches=[1, 8], settings={**SETTINGS, **settings}
    )


def test_cells_are_looked_into_after_their_rounds_and_stay_as_they_were_measured(tmp_path: Path) -> None:
    lines: list[str] = []
    run = measure(small(tmp_path, {}, profile=True), tmp_path / "run", lambda done, total, text: lines.append(text))
    for cell in run.cells:
        assert (cell.status, len(cell.rounds)) == ("ok", 3)
        assert cell.profile is not None
        assert (cell.profile.status, cell.profile.simulated) == ("ok", True)
        assert cell.profile.trace is not None
        assert [o.name for o in cell.profile.trace.operations] == ["sleep", "wake"]
        assert cell.profile.work is not None
        assert cell.profile.work.flops == 1_000_000 * cell.spec.batch
        assert cell.profile.peak is not None
    kinds = [text.split()[0] for text in lines if text]
    assert kinds.count("profiling") == 2
    assert kinds[-2:] == ["profiling", "profiling"], "no round comes after the first profile"
    peaks = {cell.profile.peak for cell in run.cells if cell.profile}
    assert len(peaks) == 1, "a worker measures its peak once"


def test_nobody_who_did_not_ask_gets_a_profile(tmp_path: Path) -> None:
    assert {c.profile for c in measure(small(tmp_path, {}), tmp_path / "run").cells} == {None}


def test_a_run_is_looked_into_later_and_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    without = measure(small(tmp_path, {}), out)
    first = measure(small(tmp_path, {}, profile=True), out)
    assert [c.rounds for c in first.cells] == [c.rounds for c in without.cells]
    assert all(c.profile is not None for c in first.cells)
    lines: list[str] = []
    again = measure(small(tmp_path, {}, profile=True), out, lambda done, total, text: lines.append(text))
    assert again.cells == first.cells
    assert lines == [], "nothing is started"


def test_a_wider_plan_looks_into_what_is_new(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = by_label(measure(small(tmp_path, {}, profile=True), out))
    wider = small(tmp_path, {}, profile=True).model_copy(update={"batches": (1, 8, 16)})
    after = by_label(measure(wider, out))
    assert {label: after[label].profile for label in first} == {label: c.profile for label, c in first.items()}
    assert all(c.profile is not None for c in after.values())
    assert len(after) == 3


def test_a_worker_that_fails_in_a_profile_costs_that_profile_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    script = {"profile_crash": ["float32/1"]}
    cells = by_label(measure(small(tmp_path, script, profile=True), out))
    broken, whole = cells["eager float32 cpu batch 1"], cells["eager float32 cpu batch 8"]
    for cell in (broken, whole):
        assert (cell.status, cell.reason, len(cell.rounds)) == ("ok", None, 3)
    assert broken.profile is not None
    assert broken.profile.status == "crash"
    assert "SIGKILL" in str(broken.profile.reason)
    assert whole.profile is not None
    assert whole.profile.status == "ok", "the worker is replaced for the next cell"


def test_a_failed_profile_is_tried_again_and_a_missing_profiler_is_not(tmp_path: Path) -> None:
    out = tmp_path / "run"
    plan = small(tmp_path, {"profile_unsupported": ["float32/8"]}, profile=True)
    first = by_label(measure(plan, out))
    lost, lacking = first["eager float32 cpu batch 1"], first["eager float32 cpu batch 8"]
    assert lost.profile is not None
    assert lacking.profile is not None
    assert lacking.profile.status == "unsupported"
    assert "told to lack this" in str(lacking.profile.reason)
    assert lacking.profile.work is not None, "what else could be found out is there"
    crashed = lost.profile.model_copy(update={"status": "crash", "reason": "a test", "trace": None})
    path = out / "cells" / f"{lost.spec.cell_id}.json"
    path.write_text(lost.model_copy(update={"profile": crashed}).model_dump_json())
    lines: list[str] = []
    again = by_label(measure(plan, out, lambda done, total, text: lines.append(text)))
    assert sum(text.startswith("profiling") for text in lines) == 1
    assert again["eager float32 cpu batch 1"].profile != crashed
    assert again["eager float32 cpu batch 8"] == lacking


def test_a_cell_of_an_older_run_opens_without_a_profile(tmp_path: Path) -> None:
    out = tmp_path / "run"
    cell = measure(small(tmp_path, {}), out).cells[0]
    path = out / "cells" / f"{cell.spec.cell_id}.json"
    document = json.loads(path.read_text())
    del document["profile"]
    path.write_text(json.dumps(document))
    assert cell in open_run(out).cells


@pytest.mark.parametrize("from_a_plan", [False, True])
def test_the_command_shows_a_table_for_each_cell(tmp_path: Path, from_a_plan: bool) -> None:
    model = tmp_path / "fake.keras"
    model.write_text("{}")
    (tmp_path / "plan.toml").write_text(
        'models = ["fake.keras"]\nbackends = ["fake"]\nphases = ["inference"]\nmethods = ["eager"]\nbatches = [1]\n'
        'precisions = ["float32"]\n[settings]\nrounds = 2\nround_s = 0.01\nwarmup_s = 0.0\n'
    )
    axes = ["--backends", "fake", "--batches", "1", "--precisions", "float32", "--phases", "inference"]
    arguments = (
        [str(tmp_path / "plan.toml")] if from_a_plan else [str(model), *axes, "--methods", "eager", "--rounds", "2"]
    )
    outcome = CliRunner().invoke(app, ["bench", *arguments, "--profile", "--out", str(tmp_path / "run")])
    assert outcome.exit_code == 0, outcome.output
    assert "batch 1: where its time goes" in outcome.output
    assert "1.00 MFLOP a step" in outcome.output
    assert "10.1145/1498765.1498785" in outcome.output

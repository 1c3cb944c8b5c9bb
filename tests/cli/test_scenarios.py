"""`kcost bench --scenarios` on the simulated backend, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import check, kcost
from tests.unit.bench.scenario_plans import scenario_plan

CELLS = ("--backends", "fake", "--phases", "inference", "--methods", "eager", "--precisions", "float32")


def test_a_plan_with_scenarios_gives_a_table_and_goes_on_without_measuring_again(tmp_path: Path) -> None:
    plan = scenario_plan(tmp_path)
    settings = json.loads(plan.settings.model_dump_json(exclude_none=True))
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    head = 'models = ["fake.keras"]\nbackends = ["fake"]\nphases = ["inference"]\nmethods = ["eager"]\n'
    axes = 'precisions = ["float32"]\nbatches = [1, 8]\n[settings]\n'
    file = tmp_path / "plan.toml"
    file.write_text(head + axes + "\n".join(lines))
    first = kcost("bench", file, "--out", tmp_path / "run")
    assert first.returncode == 0, first.stderr
    assert "fake, scenarios: server with p99 within 500 ms" in first.stdout
    stored = {p: p.read_bytes() for p in (tmp_path / "run" / "cells").glob("*.json")}
    assert len(stored) == 2
    again = kcost("bench", file, "--out", tmp_path / "run", "--json")
    assert again.returncode == 0, again.stderr
    assert {p: p.read_bytes() for p in stored} == stored
    results = [r for c in json.loads(again.stdout)["cells"] for r in c["scenarios"]]
    assert sorted(r["scenario"] for r in results) == ["offline", "offline", "server", "server", "single-stream"]
    costed = json.loads(kcost("cost", tmp_path / "run", "--json").stdout)
    assert {r["server_outcome"] for r in costed["scenarios"]} == {"held"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--scenarios", "offlin"),
            "settings.scenarios.0: Input should be 'single-stream', 'offline', 'after-idle' or 'server'",
        ),
        (("--scenarios", "server"), "the scenario server and latency_bound_ms (--latency-bound-ms) come together"),
        (("--latency-bound-ms", "50"), "the scenario server and latency_bound_ms (--latency-bound-ms) come together"),
        (("--scenarios", "server", "--latency-bound-ms", "-5"), "settings.latency_bound_ms: Input should be greater"),
        (
            ("--scenarios", "server", "--latency-bound-ms", "soon"),
            "--latency-bound-ms': Input should be a valid number",
        ),
        (("--scenarios", "single-stream", "--batches", "8"), "not among the batches"),
    ],
)
def test_a_scenario_that_cannot_be_measured(
    model: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    finished = kcost("bench", model, *CELLS, *options, "--out", tmp_path / "run")
    check(finished, 2, message)
    assert not (tmp_path / "run").exists()

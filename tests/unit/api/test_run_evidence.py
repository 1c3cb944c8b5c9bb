"""What a run is evidence for, and why a gate on it can't tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcost.api.run_evidence import evidence_of_run
from kcost.core.stats import samples_for_tail
from kcost.risk.decide import Measured, decide
from kcost.risk.gates import parse_gates
from testing.quotas import stopped_by_quota
from testing.runs import plan, simulated_run, write_run
from tests.unit.risk.reports import report

FEWEST = samples_for_tail(0.99)
GATES = parse_gates("max_p99_ms = 1000.0\nmax_memory_mib = 1e6", "gates.toml")


@pytest.mark.parametrize(("steps", "answer"), [(8, "can't tell"), (-(-FEWEST // 6), "pass")])
def test_a_p99_of_too_few_steps_says_how_many_it_takes(steps: int, answer: str, tmp_path: Path) -> None:
    run, outputs = simulated_run(plan(batches=(1,), phases=("inference",), backends=("jax",)), steps=steps)
    measured = Measured(**evidence_of_run(write_run(tmp_path / "run", run, outputs).path, "simulated-cnn"))
    p99 = next(v for v in decide(report(), GATES, measured).verdicts if v.gate == "max_p99_ms")
    assert p99.answer == answer
    assert measured.usd_per_million is not None
    because = f"a p99 takes {FEWEST:,} steps, and its cell has {6 * steps:,}: measure it longer"
    assert p99.because == (None if answer == "pass" else because)


def test_what_a_run_does_not_tell_asks_for_no_other_run() -> None:
    measured = Measured(not_measured_because="the run does not tell it", no_p99_because="too few steps")
    verdicts = {v.gate: v.because for v in decide(report(), GATES, measured).verdicts}
    assert verdicts == {"max_p99_ms": "too few steps", "max_memory_mib": "the run does not tell it"}


def test_what_is_invalid_says_why(tmp_path: Path) -> None:
    run, outputs = simulated_run(plan(batches=(1,), phases=("inference",), backends=("jax",)))
    folder = write_run(tmp_path / "run", stopped_by_quota(run), outputs).path
    assert evidence_of_run(folder, "simulated-cnn").keys() == {"not_measured_because"}
    because = evidence_of_run(folder, "simulated-cnn")["not_measured_because"]
    assert because.startswith("its cell is INVALID: a CPU quota")
    assert "no more threads than the quota has cores" in because

"""How often a program is repeated."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import pytest

from kcost.worker import repeated
from kcost.worker.repeated import cores_used, mean_ns, repeated_ns


def test_the_first_run_is_left_out_and_one_is_timed_at_least() -> None:
    runs: list[None] = []
    assert len(repeated_ns(lambda: runs.append(None), seconds=1e-12)) == 1
    assert len(runs) == 2


def test_no_more_runs_than_wanted() -> None:
    durations_ns = repeated_ns(lambda: None, seconds=3600, most=7)
    assert len(durations_ns) == 7
    assert min(durations_ns) >= 0


PERIOD_S = 0.1


class Program(NamedTuple):
    """What a program takes of a machine that nothing holds back."""

    ns: int
    cores: float


class QuotaMachine:
    """A machine with two cores under a quota of one core's time; its clock moves as programs run."""

    def __init__(self, begins_ns: int) -> None:
        self.now_ns = begins_ns
        self.used_ns = 0.0

    def clock(self) -> int:
        return self.now_ns

    def run(self, program: Program) -> None:
        period_ns = int(PERIOD_S * 1e9)
        left_ns = program.ns
        while left_ns > 0:
            ends_ns = (self.now_ns // period_ns + 1) * period_ns
            may_ns = int((period_ns - self.used_ns) / program.cores)
            runs_ns = min(left_ns, may_ns, ends_ns - self.now_ns)
            self.now_ns += runs_ns
            self.used_ns += runs_ns * program.cores
            left_ns -= runs_ns
            if left_ns > 0 or self.used_ns + 1 >= period_ns or self.now_ns >= ends_ns:
                self.now_ns, self.used_ns = ends_ns, 0.0


@pytest.mark.parametrize("begins_ns", [0, 30_000_000, 97_000_000])
@pytest.mark.parametrize(
    ("program", "true_ns"),
    [
        (Program(50_000, 2.0), 100_000),
        (Program(7_000_000, 2.0), 14_000_000),
        (Program(50_000, 1.0), 50_000),
        (Program(9_000_000, 1.5), 13_500_000),
    ],
)
def test_a_mean_over_periods_of_a_quota_has_its_pauses(program: Program, true_ns: int, begins_ns: int) -> None:
    machine = QuotaMachine(begins_ns)
    taken = mean_ns(lambda: machine.run(program), PERIOD_S, 20, machine.clock)
    assert len(taken) >= 4
    assert statistics.median(taken) == pytest.approx(true_ns, rel=0.05)


def test_a_program_is_repeated_for_the_periods_however_short_it_is() -> None:
    machine = QuotaMachine(0)
    mean_ns(lambda: machine.run(Program(20_000, 2.0)), PERIOD_S, 20, machine.clock)
    assert machine.now_ns >= 20 * PERIOD_S * 1e9


def test_a_program_longer_than_all_periods_is_timed_once() -> None:
    machine = QuotaMachine(0)
    runs: list[None] = []

    def program() -> None:
        runs.append(None)
        machine.run(Program(3_000_000_000, 2.0))

    assert mean_ns(program, PERIOD_S, 20, machine.clock) == (pytest.approx(6e9, rel=0.02),)
    assert len(runs) == 3


def test_cores_are_cpu_time_over_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"wall": 5.0, "cpu": 1.0}
    monkeypatch.setattr(repeated.time, "perf_counter", lambda: machine["wall"])
    monkeypatch.setattr(repeated.time, "process_time", lambda: machine["cpu"])

    def program(cores: float) -> None:
        machine["wall"] += 0.001
        machine["cpu"] += 0.001 * cores

    assert cores_used(lambda: program(0.0), 0.02) == pytest.approx(0.0)
    assert cores_used(lambda: program(1.9), 0.02) == pytest.approx(1.9)
    assert cores_used(lambda: program(1.9), 1e-9) == pytest.approx(1.9), "it runs once at least"

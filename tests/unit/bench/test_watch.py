from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kcost.bench import watch
from kcost.bench.runner import measure
from kcost.core.cpu_quota import CpuQuota
from tests.unit.bench.plans import fake_plan

CPU = "cpu  {user} 0 0 1000 50 0 0 {steal} 7 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of files: /proc, and the folder of CPUs."""
    proc, cpus = tmp_path / "proc", tmp_path / "cpus"
    (cpus / "cpu0" / "thermal_throttle").mkdir(parents=True)
    (cpus / "cpu0" / "cpufreq").mkdir()
    proc.mkdir()
    monkeypatch.setattr(watch, "PROC", proc)
    monkeypatch.setattr(watch, "CPUS", cpus)
    monkeypatch.setattr(watch.shutil, "which", lambda name: None)
    set_counters(tmp_path, user=100, steal=10, throttles=3, swapped=20, khz=3_000_000)
    return tmp_path


def set_counters(machine: Path, *, user: int, steal: int, throttles: int, swapped: int, khz: int) -> None:
    (machine / "proc" / "stat").write_text(CPU.format(user=user, steal=steal))
    (machine / "proc" / "vmstat").write_text(f"pgpgin 5\npswpin {swapped}\npswpout 1\n")
    (machine / "cpus" / "cpu0" / "thermal_throttle" / "core_throttle_count").write_text(f"{throttles}\n")
    (machine / "cpus" / "cpu0" / "cpufreq" / "scaling_cur_freq").write_text(f"{khz}\n")


def test_counters_are_told_as_differences(machine: Path) -> None:
    watcher = watch.Watcher()
    watcher.begin()
    set_counters(machine, user=130, steal=12, throttles=4, swapped=25, khz=2_500_000)
    watched = watcher.end(worker_cpu_s=0.25)
    ticks = watcher._ticks_per_s
    assert watched.machine_busy_s == pytest.approx(30 / ticks), "idle, waiting, stolen time and guests are not busy"
    assert watched.steal_s == pytest.approx(2 / ticks)
    assert (watched.throttles, watched.swapped_pages, watched.cpu_mhz) == (1, 5, 2500.0)
    assert (watched.worker_cpu_s, watched.gpu_mhz, watched.gpu_other_processes) == (0.25, None, None)


def test_periods_of_a_quota_are_counted(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = machine / "cpu.stat"
    stat.write_text("nr_periods 10\nnr_throttled 4\n")
    monkeypatch.setattr(watch, "cpu_quota", lambda: CpuQuota(1.0, 0.1, stat))
    watcher = watch.Watcher()
    watcher.begin()
    stat.write_text("nr_periods 15\nnr_throttled 7\n")
    watched = watcher.end(None)
    assert (watched.quota_periods, watched.quota_throttles) == (5, 3)


def test_a_quota_without_counters_counts_no_periods(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cpu_quota", lambda: CpuQuota(1.0, 0.1, machine / "no" / "cpu.stat"))
    watcher = watch.Watcher()
    watcher.begin()
    watched = watcher.end(None)
    assert (watched.quota_periods, watched.quota_throttles) == (None, None)


def test_a_machine_without_a_quota_counts_no_periods(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cpu_quota", lambda: None)
    watcher = watch.Watcher()
    watcher.begin()
    watched = watcher.end(None)
    assert (watched.quota_periods, watched.quota_throttles) == (None, None)


def test_what_cannot_be_read_is_none(machine: Path) -> None:
    for path in machine.rglob("*"):
        if path.is_file():
            path.unlink()
    watcher = watch.Watcher()
    watcher.begin()
    watched = watcher.end(None)
    assert {watched.machine_busy_s, watched.steal_s, watched.throttles, watched.swapped_pages, watched.cpu_mhz} == {
        None
    }
    assert watched.wall_s >= 0


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('case "$1" in *compute-apps*) printf "11\\n12\\n13\\n";; *) printf "1980\\n1000\\n";; esac', (1490.0, 2)),
        ('case "$1" in *compute-apps*) ;; *) printf "[N/A]\\n";; esac', (None, 0)),
        ("exit 9", (None, None)),
    ],
)
def test_other_processes_on_a_gpu_are_counted(
    machine: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: tuple[float | None, int | None]
) -> None:
    smi = machine / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n{script}\n")
    smi.chmod(smi.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(watch.shutil, "which", lambda name: str(smi))
    watcher = watch.Watcher()
    watcher.begin([12], gpu=True)
    watched = watcher.end(0.1, gpu=True)
    assert (watched.gpu_mhz, watched.gpu_other_processes) == expected
    watcher.begin([12])
    assert watcher.end(0.1).gpu_mhz is None, "a cell on the CPU does not ask"


def test_every_round_of_a_run_is_watched(tmp_path: Path) -> None:
    run = measure(fake_plan(tmp_path, {}, batches=[1], precisions=["float32"]), tmp_path / "run")
    rounds = [r for c in run.cells for r in c.rounds]
    assert len(rounds) == 6
    for r in rounds:
        assert r.watch is not None
        assert r.watch.wall_s * 1e9 >= sum(r.step_ns)
        assert r.watch.worker_cpu_s is not None
        assert r.peak_host_bytes
    preparations = [c.preparation for c in run.cells]
    assert all(p is not None and p.imported_host_bytes and p.settled is not None for p in preparations)

"""Reads the counters that say what went on beside a cell's turn. What they mean is said in `core.disturbance`."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from kcost.core.cpu_quota import cpu_quota, periods_of
from kcost.core.result import Watch

PROC = Path("/proc")
CPUS = Path("/sys/devices/system/cpu")
GPU_EVERY_S = 2.0
"""Asking nvidia-smi takes a tenth of a second: the GPU is looked at between turns, and not more often than this."""

_IDLE_FIELDS = (3, 4)  # idle, iowait; man 5 proc, /proc/stat
_STEAL_FIELD = 7
_GUEST_FIELDS = 8  # from here on the time of guests, which the first fields hold already


class _Counters(NamedTuple):
    wall_s: float
    parent_cpu_s: float
    busy_s: float | None
    steal_s: float | None
    throttles: int | None
    quota_periods: int | None
    quota_throttles: int | None
    swapped_pages: int | None


class Watcher:
    """Watches one turn after the other: `begin`, the turn, `end`."""

    def __init__(self) -> None:
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._throttle_files = sorted(CPUS.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
        self._frequency_files = sorted(CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._quota = cpu_quota()
        self._smi = shutil.which("nvidia-smi")
        self._gpu: tuple[float | None, int | None] = (None, None)
        self._gpu_seen_s = -GPU_EVERY_S
        self._start = self._read()

    def begin(self, own_pids: Collection[int] = (), *, gpu: bool = False) -> None:
        """Call right before a turn. `own_pids` are the workers, which may be on the GPU."""
        if gpu and self._smi and time.monotonic() - self._gpu_seen_s >= GPU_EVERY_S:
            self._gpu = (_gpu_mhz(self._smi), _gpu_other_processes(self._smi, own_pids))
            self._gpu_seen_s = time.monotonic()
        self._start = self._read()

    def end(self, worker_cpu_s: float | None, *, gpu: bool = False) -> Watch:
        """Call right after a turn, with the CPU time that the worker says it took."""
        end, start = self._read(), self._start
        gpu_mhz, others = self._gpu if gpu else (None, None)
        return Watch(
            wall_s=_rounded(end.wall_s - start.wall_s),
            worker_cpu_s=None if worker_cpu_s is None else _rounded(worker_cpu_s),
            parent_cpu_s=_rounded(end.parent_cpu_s - start.parent_cpu_s),
            machine_busy_s=_difference(end.busy_s, start.busy_s),
            steal_s=_difference(end.steal_s, start.steal_s),
            cpu_mhz=self._cpu_mhz(),
            throttles=_counted(end.throttles, start.throttles),
            quota_periods=_counted(end.quota_periods, start.quota_periods),
            quota_throttles=_counted(end.quota_throttles, start.quota_throttles),
            swapped_pages=_counted(end.swapped_pages, start.swapped_pages),
            gpu_mhz=gpu_mhz,
            gpu_other_processes=others,
        )

    def _read(self) -> _Counters:
        busy_s, steal_s = self._cpu_times()
        periods = None if self._quota is None else periods_of(self._quota)
        return _Counters(
            wall_s=time.perf_counter(),
            parent_cpu_s=time.process_time(),
            busy_s=busy_s,
            steal_s=steal_s,
            throttles=self._throttles(),
            quota_periods=None if periods is None else periods.all,
            quota_throttles=None if periods is None else periods.throttled,
            swapped_pages=_swapped_pages(),
        )

    def _cpu_times(self) -> tuple[float | None, float | None]:
        """Busy time of all cores, without what was stolen, and the stolen time."""
        text = _read_text(PROC / "stat")
        if text is None:
            return None, None
        ticks = [int(field) for field in text.split("\n", 1)[0].split()[1:]][:_GUEST_FIELDS]
        steal = ticks[_STEAL_FIELD]
        busy = sum(ticks) - steal - sum(ticks[i] for i in _IDLE_FIELDS)
        return busy / self._ticks_per_s, steal / self._ticks_per_s

    def _throttles(self) -> int | None:
        counts = [_read_text(f) for f in self._throttle_files]
        known = [int(c) for c in counts if c is not None]
        return sum(known) if known else None

    def _cpu_mhz(self) -> float | None:
        # Of cpufreq alone: /proc/cpuinfo gives the nominal clock on virtual machines, which never moves.
        khz = [int(text) for f in self._frequency_files if (text := _read_text(f)) is not None]
        return round(sum(khz) / len(khz) / 1000, 1) if khz else None


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:  # not Linux, or a counter that this machine does not have
        return None


def _swapped_pages() -> int | None:
    text = _read_text(PROC / "vmstat")
    if text is None:
        return None
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("pswpin ", "pswpout ")))


def _difference(end: float | None, start: float | None) -> float | None:
    return None if end is None or start is None else _rounded(end - start)


def _counted(end: int | None, start: int | None) -> int | None:
    return None if end is None or start is None else end - start


def _rounded(seconds: float) -> float:
    """To ten microseconds: finer digits would be noise, and there is one line of them a round."""
    return round(seconds, 5)


def _ask_smi(smi: str, query: str) -> list[str] | None:
    try:
        answer = subprocess.run(
            [smi, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    lines = [line.strip() for line in answer.stdout.splitlines()]
    return [line for line in lines if line] if answer.returncode == 0 else None


def _gpu_mhz(smi: str) -> float | None:
    clocks = [float(c) for c in _ask_smi(smi, "--query-gpu=clocks.sm") or [] if c.replace(".", "").isdigit()]
    return sum(clocks) / len(clocks) if clocks else None


def _gpu_other_processes(smi: str, own_pids: Collection[int]) -> int | None:
    pids = _ask_smi(smi, "--query-compute-apps=pid")
    return None if pids is None else sum(pid.isdigit() and int(pid) not in own_pids for pid in pids)

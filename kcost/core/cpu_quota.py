"""How much of the processors' time a container may have: `docker run --cpus`, a limit of Kubernetes.

The kernel gives a control group so much time of its cores in each period, a tenth of a second by default. When that is
used up, all threads of the group stop until the period ends. So a program with more threads than the quota has cores
runs at full speed for a while and then not at all: a step that is shorter than a period either has no pause in it or a
long one, and its median says nothing of the pauses. Threads that wait for work without sleeping use the quota up, too.
So no more threads than it has cores are started, unless somebody names a number.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from kcost.core.control_groups import groups_with


class CpuQuota(NamedTuple):
    """The tightest quota of the groups that hold this process."""

    cores: float
    """Cores whose time all processes of the group may take together."""
    period_s: float
    stat: Path
    """The file in which the kernel counts the group's periods."""


class QuotaPeriods(NamedTuple):
    """Counted since the group was made."""

    all: int
    """In which the group ran."""
    throttled: int
    """In which its time was used up before the end."""


def threads_within(cores: int, quota_cores: float | None) -> int:
    """Threads where nobody names a number: one for each core, or as many as a quota has cores; 1 at least.

    Examples:
        >>> threads_within(4, None), threads_within(4, 2.5), threads_within(4, 0.5), threads_within(4, 8.0)
        (4, 2, 1, 4)
    """
    return cores if quota_cores is None else max(1, min(cores, int(quota_cores)))


def default_threads() -> int:
    """How many threads a process of this machine starts where nobody names a number."""
    quota = cpu_quota()
    return threads_within(len(os.sched_getaffinity(0)), None if quota is None else quota.cores)


def cpu_quota() -> CpuQuota | None:
    """None where no quota is set, or none can be read."""
    quotas = [quota for group in groups_with("cpu") if (quota := _quota_of(group)) is not None]
    return min(quotas, default=None, key=lambda quota: quota.cores)


def _quota_of(group: Path) -> CpuQuota | None:
    both = _read_text(group / "cpu.max")
    if both is None:
        both = f"{_read_text(group / 'cpu.cfs_quota_us')} {_read_text(group / 'cpu.cfs_period_us')}"
    numbers = both.split()
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        return None  # no quota is `max` in version 2 and -1 in version 1; some systems have one of the files alone
    quota_us, period_us = map(int, numbers)
    return CpuQuota(quota_us / period_us, period_us / 1e6, group / "cpu.stat") if quota_us and period_us else None


def periods_of(quota: CpuQuota) -> QuotaPeriods | None:
    """What the kernel counted by now; None where it does not say: gVisor counts nothing, and a group may be moved."""
    text = _read_text(quota.stat)
    counts = {} if text is None else dict(pair for line in text.splitlines() if len(pair := line.split()) == 2)
    if not {"nr_periods", "nr_throttled"} <= counts.keys():
        return None
    return QuotaPeriods(int(counts["nr_periods"]), int(counts["nr_throttled"]))


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:  # not there, or not to be read from here
        return None

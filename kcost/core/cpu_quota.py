"""How much of the processors' time a container may have: `docker run --cpus`, a limit of Kubernetes.

The kernel gives a control group so much time of its cores in each period, a tenth of a second by default. When that is
used up, all threads of the group stop until the period ends. So a program with more threads than the quota has cores
runs at full speed for a while and then not at all: a step that is shorter than a period either has no pause in it or a
long one, and its median says nothing of the pauses. Threads that wait for work without sleeping use the quota up, too.
"""

from __future__ import annotations

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


def cpu_quota() -> CpuQuota | None:
    """None where no quota is set."""
    quotas = [quota for group in groups_with("cpu") if (quota := _quota_of(group)) is not None]
    return min(quotas, default=None, key=lambda quota: quota.cores)


def _quota_of(group: Path) -> CpuQuota | None:
    version_2, version_1 = group / "cpu.max", group / "cpu.cfs_quota_us"
    if version_2.is_file():
        quota_us, period_us = version_2.read_text().split()
    elif version_1.is_file():
        quota_us, period_us = version_1.read_text().strip(), (group / "cpu.cfs_period_us").read_text().strip()
    else:
        return None
    if not quota_us.isdigit():  # `max` in version 2, -1 in version 1
        return None
    return CpuQuota(int(quota_us) / int(period_us), int(period_us) / 1e6, group / "cpu.stat")


def periods_of(quota: CpuQuota) -> QuotaPeriods:
    """What the kernel counted by now."""
    counts = dict(line.split() for line in quota.stat.read_text().splitlines())
    return QuotaPeriods(int(counts["nr_periods"]), int(counts["nr_throttled"]))

"""How much of the processors' time a container may have, as its control groups say."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcost.core import control_groups
from kcost.core.cpu_quota import QuotaPeriods, cpu_quota, default_threads, periods_of
from kcost.core.environment import collect

COUNTED = "nr_periods 30\nnr_throttled 12\nthrottled_time 99\n"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of files, which a test fills."""
    monkeypatch.setattr(control_groups, "GROUPS_OF_THIS_PROCESS", tmp_path / "own")
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path / "groups")
    return tmp_path


def write(root: Path, own: str, files: dict[str, str]) -> None:
    (root / "own").write_text(f"{own}\n")
    for name, text in files.items():
        path = root / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("own", "files", "cores", "period_s"),
    [
        ("0::/", {"cpu.max": "100000 100000"}, 1.0, 0.1),
        ("0::/", {"cpu.max": "30000 20000"}, 1.5, 0.02),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0, 0.1),
        ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "50000 50000"}, 1.0, 0.05),
        ("0::/docker/0a1b", {"cpu.max": "50000 100000"}, 0.5, 0.1),  # as its host names it
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "20000", "cpu/cpu.cfs_period_us": "20000"}, 1.0, 0.02),
        (
            "3:cpu,cpuacct:/docker/0a1b\n0::/",
            {"cpu/docker/0a1b/cpu.cfs_quota_us": "250000", "cpu/docker/0a1b/cpu.cfs_period_us": "100000"},
            2.5,
            0.1,
        ),
    ],
)
def test_a_quota_is_the_tightest_of_the_groups(
    groups: Path, own: str, files: dict[str, str], cores: float, period_s: float
) -> None:
    write(groups, own, files)
    quota = cpu_quota()
    assert quota is not None
    assert (quota.cores, quota.period_s) == (pytest.approx(cores), pytest.approx(period_s))
    assert collect().cpu_quota_cores == pytest.approx(cores)


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/", {}),
        ("0::/", {"cpu.max": "max 100000"}),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}),
        ("4:memory:/", {"memory/cpu.max": "1 2"}),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "50000"}),  # half of it is not told
        ("0::/", {"cpu.max": "50000"}),
        ("0::/", {"cpu.max/a-folder": "50000 100000"}),
    ],
)
def test_without_a_quota_there_is_none(groups: Path, own: str, files: dict[str, str]) -> None:
    write(groups, own, files)
    assert cpu_quota() is None
    assert collect().cpu_quota_cores is None


def test_a_system_without_control_groups_has_none(groups: Path) -> None:
    assert not (groups / "own").exists()
    assert cpu_quota() is None


def test_periods_are_those_of_the_group_with_the_quota(groups: Path) -> None:
    write(groups, "0::/a", {"a/cpu.max": "max 100000", "cpu.max": "100000 100000", "cpu.stat": COUNTED.strip()})
    quota = cpu_quota()
    assert quota is not None
    assert periods_of(quota) == QuotaPeriods(all=30, throttled=12)


@pytest.mark.parametrize("stat", [None, "usage_usec 5\nuser_usec 3", "nr_periods 30"])
def test_what_the_kernel_does_not_count_is_none(groups: Path, stat: str | None) -> None:
    """gVisor has the quota without the counters, and a group may be moved away."""
    write(groups, "0::/", {"cpu.max": "100000 100000", **({} if stat is None else {"cpu.stat": stat})})
    quota = cpu_quota()
    assert quota is not None
    assert periods_of(quota) is None


@pytest.mark.parametrize(
    ("quota", "threads"), [("max", 4), ("100000", 1), ("250000", 2), ("50000", 1), ("400000", 4), ("800000", 4)]
)
def test_as_many_threads_are_started_as_a_quota_has_cores(
    groups: Path, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    monkeypatch.setattr("kcost.core.cpu_quota.os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    write(groups, "0::/", {"cpu.max": f"{quota} 100000"})
    assert default_threads() == threads
    assert collect().default_threads == threads

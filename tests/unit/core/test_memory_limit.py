"""How much memory there is for more processes: on a machine, and in a container that may have a part of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from kcost.core import control_groups, memory_limit
from kcost.core.memory_limit import free_memory_bytes

GIB = 1 << 30
UNLIMITED_V1 = "9223372036854771712"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("groups", "files", "gib"),
    [
        ("0::/", {}, 20),  # a machine: the topmost group has no limit
        ("0::/", {"memory.max": str(4 * GIB)}, 4),
        ("0::/", {"memory.max": "max"}, 20),
        ("0::/", {"memory.max": str(500 * GIB)}, 20),
        (
            "0::/user.slice/a:b.scope",
            {"user.slice/a:b.scope/memory.max": "max", "user.slice/memory.max": str(3 * GIB)},
            3,
        ),
        ("5:cpu,cpuacct:/\n4:memory:/", {"memory/memory.limit_in_bytes": str(2 * GIB)}, 2),
        ("4:memory:/docker/0a1b\n0::/", {"memory/memory.limit_in_bytes": str(2 * GIB)}, 2),  # as its host names it
        ("4:memory:/docker/0a1b", {"memory/docker/0a1b/memory.limit_in_bytes": str(2 * GIB)}, 2),
        ("4:memory:/", {"memory/memory.limit_in_bytes": UNLIMITED_V1}, 20),
    ],
)
def test_memory_is_the_least_of_what_is_available_and_what_a_container_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], gib: int
) -> None:
    write(tmp_path, {"own": groups})
    write(tmp_path / "groups", files)
    monkeypatch.setattr(control_groups, "GROUPS_OF_THIS_PROCESS", tmp_path / "own")
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path / "groups")
    now = SimpleNamespace(total=64 * GIB, available=20 * GIB)
    monkeypatch.setattr(memory_limit.psutil, "virtual_memory", lambda: now)
    assert free_memory_bytes() == gib * GIB


def test_a_system_without_control_groups_has_what_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_groups, "GROUPS_OF_THIS_PROCESS", tmp_path / "none")
    now = SimpleNamespace(total=64 * GIB, available=20 * GIB)
    monkeypatch.setattr(memory_limit.psutil, "virtual_memory", lambda: now)
    assert free_memory_bytes() == 20 * GIB

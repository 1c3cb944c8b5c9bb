"""How much memory there is for more processes, in a container too."""

from __future__ import annotations

from pathlib import Path

import psutil

GROUPS_OF_THIS_PROCESS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def free_memory_bytes() -> int:
    """The least of the machine's memory, what is available of it now, and what this process's control groups allow."""
    machine = psutil.virtual_memory()
    return min(int(machine.total), int(machine.available), *_limits_bytes(GROUPS_OF_THIS_PROCESS, GROUPS))


def _limits_bytes(own: Path, groups: Path) -> list[int]:
    """The limits of the groups that hold this process, of version 2 and 1. One without a limit has none, or a huge one.

    A container may see the names of its groups as its host has them, and the groups themselves as if its own were the
    topmost: whichever are there count.

    Args:
        own: lists the groups of the process, a line each: number, controllers, path.
        groups: where they are mounted.
    """
    if not own.exists():  # not Linux
        return []
    limits = []
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounted, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            mounted, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        innermost = mounted / path.lstrip("/")
        for group in (innermost, *innermost.parents):
            if group.is_relative_to(mounted) and (group / name).is_file():
                text = (group / name).read_text().strip()
                limits += [int(text)] if text.isdigit() else []  # else it is `max`
    return limits

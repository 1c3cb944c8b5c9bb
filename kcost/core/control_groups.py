"""The control groups that hold this process, of version 2 and 1: a container is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GROUPS_OF_THIS_PROCESS = Path("/proc/self/cgroup")
"""Lists them, a line each: number, controllers, path."""

GROUPS = Path("/sys/fs/cgroup")
"""Where they are mounted."""


def groups_with(controller: str) -> Iterator[Path]:
    """Folders of the groups that may limit this process by that controller, each hierarchy's from the innermost out.

    A container may see the names of its groups as its host has them, and the groups themselves as if its own were the
    topmost: some of the folders need not be there. Files in them are named otherwise in version 1 than in 2.
    """
    if not GROUPS_OF_THIS_PROCESS.exists():  # not Linux
        return
    for line in GROUPS_OF_THIS_PROCESS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounted = GROUPS
        elif controller in controllers.split(","):
            mounted = GROUPS / controller
        else:
            continue
        innermost = mounted / path.lstrip("/")
        for group in (innermost, *innermost.parents):
            if group.is_relative_to(mounted):
                yield group

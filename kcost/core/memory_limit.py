"""How much memory there is for more processes, in a container too."""

from __future__ import annotations

import psutil

from kcost.core.control_groups import groups_with

LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Files of a group of version 2 and of version 1."""


def free_memory_bytes() -> int:
    """The least of the machine's memory, what is available of it now, and what this process's control groups allow."""
    machine = psutil.virtual_memory()
    return min(int(machine.total), int(machine.available), *_limits_bytes())


def _limits_bytes() -> list[int]:
    """The limits of the groups that hold this process. One without a limit has none, or a huge one."""
    files = [group / name for group in groups_with("memory") for name in LIMITS]
    texts = [file.read_text().strip() for file in files if file.is_file()]
    return [int(text) for text in texts if text.isdigit()]  # else it is `max`

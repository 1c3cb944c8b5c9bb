"""CPU quotas: this process under one, and runs that one stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kcost.core import control_groups
from kcost.core.result import Run, Watch
from testing.runs import replaced


def under_quota(folder: Path, monkeypatch: pytest.MonkeyPatch, cores: float) -> None:
    """Has this process read a quota of so many cores."""
    (folder / "own_groups").write_text("0::/\n")
    (folder / "cpu.max").write_text(f"{round(cores * 100_000)} 100000\n")
    monkeypatch.setattr(control_groups, "GROUPS_OF_THIS_PROCESS", folder / "own_groups")
    monkeypatch.setattr(control_groups, "GROUPS", folder)


def stopped_by_quota(run: Run, *cell_ids: str, periods: int = 4) -> Run:
    """The run with some cells, or all where none is named, stopped in each period of a quota.

    Args:
        periods: of a round; with as many as it has steps or more, a step is longer than a period.
    """
    held = Watch(wall_s=0.1, parent_cpu_s=0.0, quota_periods=periods, quota_throttles=periods)
    for cell in run.cells:
        if not cell_ids or cell.spec.cell_id in cell_ids:
            run = replaced(run, cell.spec.cell_id, rounds=tuple(replace(r, watch=held) for r in cell.rounds))
    return run

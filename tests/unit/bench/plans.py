"""Plans of simulated cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kcost.core.plan import Plan
from kcost.core.result import CellResult, Run

SETTINGS = {"rounds": 3, "round_s": 0.01, "warmup_s": 0.005, "timeout_s": 20}


def fake_plan(folder: Path, script: dict[str, Any], **changes: Any) -> Plan:
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "fake.keras"
    model.write_text(json.dumps(script))
    plan = {"models": [str(model)], "backends": ["fake"], "phases": ["inference"], "settings": SETTINGS}
    return Plan.parse({**plan, **changes})


def by_label(run: Run) -> dict[str, CellResult]:
    return {c.spec.label.removeprefix("inference fake/"): c for c in run.cells}

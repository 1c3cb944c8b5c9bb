"""Plans with scenarios."""

from __future__ import annotations

from pathlib import Path

from kcost.core.plan import Plan
from tests.unit.bench.plans import fake_plan

SETTINGS = {
    **{"rounds": 2, "round_s": 0.001, "warmup_s": 0, "warmup_max_s": 0.001, "timeout_s": 20},
    **{"scenarios": ["single-stream", "server"], "latency_bound_ms": 500, "scenario_s": 0.05},
}


def scenario_plan(folder: Path, script: dict[str, object] | None = None, **settings: object) -> Plan:
    axes = {"methods": ["eager"], "precisions": ["float32"], "batches": [1, 8]}
    return fake_plan(folder, script or {}, **axes, settings={**SETTINGS, **settings})

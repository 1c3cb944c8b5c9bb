"""The whole flow on the built-in data, in minutes: what `make demo` runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kcost.api.measuring import make_report, run_bench
from kcost.api.models import train
from kcost.api.shipping import export
from kcost.core.artifact import Artifact, refuse_existing
from kcost.core.plan import BACKENDS, Plan
from kcost.core.process import installed
from kcost.core.progress import OnProgress, silent
from kcost.core.schema import Record
from kcost.cost.verdict import Verdict
from kcost.ship.export_report import ExportReport

MODELS: tuple[dict[str, Any], ...] = (
    {"family": "cnn", "data": "digits", "name": "digits-cnn", "epochs": 20},
    {"family": "bert", "data": "ner-mini", "name": "ner-mini-bert", "epochs": 6},
)

SETTINGS = {"rounds": 8, "round_s": 0.1, "warmup_s": 0.3}


class DemoReport(Record):
    """What the demo made."""

    out: Path
    artifacts: tuple[Artifact, ...]
    verdict: Verdict
    exports: tuple[ExportReport, ...]
    page: Path
    wall_s: float


def run_demo(out: Path | str, *, on_progress: OnProgress = silent) -> DemoReport:
    """The whole flow on the built-in data: train, bench on every installed backend, cost, verdict, export, report.

    Raises:
        StorageError: `out` holds something already, or cannot be written to.
    """
    out = Path(out)
    start = time.perf_counter()
    refuse_existing(out)
    artifacts = []
    for model in MODELS:
        on_progress(0, 1, f"training {model['name']} on {model['data']}")
        artifacts.append(train(out=out / "models" / model["name"], **model))
    plan = Plan.parse(
        {
            "models": [str(out / "models" / a.name) for a in artifacts],
            "backends": [b for b in BACKENDS if installed(b)],
            "settings": SETTINGS,
        }
    )
    run_bench(plan, out / "run", on_progress=on_progress)
    page = out / "report.html"
    verdict = make_report(out / "run", html=page)
    exports = []
    for artifact in artifacts:
        on_progress(1, 1, f"exporting {artifact.name} for TensorFlow Serving")
        exports.append(export(out / "models" / artifact.name, out / "serving", name=artifact.name))
    return DemoReport(
        out=out,
        artifacts=tuple(artifacts),
        verdict=verdict,
        exports=tuple(exports),
        page=page,
        wall_s=time.perf_counter() - start,
    )

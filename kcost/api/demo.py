"""The whole flow on the built-in data, in minutes: what `make demo` runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kcost.api.models import train
from kcost.api.recommend import run_recommend
from kcost.api.shipping import export
from kcost.core.artifact import Artifact, refuse_existing
from kcost.core.progress import OnProgress, silent
from kcost.core.schema import Record
from kcost.recommend.answer import Recommendation
from kcost.ship.export_report import ExportReport

MODELS: tuple[dict[str, Any], ...] = (
    {"family": "cnn", "data": "digits", "name": "digits-cnn", "epochs": 20},
    {"family": "bert", "data": "ner-mini", "name": "ner-mini-bert", "epochs": 6},
)

TRAFFIC: tuple[dict[str, Any], ...] = (
    {"qps": 1_000_000, "minutes": 1.5},
    {"qps": 20_000, "minutes": 2.0},
)
"""Of each model: so many requests a second that the ways differ in the number of instances; and minutes, so that the
demo ends within 6 on two cores."""

LIMITS: dict[str, Any] = {"p99_ms": 200, "max_drop": 0.03, "provider": "aws", "batches": (1, 32), "card": False}


class DemoReport(Record):
    """What the demo made."""

    out: Path
    artifacts: tuple[Artifact, ...]
    recommendations: tuple[Recommendation, ...]
    exports: tuple[ExportReport, ...]
    wall_s: float

    def folder(self, artifact: Artifact) -> Path:
        """Where the recommendation of a model lies."""
        return self.out / "verdict" / artifact.name


def run_demo(
    out: Path | str, *, on_progress: OnProgress = silent, tell: Callable[[str], None] = lambda _: None
) -> DemoReport:
    """The whole flow on the built-in data: train, recommend on every installed backend, export.

    Args:
        tell: told first figures and the best so far, as sentences.

    Raises:
        StorageError: `out` holds something already, or cannot be written to.
    """
    out = Path(out)
    start = time.perf_counter()
    refuse_existing(out)
    artifacts, answers, exports = [], [], []
    for model in MODELS:
        on_progress(0, 1, f"training {model['name']} on {model['data']}")
        artifacts.append(train(out=out / "models" / model["name"], quiet=on_progress is silent, **model))
    for artifact, traffic in zip(artifacts, TRAFFIC, strict=True):
        tell(f"{artifact.name}: {traffic['qps']:,} requests a second, {traffic['minutes']:g} minutes of measuring")
        folder = out / "verdict" / artifact.name
        answers.append(
            run_recommend(
                out / "models" / artifact.name, out=folder, **traffic, **LIMITS, on_progress=on_progress, tell=tell
            )
        )
        on_progress(1, 1, f"exporting {artifact.name} for TensorFlow Serving")
        exports.append(export(out / "models" / artifact.name, out / "serving", name=artifact.name))
    return DemoReport(
        out=out,
        artifacts=tuple(artifacts),
        recommendations=tuple(answers),
        exports=tuple(exports),
        wall_s=time.perf_counter() - start,
    )

"""Stored predictions and reports of risk that are made up."""

from __future__ import annotations

from kcost.core.artifact import Dataset
from kcost.core.predictions import Predictions, PredictionsHeader, SplitPredictions
from kcost.risk.decide import Measured, decide
from kcost.risk.gates import parse_gates
from kcost.risk.report import Evidence, RiskReport, Surroundings, assess

from .answers import classifier, tagger

DATASET = Dataset(name="d", synthetic=False, source="a test", licence="MIT", splits={})


EVIDENCE = Evidence(
    predictions_file="p.npz",
    predictions_sha256="0" * 64,
    model_sha256="1" * 64,
    backend="torch",
    dataset=DATASET,
    command="kcost risk m",
)


def predictions(kind: str = "multiclass", count: int = 1500, temperature: float = 1.0) -> Predictions:
    header = PredictionsHeader(
        model="m",
        model_sha256="1" * 64,
        backend="torch",
        dataset=DATASET,
        label_names=tuple("abcd") if kind == "multiclass" else ("O", "B-X"),
        entity_types=() if kind == "multiclass" else ("LOC", "PER"),
        kind=kind,
        unit="examples",
        train_examples=1000,
    )

    def made(seed: int) -> SplitPredictions:
        return tagger(count, seed) if kind == "tags" else classifier(count, seed, temperature=temperature, spread=4)

    return Predictions(header, {"train": made(0), "validation": made(1), "test": made(2)}, "0" * 64)


def report(text: str = "", around: Surroundings | None = None, kind: str = "multiclass") -> RiskReport:
    gates = parse_gates(text, "gates.toml") if text else None
    risk_report = assess(predictions(kind), EVIDENCE, around or Surroundings(), gates, target_error=0.2)
    return risk_report if gates is None else decide(risk_report, gates, Measured())

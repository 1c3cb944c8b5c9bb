"""All that is known of a model's risk, as one document."""

from __future__ import annotations

from pydantic import Field

from kcost.core.artifact import Dataset
from kcost.core.predictions import Predictions
from kcost.core.schema import VERSIONS, Record
from kcost.risk.abstention import RiskCoverage, abstention, risk_coverage
from kcost.risk.calibration import Calibration, Temperature, at_temperature, calibration, fit_temperature
from kcost.risk.figures import Figure
from kcost.risk.scores import main_score


class Evidence(Record):
    """What the figures were taken from."""

    predictions_file: str
    predictions_sha256: str
    model_sha256: str
    backend: str
    dataset: Dataset
    command: str = Field(description="that makes this document again")


class SplitScore(Record):
    """The main score on one split."""

    split: str
    score: Figure
    examples: int = Field(description="that were predicted; of training examples a sample where there are many")


class RiskReport(Record):
    """`risk.json`."""

    schema_: int = Field(default=VERSIONS["risk"], alias="schema")
    model: str
    kind: str
    unit: str
    evidence: Evidence
    scores: tuple[SplitScore, ...]
    calibration: Calibration = Field(description="of the test split, as the model is")
    temperature: Temperature = Field(description="fitted on validation")
    calibration_at_temperature: Calibration = Field(description="of the test split, with that temperature")
    coverage: RiskCoverage


def assess(predictions: Predictions, evidence: Evidence, *, target_error: float | None = None) -> RiskReport:
    """The figures of stored predictions.

    Args:
        target_error: the error, of 1, that a threshold of abstention is looked for; None looks for none.
    """
    header, splits = predictions.header, predictions.splits
    test, validation, unit = splits["test"], splits["validation"], header.unit
    temperature = fit_temperature(validation)
    coverage = risk_coverage(test)
    if target_error is not None:
        found = abstention(validation, test, target_error, unit)
        coverage = coverage.model_copy(update={"abstention": found})
    return RiskReport(
        model=header.model,
        kind=header.kind,
        unit=unit,
        evidence=evidence,
        scores=tuple(
            SplitScore(split=name, score=main_score(splits[name], unit), examples=len(splits[name]))
            for name in ("train", "validation", "test")
        ),
        calibration=calibration(test, unit),
        temperature=temperature,
        calibration_at_temperature=calibration(at_temperature(test, temperature.value), unit),
        coverage=coverage,
    )

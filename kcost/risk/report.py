"""All that is known of a model's risk, as one document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from kcost.core.answer import Answer
from kcost.core.artifact import Dataset
from kcost.core.predictions import Predictions
from kcost.core.schema import VERSIONS, Record
from kcost.risk.abstention import RiskCoverage, abstention, risk_coverage
from kcost.risk.calibration import Calibration, Temperature, at_temperature, calibration, fit_temperature
from kcost.risk.confident_learning import ConfidentLearning, confident_learning
from kcost.risk.expected_loss import expected_loss
from kcost.risk.fairness import Disparity, disparities
from kcost.risk.figures import Figure
from kcost.risk.gates import Gates, Verdict
from kcost.risk.label_noise import LabelNoise, label_noise
from kcost.risk.leakage import Leakage
from kcost.risk.out_of_distribution import OutOfDistribution
from kcost.risk.overfitting import Flips, difference, flips
from kcost.risk.personal_data import PersonalData
from kcost.risk.robustness import Robustness
from kcost.risk.scores import main_score
from kcost.risk.seeds import Seeds
from kcost.risk.slices import Slices, slices_of


class Evidence(Record):
    """What the figures were taken from."""

    predictions_file: str
    predictions_sha256: str
    model_sha256: str
    backend: str
    dataset: Dataset
    command: str = Field(description="that makes this document again")
    options: dict[str, bool | int | float | str | tuple[str, ...]] = Field(
        default={}, description="the same, for `kcost.assess_risk`"
    )
    trained_on_these: bool | None = Field(
        default=None, description="whether the artifact names this very training split; None for a bare file"
    )


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
    answer: Answer | None = Field(default=None, description="what the output was taken as; None in files of before")
    place: int = Field(default=0, description="of that output among the model's outputs")
    unit: str
    evidence: Evidence
    verdicts: tuple[Verdict, ...] = Field(default=(), description="one for each limit that was set, failures first")
    scores: tuple[SplitScore, ...]
    gap: Figure = Field(description="the main score on train less that on test")
    calibration: Calibration = Field(description="of the test split, as the model is")
    temperature: Temperature = Field(description="fitted on validation")
    calibration_at_temperature: Calibration = Field(description="of the test split, with that temperature")
    coverage: RiskCoverage
    slices: Slices = Field(description="of the test split")
    disparities: tuple[Disparity, ...] = Field(default=(), description="between the groups of the user's columns")
    flips: Flips | None = Field(default=None, description="against another model; None where none was named")
    loss: Figure | None = Field(default=None, description="dollars of errors in a million examples")
    leakage: Leakage | None = Field(default=None, description="None where data cannot be compared")
    personal_data: PersonalData | None = Field(default=None, description="in all texts; None without texts")
    robustness: Robustness | None = Field(default=None, description="None where it was not looked for")
    out_of_distribution: OutOfDistribution | None = Field(
        default=None, description="None where no other data were named"
    )
    seeds: Seeds | None = Field(default=None, description="None where no other trainings were named")
    label_noise: LabelNoise | None = Field(default=None, description="of the test split; None for taggers")
    confident_learning: ConfidentLearning | None = Field(default=None, description="None where it was not looked for")

    @property
    def test_score(self) -> Figure:
        """What the model scores on the test split."""
        return next(s.score for s in self.scores if s.split == "test")

    @property
    def failed(self) -> bool:
        """Whether a gate failed."""
        return any(v.answer == "fail" for v in self.verdicts)

    @property
    def undecided(self) -> bool:
        """Whether a gate can't tell."""
        return any(v.answer == "can't tell" for v in self.verdicts)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What figures need besides predictions.

    Attributes:
        columns: a value for each test example, by name: what slices are made of.
        groups: the names of those among them that are the user's own.
        before: predictions of another model on the same data, and its name.
        cleanlab: whether labels are looked at by confident learning as well.
    """

    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    before: tuple[str, Predictions] | None = None
    leakage: Leakage | None = None
    personal_data: PersonalData | None = None
    robustness: Robustness | None = None
    out_of_distribution: OutOfDistribution | None = None
    seeds: Seeds | None = None
    cleanlab: bool = False


def assess(
    predictions: Predictions,
    evidence: Evidence,
    around: Surroundings,
    gates: Gates | None = None,
    target_error: float | None = None,
) -> RiskReport:
    """The figures of stored predictions, without verdicts.

    Args:
        gates: their prices of errors are used; `decide` holds the limits against the report.
        target_error: the error, of 1, that a threshold of abstention is looked for; None looks for none.

    Raises:
        InputError: prices of classes or entity types that the model does not know.
        UnavailableError: cleanlab is asked for and not installed.
    """
    header, splits, unit = predictions.header, predictions.splits, predictions.header.unit
    test, validation = splits["test"], splits["validation"]
    temperature = fit_temperature(validation)
    coverage = risk_coverage(test)
    if target_error is not None:
        chosen = abstention(validation, test, target_error, unit)
        coverage = coverage.model_copy(update={"abstention": chosen})
    scores = {name: main_score(splits[name], unit) for name in ("train", "validation", "test")}
    columns, groups = dict(around.columns), around.groups
    names, types = header.label_names, header.entity_types
    classifies = test.entity_counts is None and len(test.labels) == len(test)
    prices = None if gates is None else gates.loss
    return RiskReport(
        model=header.model,
        kind=header.kind,
        answer=header.answer,
        place=header.place,
        unit=unit,
        evidence=evidence,
        scores=tuple(SplitScore(split=s, score=f, examples=len(splits[s])) for s, f in scores.items()),
        gap=difference("overfitting_gap", scores["train"], scores["test"]),
        calibration=calibration(test, unit),
        temperature=temperature,
        calibration_at_temperature=calibration(at_temperature(test, temperature.value), unit),
        coverage=coverage,
        slices=slices_of(test, columns, unit, types),
        disparities=tuple(
            one for g in groups for one in disparities(test, g, columns[g], unit, binary=header.kind == "binary")
        ),
        flips=None
        if around.before is None
        else flips(around.before[1].splits["test"], test, around.before[0], columns, unit),
        loss=None if prices is None else expected_loss(test, prices, names, types, unit),
        leakage=around.leakage,
        personal_data=around.personal_data,
        robustness=around.robustness,
        out_of_distribution=around.out_of_distribution,
        seeds=around.seeds,
        label_noise=label_noise(test, names, unit) if classifies else None,
        confident_learning=confident_learning(test, names) if classifies and around.cleanlab else None,
    )

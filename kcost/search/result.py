"""What a search found, derived from its study each time that it is read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from kcost.core.artifact import Score
from kcost.core.schema import Record
from kcost.cost.estimate import CostEstimate
from kcost.search.request import Objective
from kcost.search.space import Parameter, Value

State = Literal["complete", "pruned", "failed", "running", "waiting", "stopped"]
"""pruned: ended early, by the median rule. stopped: its process ended or was stopped first, or it could not begin;
such a trial is not counted, and one whose process died is tried again under another number. waiting: to be tried
again. running: by some process, maybe on another machine."""


class TrialRecord(Record):
    """One trial."""

    number: int
    state: State
    params: dict[str, Value]
    reason: str | None = Field(default=None, description="why it was pruned, failed or stopped")
    score: Score | None = Field(default=None, description="of the validation split, with interval and count")
    predicted: CostEstimate | None = Field(default=None, description="predicted, not billed: see its `basis`")
    measured_as: str | None = Field(default=None, description="the cell whose step times the cost is taken from")
    artifact: str | None = Field(default=None, description="folder of the model, on `host`")
    host: str | None = None
    seconds: float | None = Field(default=None, description="wall seconds of the whole trial")

    @property
    def reached(self) -> Score:
        """The score of a trial that is complete."""
        assert self.score is not None
        return self.score

    @property
    def cost(self) -> CostEstimate:
        """The predicted cost of a trial that is complete."""
        assert self.predicted is not None
        return self.predicted


class Importance(Record):
    """How much of the difference between the best quarter of trials and the rest each parameter makes up.

    PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255), shares that add up to 1, the largest first.
    """

    objective: Literal["score", "cost"]
    shares: dict[str, float]


class SearchResult(Record):
    """A study as it stands."""

    study: str
    storage: str = Field(description="URL of the database, a password in it hidden")
    family: str
    data: str
    backend: str
    objective: Objective
    trials_asked: int
    space: tuple[Parameter, ...]
    fixed: dict[str, Any] = Field(description="settings that were given, and so not searched")
    trials: tuple[TrialRecord, ...] = Field(description="in the order in which they began")
    pareto: tuple[int, ...] = Field(description="numbers of the trials that none beats in both, the cheapest first")
    best: int | None = Field(description="the highest score; the cheaper one of equals")
    cheapest_as_good: int | None = Field(description="the cheapest with a score in the best one's 95% interval")
    importances: tuple[Importance, ...]
    notices: tuple[str, ...] = Field(description="what to know before believing a figure")

    def trial(self, number: int) -> TrialRecord:
        """A trial by number. Raises KeyError for one that the study does not hold."""
        return {t.number: t for t in self.trials}[number]

    def in_state(self, *states: State) -> tuple[TrialRecord, ...]:
        """The trials in these states."""
        return tuple(t for t in self.trials if t.state in states)

"""What a model scores on test examples that were changed, against the same examples as they are."""

from __future__ import annotations

from pydantic import Field

from kcost.core.predictions import Predictions
from kcost.core.schema import Record
from kcost.risk.figures import Figure
from kcost.risk.overfitting import paired_drop
from kcost.risk.scores import main_score


class Condition(Record):
    """The answers under one change of a stated strength."""

    name: str = Field(description="such as `noise 10%`; docs/risk.md says what each is")
    attack: bool = Field(description="whether somebody who knows the weights changed the examples")
    score: Figure
    drop: Figure = Field(description="of the main score, paired: positive where it is lower than on clean examples")
    mean_confidence: float = Field(description="of the class that is decided for: whether the model notices")


class Robustness(Record):
    """Scores under each change."""

    predictions_file: str
    predictions_sha256: str
    examples: int = Field(description="test examples that were changed: a seeded sample where there are more")
    clean: Figure = Field(description="the main score on them as they are")
    clean_confidence: float
    conditions: tuple[Condition, ...] = Field(description="the largest drop first")
    not_attacked_because: str | None = None

    @property
    def worst(self) -> Condition:
        """The change that the score falls most under; attacks left out where there is another one."""
        return next((c for c in self.conditions if not c.attack), self.conditions[0])


def robustness(stored: Predictions, clean: str, attacks: frozenset[str], file: str) -> Robustness | None:
    """Scores of stored predictions, whose splits are conditions; None where there is no other than the clean one.

    Args:
        clean: name of the split of unchanged examples.
        attacks: names of the conditions that are attacks.
        file: name of the file that they are stored in.
    """
    unit, before = stored.header.unit, stored.splits[clean]
    conditions = [
        Condition(
            name=name,
            attack=name in attacks,
            score=main_score(after, unit),
            drop=paired_drop(before, after, unit),
            mean_confidence=float(after.confidence.mean()),
        )
        for name, after in stored.splits.items()
        if name != clean
    ]
    if not conditions:
        return None
    assert stored.sha256 is not None, "stored predictions have a hash"
    return Robustness(
        predictions_file=file,
        predictions_sha256=stored.sha256,
        examples=len(before),
        clean=main_score(before, unit),
        clean_confidence=float(before.confidence.mean()),
        conditions=tuple(sorted(conditions, key=lambda c: (-c.drop.value, c.name))),
        not_attacked_because=next(iter(stored.header.notes), None),
    )

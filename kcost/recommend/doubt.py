"""What the doubt costs: the expected loss of choosing now, and what would take it away at which price."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from kcost.core.schema import Record
from kcost.cost.assumptions import Assumptions
from kcost.cost.option import Option
from kcost.cost.sizing import Rates
from kcost.cost.uncertainty import Cause, Draws, causes_in, only, spend

WORTH_USD = 1.0
"""A doubt below a dollar over the horizon is called none."""


class CauseOfDoubt(Record):
    """What one cause alone makes the choice lose."""

    cause: Cause
    usd: float = Field(ge=0, description="expected loss over the horizon, were nothing but this uncertain")


class Doubt(Record):
    """The expected value of perfect information, over the horizon.

    Source: Raiffa and Schlaifer (1961), Applied Statistical Decision Theory, chapter 4.
    """

    expected_loss_usd: float = Field(ge=0, description="of the choice against the best in each draw, on average")
    by_cause: tuple[CauseOfDoubt, ...] = Field(description="the largest first")
    measuring_usd: float | None = Field(
        default=None, description="what the doubt about step times could be measured away for, at the machine's price"
    )
    measuring_minutes: float | None = None
    labels: int | None = Field(default=None, description="more labels that would decide a cheaper way's score drop")
    labels_usd: float | None = Field(default=None, description="their price; None where a label's price is not known")
    labels_for: str | None = Field(default=None, description="the way that they would decide")
    labels_worth_usd: float | None = Field(
        default=None, description="its saving over the horizon times the chance that it keeps the limit"
    )

    @property
    def matters(self) -> bool:
        """Whether it is worth a word."""
        return self.expected_loss_usd >= WORTH_USD


def expected_losses(totals: np.ndarray, chosen: int) -> tuple[float, np.ndarray]:
    """The expected loss of a choice, and the probability of each option to be the cheapest; ties are shared.

    Args:
        totals: dollars, shape (draws, options).
        chosen: column of the choice.

    Examples:
        >>> loss, chances = expected_losses(np.array([[1.0, 2.0], [4.0, 2.0]]), 0)
        >>> loss, chances.tolist()
        (1.0, [0.5, 0.5])
    """
    least = totals.min(axis=1, keepdims=True)
    cheapest = np.round(totals - least, 2) == 0
    shares = cheapest / cheapest.sum(axis=1, keepdims=True)
    return float(np.mean(totals[:, chosen] - least[:, 0])), np.asarray(shares.mean(axis=0))


def causes_of_doubt(
    options: Sequence[Option], rates: Rates, assumed: Assumptions, draws: Draws, chosen: int, more_usd: np.ndarray
) -> tuple[CauseOfDoubt, ...]:
    """The expected loss of a choice by each cause alone, the largest first.

    Args:
        more_usd: what each option costs beside its bill, such as its errors; shape (options,).
    """
    causes = []
    for cause in causes_in(draws):
        totals = spend(options, rates, assumed, only(draws, cause)).total + more_usd
        causes.append(CauseOfDoubt(cause=cause, usd=max(0.0, expected_losses(totals, chosen)[0])))
    return tuple(sorted(causes, key=lambda c: -c.usd))

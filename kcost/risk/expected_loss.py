"""What errors cost in dollars: the price of each kind of error times how often it happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.predictions import SplitPredictions
from kcost.core.schema import Record
from kcost.risk.figures import Figure, bootstrapped

Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
MILLION = 1e6


class LossTable(Record):
    """The price of errors: of a classifier `wrong_usd` and `pairs`, of a tagger `missed_usd` and `false_usd`."""

    wrong_usd: Usd = Field(default=0.0, description="of any wrong answer that no pair names")
    pairs: dict[str, Usd] = Field(default={}, description='"LABEL -> ANSWER" -> dollars')
    missed_usd: dict[str, Usd] = Field(default={}, description="entity type -> dollars of a missed one")
    false_usd: dict[str, Usd] = Field(default={}, description="entity type -> dollars of one that is none")


def cost_matrix(table: LossTable, names: tuple[str, ...]) -> np.ndarray:
    """Dollars of each answer to each label, shape (classes, classes), [label, answer]; 0 on the diagonal.

    Raises:
        InputError: a pair names no class, or twice the same.
    """
    matrix = np.full((len(names), len(names)), table.wrong_usd)
    np.fill_diagonal(matrix, 0.0)
    for pair, usd in table.pairs.items():
        label, arrow, answer = (part.strip() for part in pair.partition("->"))
        if not arrow or label not in names or answer not in names or label == answer:
            raise InputError(
                'A pair of [loss] is "LABEL -> ANSWER", two different classes of the model.',
                received=f"{pair!r}",
                remedy=f"The classes are {', '.join(names)}.",
            )
        matrix[names.index(label), names.index(answer)] = usd
    return matrix


def expected_loss(
    answers: SplitPredictions, table: LossTable, names: tuple[str, ...], types: tuple[str, ...], unit: str
) -> Figure:
    """Dollars that errors cost in a million examples such as those of a split, with a bootstrap interval over them.

    Raises:
        InputError: the table names classes or entity types that the model does not know.
    """
    if answers.entity_counts is not None:
        missed, false = (_by_type(prices, types) for prices in (table.missed_usd, table.false_usd))
        usd = answers.entity_counts[:, :, 2] @ missed + answers.entity_counts[:, :, 1] @ false
    else:
        of_label = cost_matrix(table, names)[answers.labels, answers.predicted]
        usd = np.bincount(answers.rows, weights=of_label, minlength=len(answers))
    sums = np.stack([usd, np.ones(len(usd))], 1)

    def mean(drawn: np.ndarray) -> np.ndarray:
        per_million: np.ndarray = MILLION * drawn[:, 0] / np.maximum(drawn[:, 1], 1)
        return per_million

    return bootstrapped("loss_usd_per_million", sums, mean, unit, lowest=0.0)


def _by_type(prices: Mapping[str, float], types: tuple[str, ...]) -> np.ndarray:
    unknown = sorted(set(prices) - set(types))
    if unknown:
        raise InputError(
            f"Entities are of the types that the model knows: {', '.join(types)}.",
            received=f"{', '.join(unknown)} in [loss]",
            remedy="Correct the names.",
        )
    return np.array([prices.get(name, 0.0) for name in types])

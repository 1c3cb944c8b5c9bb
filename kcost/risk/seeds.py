"""How much of a score is the luck of a seed: models that were trained with the same settings and other seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from pydantic import Field

from kcost.core.predictions import SplitPredictions
from kcost.core.schema import Record
from kcost.core.stats import CONFIDENCE
from kcost.risk.figures import Figure, resampled_sums
from kcost.risk.scores import main_score, outcomes, score_name, score_of


class SeedScore(Record):
    """The score of one training."""

    model: str
    seed: int
    score: Figure
    predictions_sha256: str


class Seeds(Record):
    """The spread of the main score on test between trainings that differ in their seed alone."""

    scores: tuple[SeedScore, ...] = Field(description="the model itself first")
    mean: Figure = Field(description="over trainings, for new seeds and new test examples alike")
    deviation: Figure = Field(description="standard deviation between trainings, on these test examples")
    another: Figure = Field(description="the mean, with where the score of one more training lies on these examples")
    smallest_difference: float = Field(
        description="two single trainings have to differ by more for it to be more than their seeds, at 95%"
    )


def seeds_of(
    answers: Mapping[str, SplitPredictions], seeds: Mapping[str, int], hashes: Mapping[str, str], unit: str
) -> Seeds:
    """The spread between trainings; scores of different seeds are taken as normal, which few of them cannot show.

    The interval of the deviation is that of a normal sample (chi-square). The mean's has the variance between seeds
    over their number, and that of the mean score over resamples of the test examples, with Student's t of the degrees
    of freedom that both together have. `another` is a prediction interval: mean +- t s sqrt(1 + 1/k).

    Sources: Hahn and Meeker (1991), Statistical Intervals, chapter 4; Satterthwaite (1946), An Approximate Distribution
    of Estimates of Variance Components, Biometrics Bulletin 2, 110-114, for the degrees of freedom.

    Args:
        answers: of the test split, by model; the first is the model that is judged.
        seeds, hashes: of the same models: the seed, and that of the stored predictions.

    Raises:
        ValueError: there is one model alone, or they did not answer the same examples.
    """
    parts = list(answers.values())
    if len(parts) < 2:
        raise ValueError("A spread is between two trainings at least")
    if any(not np.array_equal(part.examples, parts[0].examples) for part in parts):
        raise ValueError("A spread is between answers to the same examples")
    from scipy.stats import chi2, t as student

    figures = {name: main_score(part, unit) for name, part in answers.items()}
    values = np.array([figure.value for figure in figures.values()])
    count, free = len(values), len(values) - 1
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    examples = len(parts[0])
    # A score moves in steps of one example: trainings of one score may still differ by the rounding of a step.
    step = 1 / (examples * math.sqrt(12))
    tail = (1 - CONFIDENCE) / 2
    low, high = (math.sqrt(free / float(chi2.ppf(q, free))) for q in (1 - tail, tail))
    quantile = float(student.ppf(1 - tail, free))
    of_examples = _variance_of_mean(parts)
    of_seeds = max(deviation, step) ** 2 / count
    both = of_seeds + of_examples
    freedom = both**2 / (of_seeds**2 / free + of_examples**2 / max(examples - 1, 1))
    half = float(student.ppf(1 - tail, freedom)) * math.sqrt(both)
    reach = quantile * max(deviation, step) * math.sqrt(1 + 1 / count)
    name = score_name(parts[0])

    def figure(what: str, value: float, lower: float, upper: float, rests_on: int, of: str) -> Figure:
        return Figure(name=what, value=value, low=max(0.0, lower), high=min(1.0, upper), count=rests_on, unit=of)

    return Seeds(
        scores=tuple(
            SeedScore(model=n, seed=seeds[n], score=figures[n], predictions_sha256=hashes[n]) for n in answers
        ),
        mean=figure(f"{name}_mean", mean, mean - half, mean + half, examples, unit),
        deviation=figure(
            f"{name}_deviation", deviation, deviation * low, max(deviation, step) * high, count, "trainings"
        ),
        another=figure(f"{name}_another", mean, mean - reach, mean + reach, count, "trainings"),
        smallest_difference=quantile * max(deviation, step) * math.sqrt(2),
    )


def _variance_of_mean(parts: list[SplitPredictions]) -> float:
    """Of the mean score over the models, as the test examples vary that all of them answer."""
    columns = [outcomes(part) for part in parts]
    width = columns[0].shape[1]
    sums = resampled_sums(np.concatenate(columns, 1))
    scores = [score_of(sums[:, i * width : (i + 1) * width]) for i in range(len(parts))]
    return float(np.mean(scores, 0).var(ddof=1))

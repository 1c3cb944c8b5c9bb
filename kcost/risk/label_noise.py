"""Labels that may be wrong: their share in a split, and which ones to look at first."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pydantic import Field

from kcost.core.predictions import SplitPredictions
from kcost.core.schema import Record
from kcost.risk.calibration import COLDEST, HOTTEST, log_softmax
from kcost.risk.figures import Figure

MOST_NOISE = 0.5
SUSPECT = 0.5
TOLD = 20
_CHI_SQUARE_95 = 3.841458820694124
_STEPS = 30


class Suspect(Record):
    """An example whose label is more likely wrong than right, as the mixture has it."""

    example: int = Field(description="place in the split")
    label: str
    answer: str
    probability: float = Field(description="that the label is wrong")


class LabelNoise(Record):
    """The share of labels that are wrong, as far as a model can say.

    It rests on an assumption: right labels are drawn as the model's probabilities say, once a temperature has mended
    them, and wrong ones evenly from the other classes. A model that is sure of wrong answers for another reason, such
    as one that confuses classes, makes it too large.
    """

    share: Figure
    suspects: int = Field(description="examples whose label is more likely wrong than right")
    first: tuple[Suspect, ...] = Field(description="the likeliest")


def label_noise(answers: SplitPredictions, names: tuple[str, ...], unit: str) -> LabelNoise:
    """Fits a mixture of right labels and evenly wrong ones to a split, with the profile likelihood's 95% interval.

    The likelihood of a label y is (1 - e) p(y) + e (1 - p(y)) / (classes - 1), where e is the share of wrong labels and
    p is softmax(logits / T) with T fitted beside e. Of a tagger, words are taken for independent.

    Sources: Natarajan, Dhillon, Ravikumar and Tewari (2013), Learning with Noisy Labels, NeurIPS, for the model of the
    noise; Pawitan (2001), In All Likelihood, chapter 3, for the interval.

    Raises:
        ValueError: there is no label, or one class.
    """
    classes = answers.log_probabilities.shape[1]
    if not len(answers.labels) or classes < 2:
        raise ValueError("Label noise is of labelled answers of two classes at least. Received: none")
    logits = answers.log_probabilities.astype(np.float64)

    def of_label(log_temperature: float) -> np.ndarray:
        logs = log_softmax(logits / math.exp(log_temperature))
        chosen: np.ndarray = np.exp(np.take_along_axis(logs, answers.labels[:, None], 1)[:, 0])
        return chosen

    temperatures = np.linspace(math.log(COLDEST), math.log(HOTTEST), 61)
    columns = np.stack([of_label(t) for t in temperatures])

    def losses(noise: float) -> np.ndarray:
        mixed = (1 - noise) * columns + noise * (1 - columns) / (classes - 1)
        total: np.ndarray = -np.log(np.maximum(mixed, 1e-300)).sum(1)
        return total

    def profile(noise: float) -> float:
        return float(losses(noise).min())

    value = _least(profile, 0.0, MOST_NOISE)
    limit = profile(value) + _CHI_SQUARE_95 / 2
    low = 0.0 if profile(0.0) <= limit else _crossing(profile, limit, 0.0, value)
    high = MOST_NOISE if profile(MOST_NOISE) <= limit else _crossing(profile, limit, MOST_NOISE, value)
    chances = columns[int(losses(value).argmin())]
    wrong = value * (1 - chances) / (classes - 1)
    posterior = wrong / np.maximum(wrong + (1 - value) * chances, 1e-300)
    order = np.argsort(-posterior, kind="stable")[:TOLD]
    first = tuple(
        Suspect(
            example=int(answers.examples[answers.rows[i]]),
            label=names[answers.labels[i]],
            answer=names[answers.predicted[i]],
            probability=float(posterior[i]),
        )
        for i in order
        if posterior[i] > SUSPECT
    )
    return LabelNoise(
        share=Figure(name="label_noise", value=value, low=low, high=high, count=len(answers), unit=unit),
        suspects=int((posterior > SUSPECT).sum()),
        first=first,
    )


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import minimize_scalar

    fit = minimize_scalar(function, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return low if function(low) <= float(fit.fun) else float(fit.x)


def _crossing(function: Callable[[float], float], limit: float, outside: float, inside: float) -> float:
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if function(middle) > limit else (outside, middle)
    return inside

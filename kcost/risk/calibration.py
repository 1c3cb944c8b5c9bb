"""Whether a model's probabilities can be taken at their word, and the temperature that mends them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pydantic import Field

from kcost.core.predictions import SplitPredictions
from kcost.core.schema import Record
from kcost.core.stats import CONFIDENCE
from kcost.risk.figures import RESAMPLES, SEED, Figure, correlated_noise, mean_by_row, sums_by_row

BINS = 15
"""Equal shares of the answers, in the order of their confidence."""

LEAST_IN_BIN = 20

UPPER_TAIL = 0.01
"""The upper end is drawn at 1% and not at 2.5%: which bins the gaps are in is itself estimated, and noise spreads them
over more bins than they are in, which makes the figure too small. docs/results.md has how often the end holds."""

COLDEST, HOTTEST = 0.05, 20.0
"""Between these a temperature is looked for."""


class Bin(Record):
    """Answers of like confidence."""

    count: int
    confidence: float = Field(description="mean probability of the class that was decided for")
    accuracy: float = Field(description="share of them that are right")


class Calibration(Record):
    """How far probabilities are from the share of right answers."""

    error: Figure = Field(description="expected calibration error of the decided class, bias corrected")
    error_uncorrected: float = Field(description="the same as it comes out of the bins: too large by their noise")
    brier: Figure = Field(description="squared distance of the probabilities from the label's one-hot row, 0 to 2")
    log_loss: Figure = Field(description="mean of -log of the probability of the label, natural logarithm")
    mean_confidence: float
    bins: tuple[Bin, ...] = Field(description="the reliability table, the least confident answers first")


class Temperature(Record):
    """One number that logits are divided by, fitted on the validation split."""

    value: float = Field(gt=0, description="above 1: the model is too sure of itself")
    no_optimum: bool = Field(
        default=False,
        description="an end of what is searched does best, as where no answer is wrong or none better than chance: it "
        "stays at 1",
    )
    examples: int
    log_loss_before: float = Field(description="on the split that it was fitted on")
    log_loss_after: float


def calibration(answers: SplitPredictions, unit: str) -> Calibration:
    """Calibration of one split.

    The error is sum_b w_b |accuracy_b - confidence_b| over bins of equal counts (Naeini, Cooper and Hauskrecht 2015,
    Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI; equal counts as Nguyen and O'Connor 2015 have
    them). The noise of each bin makes that too large: a perfectly calibrated model would show an error as well. So
    the true gaps are taken for a multiple of those that are seen, noise is drawn around them as it varies from example
    to example, and the figure is the multiple at which the bins show on average what they do show. Its interval holds
    the multiples that do not contradict it, 2.5% on each side: a bootstrap that is inverted, as a test is (Carpenter
    1999, Test inversion bootstrap confidence intervals, JRSS B 61, 159-172), with normal noise.

    Raises:
        ValueError: there is no label.
    """
    if not len(answers.labels):
        raise ValueError("Calibration is of labelled answers. Received: none")
    confidence, right = answers.confidence, answers.right
    places = bins_of(confidence)
    count = int(places.max()) + 1
    # A column for each bin: how far confidence is above the share of right answers, summed over each example.
    gaps = np.zeros((len(confidence), count))
    gaps[np.arange(len(confidence)), places] = confidence - right
    error, plain = _error(sums_by_row(gaps, answers.rows, len(answers)), len(confidence), unit)
    probabilities = np.exp(answers.log_probabilities.astype(np.float64))
    of_label = np.take_along_axis(answers.log_probabilities, answers.labels[:, None], 1)[:, 0].astype(np.float64)
    brier = np.square(probabilities).sum(1) - 2 * np.exp(of_label) + 1
    table = tuple(
        Bin(
            count=int((places == i).sum()),
            confidence=float(confidence[places == i].mean()),
            accuracy=float(right[places == i].mean()),
        )
        for i in range(count)
    )
    return Calibration(
        error=error,
        error_uncorrected=plain,
        brier=mean_by_row("brier", brier, answers.rows, len(answers), unit, highest=2.0),
        log_loss=mean_by_row("log_loss", -of_label, answers.rows, len(answers), unit),
        mean_confidence=float(confidence.mean()),
        bins=table,
    )


def bins_of(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of each answer, 0 the least confident: equal counts, equal confidences together; shape (n,), int64.

    There are fewer bins where these would hold under LEAST_IN_BIN answers each.
    """
    wanted = max(1, min(bins, len(confidence) // LEAST_IN_BIN))
    edges = np.unique(np.quantile(confidence, np.arange(1, wanted) / wanted))
    places = np.searchsorted(edges, confidence, side="right")
    return np.unique(places, return_inverse=True)[1].astype(np.int64)


def _error(gaps: np.ndarray, labels: int, unit: str) -> tuple[Figure, float]:
    """The error with its interval, and as it comes out of the bins.

    Args:
        gaps: confidence less right answers, summed over each example a bin; shape (n, bins).
        labels: how many labels there are in all.
    """
    seen = gaps.sum(0)
    plain = float(np.abs(seen).sum()) / labels
    covariance = len(gaps) * np.cov(gaps, rowvar=False, bias=True).reshape(len(seen), -1)
    # Noise of bins that show no gap at all has to go somewhere: there the multiple is of the noise itself.
    shape = seen if plain else np.sqrt(np.maximum(covariance.diagonal(), 1 / 4))
    noise = correlated_noise(covariance, RESAMPLES, np.random.default_rng(SEED))

    def shown(times: float) -> np.ndarray:
        drawn: np.ndarray = np.abs(times * shape + noise).sum(1) / labels
        return drawn

    def first(holds: Callable[[float], bool]) -> float:
        """The least multiple from which on something holds."""
        if holds(0.0):
            return 0.0
        low, high = 0.0, 1.0
        while not holds(high):
            low, high = high, 2 * high
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if holds(middle) else (middle, high)
        return high

    unit_error = float(np.abs(shape).sum()) / labels
    value = unit_error * first(lambda t: float(shown(t).mean()) >= plain)
    tail = (1 - CONFIDENCE) / 2
    low = unit_error * first(lambda t: float((shown(t) >= plain).mean()) >= tail)
    high = unit_error * first(lambda t: float((shown(t) <= plain).mean()) <= UPPER_TAIL)
    figure = Figure(
        name="calibration_error",
        value=value,
        low=min(low, value),
        high=min(1.0, max(high, value)),
        count=len(gaps),
        unit=unit,
    )
    return figure, plain


def fit_temperature(answers: SplitPredictions) -> Temperature:
    """The temperature that makes the log loss of a split least.

    Source: Guo, Pleiss, Sun and Weinberger (2017), On Calibration of Modern Neural Networks, ICML: section 4.2.

    Raises:
        ValueError: there is no label.
    """
    if not len(answers.labels):
        raise ValueError("A temperature is fitted on labelled answers. Received: none")
    from scipy.optimize import minimize_scalar

    logits = answers.log_probabilities.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return _log_loss(logits / math.exp(log_temperature), answers.labels)

    ends = (math.log(COLDEST), math.log(HOTTEST))
    fit = minimize_scalar(loss, bounds=ends, method="bounded")
    no_optimum = min(map(loss, ends)) <= float(fit.fun) + 1e-9
    return Temperature(
        value=1.0 if no_optimum else math.exp(float(fit.x)),
        no_optimum=no_optimum,
        examples=len(answers),
        log_loss_before=loss(0.0),
        log_loss_after=loss(0.0) if no_optimum else float(fit.fun),
    )


def _log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    of_label = np.take_along_axis(log_softmax(logits), labels[:, None], 1)
    return float(-of_label.mean())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithm of the softmax over the last axis, float64."""
    shifted = logits - logits.max(-1, keepdims=True)
    logs: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return logs


def at_temperature(answers: SplitPredictions, temperature: float) -> SplitPredictions:
    """The same answers with their logits divided by a temperature. What is decided stays as it was."""
    logs = log_softmax(answers.log_probabilities.astype(np.float64) / temperature)
    return SplitPredictions(
        labels=answers.labels,
        predicted=answers.predicted,
        log_probabilities=logs,
        rows=answers.rows,
        examples=answers.examples,
        entity_counts=answers.entity_counts,
    )

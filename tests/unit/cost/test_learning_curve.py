"""Learning curves: forecasts whose truth is known, and posteriors by another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from kcost.core.errors import InputError
from kcost.cost.learning_curve import DRAWS, EXPONENTS, fit_curve, price_of_score
from testing.label_curves import made_up

RISES_EVER_FASTER = {
    3_750.0: (0.8949, 0.8962, 0.8992, 0.9002, 0.9034),
    7_500.0: (0.9166, 0.9199, 0.9223, 0.9240, 0.9214),
    15_000.0: (0.9409, 0.9395, 0.9416, 0.9447, 0.9440),
    30_000.0: (0.9635, 0.9601, 0.9654, 0.9651, 0.9671),
}
"""A CNN on MNIST, three epochs: the floor that would explain it best is far below zero."""


def test_forecasts_of_twice_the_labels_hold_the_truth() -> None:
    held = 0
    for seed in range(100):
        scores, truth, _ = made_up(seed)
        forecast = fit_curve(scores, seed=1).at(8000, seeds=5)
        held += forecast.low <= truth <= forecast.high
    assert 82 <= held <= 97  # 90 of 100, within 2.5 standard deviations


def test_a_curve_without_scatter_is_recovered() -> None:
    scores = {float(n): [1 - (0.05 + 2 * n**-0.4)] * 2 for n in (200, 400, 800, 1600, 3200)}
    curve = fit_curve(scores)
    assert curve.at(12_800).score == pytest.approx(1 - (0.05 + 2 * 12_800**-0.4), abs=0.003)
    assert np.median(curve.floor) == pytest.approx(0.05, abs=0.02)
    point = price_of_score(curve, 3200, 0.01, 0.1)
    exact = (2 / (2 * 3200**-0.4 - 0.01)) ** (1 / 0.4)
    assert point.to_labels == pytest.approx(exact, rel=0.03)
    assert point.usd == pytest.approx((exact - 3200) * 0.1, rel=0.12)
    beyond = price_of_score(curve, 3200, 0.5, 0.1)
    assert (beyond.to_labels, beyond.usd) == (None, None)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "three sizes"),
        ({100.0: [0.5], 200.0: [0.6, 0.6, 0.6]}, "three sizes"),
        ({100.0: [0.5], 200.0: [0.6], 400.0: [0.7]}, "3 scores"),
        ({100.0: [0.5], 200.0: [1.0], 400.0: [0.7, 0.7]}, "less than 1"),
        ({-1.0: [0.5], 200.0: [0.6], 400.0: [0.7, 0.7]}, "positive number"),
        ({100.0: [0.9] * 9, 200.0: [0.5] * 9, 400.0: [0.1] * 9}, "Scores grow"),
    ],
)
def test_what_is_no_learning_curve_is_refused(scores: dict[float, list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_curve(scores)


def test_four_scores_that_fall_are_too_few_to_refuse() -> None:
    """Two degrees are left for their scatter, whose tails are long: six times as many such scores are refused."""
    falling = {100.0: [0.50], 200.0: [0.46], 400.0: [0.442, 0.438]}
    curve = fit_curve(falling)
    assert (curve.scale >= 0).all()
    assert (curve.floor >= 0).all()
    at = curve.at(400)
    assert at.low < 0.44 < at.high
    with pytest.raises(InputError, match="Scores grow"):
        fit_curve({size: values * 6 for size, values in falling.items()})


def test_a_forecast_and_a_gain_are_of_something() -> None:
    curve = fit_curve(made_up(0)[0])
    with pytest.raises(InputError, match="positive number of labels"):
        curve.at(0)
    with pytest.raises(InputError, match="gain"):
        price_of_score(curve, 100, 0, 1)


def mean_errors_by_grid(scores: Mapping[float, Sequence[float]], labels: float) -> tuple[float, float]:
    """Posterior means of the floor and of the error at a size: summed over a grid of curves, none of them drawn."""
    sizes = np.array([n for n, values in scores.items() for _ in values])
    errors = 1 - np.concatenate([np.asarray(values) for values in scores.values()])
    levels = np.array([errors[sizes == n].mean() for n in sizes])
    floors, scales = np.linspace(0, 0.06, 150), np.linspace(0, 0.12, 300)
    total = np.zeros(3)
    for exponent in EXPONENTS:
        curves = floors[:, None, None] + scales[None, :, None] * (sizes / sizes.max()) ** -exponent
        squares = (((errors - curves) / levels) ** 2).sum(axis=2)
        weights = (squares / 0.05) ** (-len(errors) / 2)
        at = floors[:, None] + scales[None, :] * (labels / sizes.max()) ** -exponent
        total += (weights.sum(), (weights * floors[:, None]).sum(), (weights * at).sum())
    return float(total[1] / total[0]), float(total[2] / total[0])


def test_scores_that_rise_ever_faster_are_drawn_as_often_as_all_others() -> None:
    """Of 200,000 free draws two had no negative floor: they were the whole forecast, as sure as it was wrong."""
    curve = fit_curve(RISES_EVER_FASTER)
    assert all(values.shape == (DRAWS,) for values in curve)
    assert (curve.floor >= 0).all()
    assert (curve.scale >= 0).all()
    floor, error = mean_errors_by_grid(RISES_EVER_FASTER, 60_000)
    assert curve.floor.mean() == pytest.approx(floor, abs=0.0004)
    assert curve.errors(60_000).mean() == pytest.approx(error, abs=0.0003)


def test_scores_that_level_off_have_the_posterior_of_the_grid() -> None:
    scores = {
        float(n): [1 - (0.03 + 0.05 * (n / 8000) ** -0.5) * f for f in (0.96, 1, 1.05)] for n in (1000, 3000, 8000)
    }
    curve = fit_curve(scores)
    floor, error = mean_errors_by_grid(scores, 16_000)
    assert curve.floor.mean() == pytest.approx(floor, abs=0.002)
    assert curve.errors(16_000).mean() == pytest.approx(error, abs=0.001)

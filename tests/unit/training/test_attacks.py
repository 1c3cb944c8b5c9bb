from __future__ import annotations

import numpy as np
import pytest

from kcost.training.attacks import Norm, direction, fgsm, pgd


def lengths(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.square(x.astype(float)).reshape(len(x), -1).sum(1)))


def test_directions_have_size_one_however_small_the_gradient() -> None:
    gradient = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    gradient[1] *= 1e-25
    gradient[2] = 0
    np.testing.assert_array_equal(direction(gradient, "linf"), np.sign(gradient))
    unit = direction(gradient, "l2")
    np.testing.assert_allclose(lengths(unit), [1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(unit[0] * lengths(gradient[:1]), gradient[0], rtol=1e-5)


def test_fgsm_moves_each_value_by_epsilon_and_stays_in_range() -> None:
    x = np.array([[0.5, 0.5, 0.95, 0.02]], np.float32)
    moved = fgsm(lambda x, labels: np.array([[2.0, -3.0, 1.0, -1.0]], np.float32), x, np.zeros(1), 0.1)
    np.testing.assert_allclose(moved, [[0.6, 0.4, 1.0, 0.0]], atol=1e-6)
    assert moved.dtype == np.float32


def test_fgsm_l2_moves_each_example_by_a_length_of_epsilon() -> None:
    x = np.random.default_rng(0).standard_normal((6, 7, 3)).astype(np.float32)
    moved = fgsm(lambda x, labels: 5 * x, x, np.zeros(6), 0.3, clip=None, norm="l2")
    np.testing.assert_allclose(lengths(moved - x), 0.3, rtol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_finds_the_worst_point_of_the_ball_and_never_leaves_it(norm: Norm) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0.4, 0.6, (5, 6)).astype(np.float32)
    goal = x + rng.choice([-1, 1], x.shape).astype(np.float32)
    seen = []

    def gradient(now: np.ndarray, labels: np.ndarray) -> np.ndarray:
        seen.append(now)
        return np.asarray(goal - now)  # the loss rises towards the goal

    moved = pgd(gradient, x, np.zeros(5), 0.2, steps=60, step_size=0.05, rng=rng, norm=norm)
    assert len(seen) == 60
    for point in [*seen, moved]:
        size = np.abs(point - x).max() if norm == "linf" else lengths(point - x).max()
        assert size <= 0.2 + 1e-6
    worst = x + 0.2 * (goal - x) / (1 if norm == "linf" else np.sqrt(6))
    np.testing.assert_allclose(moved, worst, atol=1e-3)
    assert moved.dtype == np.float32


def test_pgd_starts_at_random_where_it_may_and_stays_in_range() -> None:
    x = np.full((4, 5, 3), 0.05, np.float32)
    where = np.array([1, 1, 0, 0, 0])[None, :, None]

    def start(norm: Norm) -> np.ndarray:
        rng = np.random.default_rng(1)
        still = np.zeros_like(x)  # no gradient: what comes out is the start
        return pgd(lambda x, labels: still, x, np.zeros(4), 0.1, steps=1, step_size=1, rng=rng, norm=norm, where=where)

    for norm in ("linf", "l2"):
        first = start(norm)
        np.testing.assert_array_equal(first, start(norm))
        np.testing.assert_array_equal(first[:, 2:], x[:, 2:])
        assert (first[:, :2] != x[:, :2]).any()
        assert first.min() >= 0

"""Attacks that know the model's gradients: small changes of an input that raise the loss the most. Pure numpy."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import numpy as np

Norm = Literal["linf", "l2"]
"""How the size of a change is measured: the largest change of a value, or the Euclidean length for an example."""

GradientFn = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(x, labels) -> gradient of the loss with respect to x, of the shape of x: (n, ...)."""

Range = tuple[float, float]

TINY = 1e-30
"""Stands in for a divisor of zero; far below any gradient that matters."""


def fgsm(
    gradient_fn: GradientFn,
    x: np.ndarray,
    labels: np.ndarray,
    epsilon: float,
    *,
    clip: Range | None = (0.0, 1.0),
    norm: Norm = "linf",
) -> np.ndarray:
    """One step of size `epsilon` along the gradient of each example: x + epsilon * direction.

    Sources: Goodfellow, Shlens and Szegedy (2015), Explaining and Harnessing Adversarial Examples (`linf`);
    Miyato, Dai and Goodfellow (2017), Adversarial Training Methods for Semi-Supervised Text Classification (`l2`).

    Args:
        x: float32, shape (n, ...).
        clip: the range of valid inputs; None where every value is valid.
    """
    moved: np.ndarray = x + np.float32(epsilon) * direction(gradient_fn(x, labels), norm)
    return moved if clip is None else moved.clip(*clip)


def pgd(
    gradient_fn: GradientFn,
    x: np.ndarray,
    labels: np.ndarray,
    epsilon: float,
    *,
    steps: int,
    step_size: float,
    rng: np.random.Generator,
    clip: Range | None = (0.0, 1.0),
    norm: Norm = "linf",
    where: np.ndarray | None = None,
) -> np.ndarray:
    """`steps` steps along the gradient from a random start, each put back into the ball of size `epsilon` around x.

    Source: Madry et al. (2018), Towards Deep Learning Models Resistant to Adversarial Attacks.

    Args:
        x: float32, shape (n, ...).
        where: 1 or True where the random start may differ from x, 0 elsewhere; broadcast to x. None: everywhere.
        clip: the range of valid inputs; None where every value is valid.
    """
    change = _random_change(x.shape, epsilon, norm, rng, where)
    moved: np.ndarray = x + change if clip is None else (x + change).clip(*clip)
    for _ in range(steps):
        moved = moved + np.float32(step_size) * direction(gradient_fn(moved, labels), norm)
        moved = x + _within(moved - x, epsilon, norm)
        moved = moved if clip is None else moved.clip(*clip)
    return moved


def direction(gradient: Any, norm: Norm, ops: ModuleType = np) -> Any:
    """The change of size 1 that raises a linear loss the most: the sign, or the unit vector of each example.

    An example whose gradient is zero gets a change of zero.

    Args:
        gradient: shape (n, ...), an array of `ops`: numpy, or keras.ops for tensors.
    """
    if norm == "linf":
        return ops.sign(gradient)
    axes = tuple(range(1, len(gradient.shape)))
    # Scaled first: the squares of small gradients are 0 in float32.
    scaled = gradient / ops.maximum(ops.max(ops.abs(gradient), axis=axes, keepdims=True), TINY)
    return scaled / ops.maximum(ops.sqrt(ops.sum(ops.square(scaled), axis=axes, keepdims=True)), TINY)


def _random_change(
    shape: tuple[int, ...], epsilon: float, norm: Norm, rng: np.random.Generator, where: np.ndarray | None
) -> np.ndarray:
    """A change drawn from the ball: each value uniform for linf, a random direction and uniform length for l2."""
    if norm == "linf":
        change = rng.uniform(-epsilon, epsilon, shape)
        return (change if where is None else change * where).astype(np.float32)
    change = rng.standard_normal(shape)
    unit = direction(change if where is None else change * where, norm)
    length = rng.uniform(0, epsilon, (shape[0], *[1] * (len(shape) - 1)))
    return np.asarray(unit * length, np.float32)


def _within(change: np.ndarray, epsilon: float, norm: Norm) -> np.ndarray:
    """The nearest change in the ball."""
    if norm == "linf":
        return change.clip(-epsilon, epsilon)
    length = np.sqrt(np.square(change).sum(axis=tuple(range(1, change.ndim)), keepdims=True))
    return np.asarray(change * np.minimum(1, epsilon / np.maximum(length, TINY)), np.float32)

"""Which weights of an array stay: masks by importance, as tensorflow_model_optimization computes them. Pure numpy.

A score is an importance, 0 or more: |weight| for magnitude. A mask is bool, True where the weight stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np


def magnitude_mask(scores: np.ndarray, sparsity: float | np.floating) -> np.ndarray:
    """Keeps the scores that are at least as large as the k-th largest, k = round(size * (1 - sparsity)), at least 1.

    Scores equal to the k-th stay as well. The count is rounded in float32, halves to even.

    Args:
        scores: float32, any shape; at least one element.
        sparsity: share to drop, in [0, 1).
    """
    kept = np.round(np.float32(scores.size) * (np.float32(1) - np.float32(sparsity)))
    smallest = scores.size - max(1, int(kept))
    return np.asarray(scores >= np.partition(scores, smallest, axis=None)[smallest])


def global_masks(scores: Sequence[np.ndarray], sparsity: float | np.floating) -> list[np.ndarray]:
    """`magnitude_mask` over several arrays taken as one."""
    mask = magnitude_mask(np.concatenate([s.ravel() for s in scores]), sparsity)
    ends = np.cumsum([s.size for s in scores])[:-1]
    return [part.reshape(s.shape) for part, s in zip(np.split(mask, ends), scores, strict=True)]


def pattern_mask(scores: np.ndarray, kept: int, group: int) -> np.ndarray:
    """Keeps the `kept` largest of each `group` scores next to each other along axis 0; of equal ones the first.

    A last group that is cut short counts as filled up with zeros.

    Args:
        scores: float32, shape (inputs, ...).
    """
    rows = np.moveaxis(scores, 0, -1)
    filled = np.zeros((*rows.shape[:-1], -(-rows.shape[-1] // group) * group), rows.dtype)
    filled[..., : rows.shape[-1]] = rows
    groups = filled.reshape(-1, group)
    order = np.argsort(-groups, axis=1, kind="stable")
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, order[:, :kept], True, axis=1)
    return np.moveaxis(mask.reshape(filled.shape)[..., : rows.shape[-1]], -1, 0)


def block_mask(
    scores: np.ndarray, sparsity: float | np.floating, height: int, width: int, pooling: Literal["avg", "max"] = "avg"
) -> np.ndarray:
    """`magnitude_mask` over the blocks of a matrix, each scored by its mean or its largest score.

    Where the blocks do not fill the matrix, tensorflow_model_optimization pools with the missing rows shared between
    both ends, but lays the mask out from the first row on; so does this, for the same masks.

    Args:
        scores: float32, shape (inputs, outputs).
    """
    pooled = _pooled(_pooled(scores, height, pooling).T, width, pooling).T
    mask = magnitude_mask(pooled, sparsity)
    return mask.repeat(height, 0).repeat(width, 1)[: scores.shape[0], : scores.shape[1]]


def _pooled(scores: np.ndarray, size: int, pooling: str) -> np.ndarray:
    """Pools axis 0 in steps of `size`, with the padding that TensorFlow calls SAME."""
    count = -(-scores.shape[0] // size)
    first = (count * size - scores.shape[0]) // 2
    edges = [max(0, i * size - first) for i in range(count)]
    if pooling == "max":
        return np.asarray(np.maximum.reduceat(scores, edges, axis=0))
    lengths = np.diff([*edges, scores.shape[0]]).astype(scores.dtype)
    return np.asarray(np.add.reduceat(scores, edges, axis=0) / lengths[:, None])

"""Test examples that stand in the training split as well, exactly or nearly: a score on them says little."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from kcost.core.schema import Record
from kcost.risk.figures import SEED, Figure, share

SHINGLE = 3
"""Words that are held against each other at a time."""

NEAR_TEXTS = 0.8
"""Near texts share this part of their shingles: Jaccard's index."""

NEAR_ARRAYS = 0.02
"""Near arrays differ by at most this part of the range of all values: root of the mean squared difference."""

_DIMENSIONS = 8
_TOLD = 10
_WORD = re.compile(r"\w+")


class Leak(Record):
    """A test example and one of training that is like it."""

    test: int = Field(description="place in the split")
    train: int
    near: bool = Field(description="nearly equal, and not exactly")


class Leakage(Record):
    """What of a test split stands in the training split."""

    exact: int
    near: int
    share: Figure = Field(description="of test examples, either way")
    criterion: str
    examples: tuple[Leak, ...] = Field(description="the first few")


def leaked_texts(train: Sequence[str], test: Sequence[str], unit: str = "texts") -> Leakage:
    """Test texts that are in train: equal but for case, spaces and punctuation, or near by their shingles.

    Texts of fewer words than a shingle has are compared exactly alone.

    Source: Broder (1997), On the resemblance and containment of documents; the index is computed, not estimated.
    """
    keys: dict[tuple[str, ...], int] = {}
    sets: list[frozenset[tuple[str, ...]]] = []
    where = defaultdict(list)
    for i, text in enumerate(train):
        words = _words(text)
        keys.setdefault(words, i)
        sets.append(_shingles(words))
        for shingle in sets[-1]:
            where[shingle].append(i)
    leaks = []
    for j, text in enumerate(test):
        words = _words(text)
        if words in keys:
            leaks.append(Leak(test=j, train=keys[words], near=False))
            continue
        mine = _shingles(words)
        best = _nearest(mine, sets, where)
        if best is not None:
            leaks.append(Leak(test=j, train=best, near=True))
    return _leakage(leaks, len(test), unit, f"near: {NEAR_TEXTS:.0%} of runs of {SHINGLE} words in common")


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold())) or (text.strip(),)


def _shingles(words: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    return frozenset(words[i : i + SHINGLE] for i in range(len(words) - SHINGLE + 1))


def _nearest(
    mine: frozenset[tuple[str, ...]],
    sets: list[frozenset[tuple[str, ...]]],
    where: dict[tuple[str, ...], list[int]],
) -> int | None:
    """A text that shares enough. Of the rarest shingles, one that fits must hold one that is not among the most common
    (1 - NEAR_TEXTS) of them: only these are looked up."""
    if not mine:
        return None
    rare = sorted((s for s in mine), key=lambda s: len(where.get(s, ())))
    kept = rare[: int(len(mine) * (1 - NEAR_TEXTS)) + 1]
    for candidate in sorted({i for s in kept for i in where.get(s, ())}):
        theirs = sets[candidate]
        common = len(mine & theirs)
        if common >= NEAR_TEXTS * (len(mine) + len(theirs) - common):
            return candidate
    return None


def leaked_arrays(train: np.ndarray, test: np.ndarray, unit: str = "examples") -> Leakage:
    """Test arrays that are in train: equal, or near as NEAR_ARRAYS has it.

    Candidates are found in the eight directions in which the training examples vary most: a distance there is never
    longer than the whole one, so that none is missed.

    Args:
        train, test: shape (n, ...), numbers; one shape but for n.
    """
    from scipy.spatial import cKDTree

    a, b = (x.reshape(len(x), -1).astype(np.float32) for x in (train, test))
    low, high = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
    limit = NEAR_ARRAYS * (high - low) * a.shape[1] ** 0.5
    rng = np.random.default_rng(SEED)
    sample = a[rng.choice(len(a), min(len(a), 2000), replace=False)]
    _, _, directions = np.linalg.svd(sample - sample.mean(0), full_matrices=False)
    basis = directions[:_DIMENSIONS].T
    # A little more than the limit: sums of float32 are rounded.
    near = cKDTree(a @ basis).query_ball_point(b @ basis, limit * 1.001 + 1e-5 * (1 + abs(high)))
    leaks = []
    for j, candidates in enumerate(near):
        if not candidates:
            continue
        distances = np.linalg.norm(a[candidates].astype(np.float64) - b[j], axis=1)
        best = int(distances.argmin())
        if distances[best] <= limit:
            leaks.append(Leak(test=j, train=int(candidates[best]), near=bool(distances[best] > 0)))
    return _leakage(leaks, len(b), unit, f"near: a root mean squared difference of {NEAR_ARRAYS:.0%} of the range")


def _leakage(leaks: list[Leak], count: int, unit: str, criterion: str) -> Leakage:
    near = sum(leak.near for leak in leaks)
    return Leakage(
        exact=len(leaks) - near,
        near=near,
        share=share("leaked", len(leaks), count, unit),
        criterion=criterion,
        examples=tuple(leaks[:_TOLD]),
    )

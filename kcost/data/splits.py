"""Seeded, stratified ways to cut a data set into parts, and the search for examples that stand in two of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

import numpy as np

from kcost.core.errors import DataError
from kcost.data.sets import SPLITS

VALIDATION_SHARE = 0.1
"""Share of train that becomes validation where the source has none."""

TEST_SHARE = 0.2
"""Share of all that becomes test where the source has none."""

TEST_SEED = 0
"""Seed of that cut. Fixed, so that runs with different seeds are scored on the same test examples."""


def sample(groups: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Indices of `size` examples in random order, each group with its share (largest remainders).

    Args:
        groups: the group of each example, shape (n,), integers; all equal for a plain random sample.
        size: how many to take, at most n.
        seed: the same seed gives the same sample.

    Returns:
        Indices, shape (size,), int64, no index twice.
    """
    if not 0 <= size <= len(groups):
        raise ValueError(f"size is between 0 and {len(groups)}. Received: {size}")
    rng = np.random.default_rng(seed)
    names, counts = np.unique(groups, return_counts=True)
    quotas = counts * (size / max(len(groups), 1))
    take = np.floor(quotas).astype(np.int64)
    largest_remainders = np.argsort(take - quotas, kind="stable")[: size - take.sum()]
    take[largest_remainders] += 1
    chosen = [rng.permutation(np.flatnonzero(groups == name))[:n] for name, n in zip(names, take, strict=True)]
    return rng.permutation(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def cut(groups: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts off a stratified share: (indices that stay, indices cut off), both ascending, both int64.

    At least one example is cut off where there are two or more.
    """
    size = min(max(round(share * len(groups)), 1), max(len(groups) - 1, 0))
    taken = np.sort(sample(groups, size, seed))
    return np.setdiff1d(np.arange(len(groups)), taken), taken


def complete(groups: dict[str, np.ndarray], seed: int) -> tuple[dict[str, tuple[str, np.ndarray]], tuple[str, ...]]:
    """Finds train, validation and test in the parts that a source has.

    Args:
        groups: for each part of the source ("train" at least, "validation" and "test" if it has them) the
            stratification group of each example, shape (n,).
        seed: of the validation cut; the test cut has a fixed seed.

    Returns:
        For each of the three splits the part it is taken from and the indices in that part; and a note for
        each split that the source did not have.

    Raises:
        DataError: there are too few examples to have one in each split.
    """
    places = {name: (name, np.arange(len(labels))) for name, labels in groups.items()}
    notes = []
    for name, share, cut_seed in (("test", TEST_SHARE, TEST_SEED), ("validation", VALIDATION_SHARE, seed)):
        if name in places:
            continue
        _, train = places["train"]
        kept, taken = cut(groups["train"][train], share, cut_seed)
        places["train"], places[name] = ("train", train[kept]), ("train", train[taken])
        notes.append(f"{name}: {len(taken)} examples taken from train (seed {cut_seed}); the source has no such part")
    empty = [name for name in SPLITS if not len(places[name][1])]
    if empty:
        raise DataError(
            "Each of train, validation and test holds at least one example.",
            received=f"{ {name: len(labels) for name, labels in groups.items()} } examples, none left for {empty[0]}",
            remedy="Give more examples, or a file for each part.",
        )
    return {name: places[name] for name in SPLITS}, tuple(notes)


def duplicates(splits: Mapping[str, Iterable[Hashable]]) -> tuple[str, ...]:
    """One note for each pair of splits that share exact examples, none where they share nothing.

    Args:
        splits: for each split a key for each example; equal keys mean equal inputs.
    """
    keys = {name: list(examples) for name, examples in splits.items()}
    notes = []
    for i, first in enumerate(keys):
        seen = set(keys[first])
        for second in list(keys)[i + 1 :]:
            count = sum(key in seen for key in keys[second])
            if count:
                notes.append(f"{count} of {len(keys[second])} {second} examples stand in {first} too, exactly equal")
    return tuple(notes)

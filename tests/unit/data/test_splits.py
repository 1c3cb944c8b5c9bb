"""Samples, cuts and duplicates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import DataError
from kcost.data.splits import complete, cut, duplicates, sample

GROUPS = st.lists(st.integers(0, 4), max_size=60).map(np.array)


@given(GROUPS, st.floats(0, 1), st.integers(0, 5))
def test_a_sample_keeps_each_group_at_its_share(groups, share, seed):
    size = int(share * len(groups))
    chosen = sample(groups, size, seed)
    assert len(chosen) == len(set(chosen.tolist())) == size
    assert np.array_equal(chosen, sample(groups, size, seed))
    for group in set(groups.tolist()):
        exact = (groups == group).sum() * size / len(groups)
        assert abs((groups[chosen] == group).sum() - exact) < 1


@given(GROUPS, st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_cut_loses_nothing(groups, share, seed):
    kept, taken = cut(groups, share, seed)
    assert sorted([*kept, *taken]) == list(range(len(groups)))
    assert (len(taken) >= 1) == (len(groups) >= 2)


def test_a_sample_depends_on_its_seed_and_is_shuffled():
    groups = np.zeros(50, int)
    assert sample(groups, 10, 0).tolist() != sample(groups, 10, 1).tolist()
    groups[25:] = 1
    order = groups[sample(groups, 50, 0)].tolist()
    assert order not in (sorted(order), sorted(order, reverse=True))
    with pytest.raises(ValueError, match="between 0 and 50"):
        sample(groups, 51, 0)


def test_parts_that_are_there_are_left_whole():
    parts = {"train": np.zeros(10, int), "validation": np.zeros(3, int), "test": np.zeros(4, int)}
    places, notes = complete(parts, seed=0)
    assert {name: (part, len(indices)) for name, (part, indices) in places.items()} == {
        "train": ("train", 10),
        "validation": ("validation", 3),
        "test": ("test", 4),
    }
    assert notes == ()


def test_parts_that_are_missing_come_from_train_without_overlap():
    places, notes = complete({"train": np.arange(100) % 10}, seed=4)
    indices = np.concatenate([at for _, at in places.values()])
    assert sorted(indices) == list(range(100))
    assert [len(at) for _, at in places.values()] == [72, 8, 20]
    assert notes == (
        "test: 20 examples taken from train (seed 0); the source has no such part",
        "validation: 8 examples taken from train (seed 4); the source has no such part",
    )


@pytest.mark.parametrize("size", [0, 1, 2])
def test_too_few_examples(size):
    with pytest.raises(DataError, match="at least one example"):
        complete({"train": np.zeros(size, int)}, seed=0)


def test_duplicates_are_counted_for_each_pair_of_splits():
    assert duplicates({"train": "abca", "validation": "xyb", "test": "aaxq"}) == (
        "1 of 3 validation examples stand in train too, exactly equal",
        "2 of 4 test examples stand in train too, exactly equal",
        "1 of 4 test examples stand in validation too, exactly equal",
    )
    assert duplicates({"train": "ab", "validation": "c", "test": "d"}) == ()

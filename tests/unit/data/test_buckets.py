"""Batches of sentences of like length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.data.buckets import bucket_batches, bucket_lengths, padding_saved


def test_bucket_lengths():
    assert bucket_lengths(64) == (16, 32, 48, 64)
    assert bucket_lengths(50) == (16, 32, 48, 50)
    assert bucket_lengths(10) == (10,)
    assert bucket_lengths(16) == (16,)


@given(st.lists(st.integers(2, 64), max_size=200).map(np.array), st.integers(1, 40), st.integers(0, 3))
def test_every_example_once_none_cut_few_shapes(lengths, batch_size, seed):
    buckets = bucket_lengths(64)
    batches = bucket_batches(lengths, batch_size, buckets, seed)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))
    for batch in batches:
        assert batch.length in buckets
        assert lengths[batch.indices].max() <= batch.length
    small = [batch for batch in batches if len(batch.indices) < batch_size]
    assert len(small) <= 1
    assert len({(len(batch.indices), batch.length) for batch in batches}) <= len(buckets) + 1
    if small:
        assert small[0].length == min(bucket for bucket in buckets if bucket >= lengths.max())
    assert 0 <= padding_saved(batches, 64) < 1


def test_padding_saved_counts_positions():
    batches = bucket_batches(np.array([10] * 4 + [60] * 4), 4, (16, 64), seed=0)
    assert sorted(batch.length for batch in batches) == [16, 64]
    assert padding_saved(batches, 64) == 1 - (4 * 16 + 4 * 64) / (8 * 64)
    assert padding_saved((), 64) == 0


def test_the_order_depends_on_the_seed():
    lengths = np.arange(2, 62)
    orders = [[batch.indices.tolist() for batch in bucket_batches(lengths, 8, (16, 32, 64), s)] for s in (0, 0, (0, 1))]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(
    ("lengths", "batch_size", "buckets", "message"),
    [([5], 0, (8,), "positive"), ([5], 2, (), "ascend"), ([5], 2, (8, 8), "ascend"), ([9], 2, (8,), "longer")],
)
def test_bad_arguments(lengths, batch_size, buckets, message):
    with pytest.raises(ValueError, match=message):
        bucket_batches(np.array(lengths), batch_size, buckets, 0)

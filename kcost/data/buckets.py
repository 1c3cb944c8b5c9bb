"""Batches of sentences of like length: less padding to compute, and few shapes to compile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples that are run together, padded to one length.

    Attributes:
        indices: of the examples, shape (batch,), int64.
        length: positions that each is padded to.
    """

    indices: np.ndarray
    length: int


def bucket_lengths(max_length: int, multiple: int = 16) -> tuple[int, ...]:
    """The lengths that batches are padded to: multiples of `multiple`, and `max_length` as the last."""
    return (*range(multiple, max_length, multiple), max_length)


def bucket_batches(
    lengths: np.ndarray, batch_size: int, buckets: Sequence[int], seed: int | Sequence[int]
) -> tuple[Batch, ...]:
    """Batches of one epoch, in random order; each example stands in exactly one.

    Each example goes to the smallest bucket that holds it. What does not fill a batch moves up to the next bucket,
    so that at most one batch, of the largest bucket in use, is smaller than `batch_size`: there are at most
    len(buckets) + 1 shapes.

    Args:
        lengths: positions of each example that are not padding, shape (n,), integers.
        batch_size: examples a batch.
        buckets: the lengths to pad to, ascending.
        seed: of the order; another one for each epoch, for example (seed, epoch).

    Raises:
        ValueError: an example is longer than the last bucket, the buckets do not ascend, or `batch_size` is not
            positive.
    """
    lengths, edges = np.asarray(lengths), np.asarray(buckets)
    if batch_size < 1:
        raise ValueError(f"batch_size is positive. Received: {batch_size}")
    if not len(edges) or (np.diff(edges) <= 0).any():
        raise ValueError(f"buckets ascend. Received: {tuple(buckets)}")
    if lengths.max(initial=0) > edges[-1]:
        raise ValueError(f"No example is longer than the last bucket, {edges[-1]}. Received: {lengths.max()}")
    rng = np.random.default_rng(seed)
    bucket_of = np.searchsorted(edges, lengths)
    batches: list[Batch] = []
    waiting = np.empty(0, dtype=np.int64)
    for bucket, length in enumerate(edges.tolist()):
        waiting = np.concatenate([rng.permutation(np.flatnonzero(bucket_of == bucket)), waiting])
        full = len(waiting) // batch_size * batch_size
        batches += [Batch(part, length) for part in waiting[:full].reshape(-1, batch_size)]
        waiting = waiting[full:]
        if len(waiting) and not (bucket_of > bucket).any():
            batches.append(Batch(waiting, length))
            break
    return tuple(batches[i] for i in rng.permutation(len(batches)))


def padding_saved(batches: Sequence[Batch], max_length: int) -> float:
    """Share of positions that bucketing spares, against padding every example to `max_length`: 0 to 1."""
    examples = sum(len(batch.indices) for batch in batches)
    computed = sum(len(batch.indices) * batch.length for batch in batches)
    return 1 - computed / (examples * max_length) if examples else 0.0

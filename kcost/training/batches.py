"""Batches for Keras's fit and predict, the same on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kcost.data.buckets import bucket_batches, bucket_lengths, padding_saved

Arrays = np.ndarray | dict[str, np.ndarray]

Plan = Callable[[int], list[tuple[np.ndarray, int | None]]]
"""Epoch number -> its batches: the rows of each, and the length that sequences are cut to (None: as they are)."""

Transform = Callable[[Arrays, np.ndarray, int, int], tuple[Arrays, np.ndarray]]
"""(inputs, labels, epoch, index of the batch) -> inputs and labels to train on, of the same shapes and dtypes."""


class ArrayBatches(keras.utils.PyDataset):  # type: ignore[misc]  # keras has no types
    """Batches cut from arrays. Which rows go together in an epoch depends on the epoch's number alone."""

    transform: Transform | None
    """Changes each batch as it is taken, for augmentation."""

    soft_targets: np.ndarray | None = None
    """Probabilities to learn from as well, shape (*labels, classes): labels come as (*labels, 1 + classes) then."""

    def __init__(self, inputs: Arrays, labels: np.ndarray, plan: Plan, transform: Transform | None = None) -> None:
        """`plan` gives the batches of an epoch by its number, from 0 on; each epoch has as many."""
        super().__init__()
        self._inputs, self._labels, self._plan = inputs, labels, plan
        self.transform = transform
        self._epoch = 0
        self._batches = plan(0)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        rows, length = self._batches[index]
        if isinstance(self._inputs, dict):
            inputs: Arrays = {n: a[rows, :length] for n, a in self._inputs.items()}
        else:
            inputs = self._inputs[rows]
        labels = self._of(self._labels, rows, length)
        if self.transform is not None:
            inputs, labels = self.transform(inputs, labels, self._epoch, index)
        if self.soft_targets is not None:
            soft = self._of(self.soft_targets, rows, length).astype(np.float32)
            labels = np.concatenate([labels[..., None].astype(np.float32), soft], axis=-1)
        return inputs, labels

    def _of(self, targets: np.ndarray, rows: np.ndarray, length: int | None) -> np.ndarray:
        """The targets of some rows, with one for each position where there are such labels."""
        return targets[rows] if self._labels.ndim == 1 else targets[rows, :length]

    def rows(self, index: int) -> tuple[np.ndarray, int | None]:
        """The rows of a batch of this epoch, and the length that their sequences are cut to."""
        return self._batches[index]

    def start_at(self, epoch: int) -> None:
        """Goes to an epoch, for a run that resumes."""
        self._epoch = epoch
        self._batches = self._plan(epoch)

    def on_epoch_end(self) -> None:
        """Keras calls this after each epoch."""
        self.start_at(self._epoch + 1)


def shuffled(count: int, batch_size: int, seed: int | None) -> Plan:
    """A plan over `count` rows, shuffled by seed and epoch; in order where `seed` is None.

    The last batch may be smaller. Compiled backends compile it once more.
    """

    def plan(epoch: int) -> list[tuple[np.ndarray, int | None]]:
        order = np.arange(count) if seed is None else np.random.default_rng((seed, epoch)).permutation(count)
        return [(order[i : i + batch_size], None) for i in range(0, count, batch_size)]

    return plan


def _buckets(max_length: int) -> tuple[int, ...]:
    """The lengths that sequences are padded to.

    XLA compiles a step for each, which takes longer than finer buckets spare; torch takes any length at once.
    """
    return bucket_lengths(max_length, 8 if keras.backend.backend() == "torch" else 16)


def shortest_bucket(length: int, max_length: int) -> int:
    """The length that sequences of up to `length` positions are padded to."""
    return next(n for n in _buckets(max_length) if n >= length)


def share_saved(lengths: np.ndarray, max_length: int, batch_size: int = 32) -> float:
    """Share of positions that length buckets spare in an epoch, against padding all to `max_length`: 0 to 1.

    Args:
        lengths: positions of each example that are not padding, shape (n,), integers.
        max_length: what all would be padded to.
        batch_size: examples a batch; a larger one moves more examples to a longer bucket.
    """
    return padding_saved(bucket_batches(lengths, batch_size, _buckets(max_length), 0), max_length)


def bucketed(lengths: np.ndarray, batch_size: int, max_length: int, seed: int | None) -> Plan:
    """A plan that puts sequences of like length together; the same each epoch where `seed` is None."""

    def plan(epoch: int) -> list[tuple[np.ndarray, int | None]]:
        epoch_seed = 0 if seed is None else (seed, epoch)
        batches = list(bucket_batches(lengths, batch_size, _buckets(max_length), epoch_seed))
        # Keras's tensorflow trainer takes an axis for fixed unless the first two batches differ in it.
        other = next((i for i, b in enumerate(batches) if b.length != batches[0].length), None)
        if other is not None:
            batches[1], batches[other] = batches[other], batches[1]
        return [(b.indices, b.length) for b in batches]

    return plan

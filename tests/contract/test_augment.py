"""Augmentation as training meets it: in the batches."""

from __future__ import annotations

import keras
import numpy as np

from kcost.models.cnn import cnn
from kcost.training.augment import augment, augmentation
from kcost.training.batches import ArrayBatches, shuffled


def make(transform: object = None) -> ArrayBatches:
    x = np.random.default_rng(0).random((10, 8, 8, 1), dtype=np.float32)
    return ArrayBatches(x, np.arange(10), shuffled(10, 4, 7), transform)  # type: ignore[arg-type]


def test_batches_are_augmented_anew_each_epoch_and_the_same_for_the_same_seed() -> None:
    plain, changed, again = make(), make(augmentation(7, flip=False)), make(augmentation(7, flip=False))
    for epoch in range(2):
        for index in range(3):
            images, labels = changed[index]
            expected, expected_labels = plain[index]
            np.testing.assert_array_equal(labels, expected_labels)
            np.testing.assert_array_equal(images, again[index][0])
            # The numbers are those of (seed, epoch, batch): nothing of the backend goes in.
            rng = np.random.default_rng((7, epoch, index, 1))
            np.testing.assert_array_equal(images, augment(expected, rng, flip=False))
        for batches in (plain, changed, again):
            batches.on_epoch_end()


def test_a_model_is_fitted_to_augmented_batches() -> None:
    seen: list[tuple[int, int]] = []
    transform = augmentation(0, flip=True)

    def noting(inputs: object, labels: np.ndarray, epoch: int, index: int) -> object:
        seen.append((epoch, index))
        return transform(inputs, labels, epoch, index)  # type: ignore[arg-type]

    model = cnn((8, 8, 1), 10)
    model.compile(keras.optimizers.Adam(1e-2), loss="sparse_categorical_crossentropy")
    losses = model.fit(make(noting), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    # Keras takes a few batches before it trains, so that it may begin with a later epoch: three whole ones are seen.
    epochs = {epoch for epoch, _ in seen}
    assert sum({(epoch, index) for index in range(3)} <= set(seen) for epoch in epochs) >= 3

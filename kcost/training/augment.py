"""Random changes to training images, made on the host in numpy: the same on every backend for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kcost.training.batches import Arrays, Transform

ROTATION_DEGREES = 10.0
SHIFT_FRACTION = 0.1

DIGIT_SETS = ("digits", "mnist")
"""Data sets whose images change their meaning in a mirror."""

_STREAM = 1
"""Keeps these draws apart from those of the order of an epoch, which are made from (seed, epoch)."""


def augmentation(seed: int, *, flip: bool, strength: float = 1.0) -> Transform:
    """A transform for `ArrayBatches`: `augment` with draws that depend on (seed, epoch, index of the batch) alone."""

    def transform(inputs: Arrays, labels: np.ndarray, epoch: int, index: int) -> tuple[Arrays, np.ndarray]:
        if isinstance(inputs, dict):
            raise TypeError(f"Augmentation is for images. Received: arrays {sorted(inputs)}")
        rng = np.random.default_rng((seed, epoch, index, _STREAM))
        return augment(inputs, rng, flip=flip, strength=strength), labels

    return transform


def augment(images: np.ndarray, rng: np.random.Generator, *, flip: bool, strength: float = 1.0) -> np.ndarray:
    """Rotates and shifts each image at random, and mirrors half of them left to right where `flip` is set.

    Rotations are uniform in +-ROTATION_DEGREES about the centre, shifts uniform in +-SHIFT_FRACTION of height and
    width. What comes in from outside an image is 0.

    Args:
        images: float32 in [0, 1], shape (n, height, width, channels).
        flip: whether half of them are mirrored.
        strength: factor of both ranges; 0 leaves rotation and shifts out.

    Returns:
        New images of the same shape, dtype and range.
    """
    count, height, width, _ = images.shape
    angles = np.deg2rad(strength * rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, count))
    down = strength * rng.uniform(-SHIFT_FRACTION, SHIFT_FRACTION, count) * height
    right = strength * rng.uniform(-SHIFT_FRACTION, SHIFT_FRACTION, count) * width
    if flip:
        mirrored = rng.random((count, 1, 1, 1)) < 0.5
        images = np.where(mirrored, images[:, :, ::-1], images)
    return rotate_and_shift(images, angles, down, right)


def rotate_and_shift(images: np.ndarray, angles: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Rotates each image about its centre, then shifts it: one bilinear interpolation, zeros outside.

    The same as scipy.ndimage.rotate (reshape=False) and then shift, with order=1 and mode="grid-constant".

    Args:
        images: float32 in [0, 1], shape (n, height, width, channels).
        angles: radians, positive is counterclockwise, shape (n,).
        down, right: pixels, shape (n,).
    """
    count, height, width, channels = images.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    # Where each pixel of the result comes from: the shift undone, then the rotation.
    y = (np.arange(height) - middle_y - down[:, None])[:, :, None].astype(np.float32)
    x = (np.arange(width) - middle_x - right[:, None])[:, None, :].astype(np.float32)
    cos, sin = (f(angles)[:, None, None].astype(np.float32) for f in (np.cos, np.sin))
    # A border of zeros takes in all that falls outside; coordinates count from it.
    from_y = (cos * y + sin * x + (middle_y + 1)).clip(0, height + 1)
    from_x = (cos * x - sin * y + (middle_x + 1)).clip(0, width + 1)
    bordered = np.zeros((count, height + 2, width + 2, channels), np.float32)
    bordered[:, 1:-1, 1:-1] = images
    top, left = np.minimum(np.floor(from_y), height), np.minimum(np.floor(from_x), width)
    below, beside = (from_y - top)[..., None], (from_x - left)[..., None]
    pixels = bordered.reshape(-1, channels)
    row = width + 2
    corner = np.arange(count)[:, None, None] * ((height + 2) * row) + top.astype(np.int64) * row + left.astype(np.int64)
    upper = pixels.take(corner, 0) * (1 - beside) + pixels.take(corner + 1, 0) * beside
    lower = pixels.take(corner + row, 0) * (1 - beside) + pixels.take(corner + row + 1, 0) * beside
    moved: np.ndarray = upper * (1 - below) + lower * below
    return moved.clip(0, 1, out=moved)  # rounding may pass 1 by one unit in the last place


def flip_warning(data_name: str) -> str | None:
    """A warning where images of this data set should not be mirrored, else None."""
    if data_name not in DIGIT_SETS:
        return None
    return (
        f"Mirrored digits are no digits: half of the training images of {data_name} will be mirrored and keep their "
        "labels. Leave --flip out."
    )

"""Puts the pixels of an image set into the scale that a model takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kcost.core.errors import DataError
from kcost.core.pixels import Pixels, PixelScale
from kcost.data.sets import Images, ImageSet

LEAST_STD = 1e-6
"""Of pixels in [0, 1]: below it all of them are equal, and nothing is to be divided by."""


def pixels_of(images: ImageSet, scale: PixelScale, why: str) -> Pixels:
    """What a scale means for a data set whose images are in [0, 1].

    Args:
        why: who said so, as the end of a sentence.

    Raises:
        DataError: `mean-std` of images that are all one grey, or `as-is` of parts that are stored in different scales.
    """
    if scale == "0-255":
        return Pixels(scale=scale, factor=255.0, why=why)
    if scale == "as-is":
        if images.stored_white is None:
            raise DataError(
                "Pixels are fed as they are where all parts of a data set are stored in one scale.",
                received=f"{images.name} with parts in 0 to 1 and in 0 to 255",
                remedy="Save them in one scale, or name 0-1 or 0-255.",
            )
        return Pixels(scale=scale, factor=images.stored_white, why=why)
    if scale == "mean-std":
        train = images.splits["train"].x
        mean, std = float(train.mean(dtype=np.float64)), float(train.std(dtype=np.float64))
        if std < LEAST_STD:
            raise DataError(
                "Pixels are divided by their standard deviation where they differ.",
                received=f"{images.name}, whose training images are all {mean:g}",
                remedy="Check the images, or name another scale.",
            )
        return Pixels(scale=scale, factor=1 / std, offset=-mean / std, why=why)
    return Pixels(scale=scale, why=why)


def scaled(images: ImageSet, pixels: Pixels, dtype: str = "float32") -> ImageSet:
    """The data set with its pixels in that scale, and a note of it in its record. `images` are in [0, 1].

    Args:
        dtype: of the model's input; whole numbers are rounded to, and others stay float32.
    """
    splits = {split: Images(_scaled(part.x, pixels, dtype), part.y) for split, part in images.splits.items()}
    record = images.record.model_copy(update={"notes": (*images.record.notes, str(pixels))})
    return replace(images, splits=splits, record=record, pixels=pixels)


def values_of_bytes(pixels: Pixels, dtype: str = "float32") -> np.ndarray:
    """What a model takes for each value of a byte of an image, shape (256,), float32 or the whole numbers of `dtype`.

    The numbers are those that images of whole numbers in 0 to 255 become when they are loaded and then scaled.

    Examples:
        >>> values_of_bytes(Pixels(scale="0-255", factor=255.0, why="as said"))[[0, 255]].tolist()
        [0.0, 255.0]
    """
    return _scaled(np.arange(256, dtype=np.uint8).astype(np.float32) / np.float32(255), pixels, dtype)


def _scaled(x: np.ndarray, pixels: Pixels, dtype: str) -> np.ndarray:
    if pixels.factor != 1 or pixels.offset != 0:
        x = x * np.float32(pixels.factor) + np.float32(pixels.offset)
    if "int" not in dtype:
        return x
    limits = np.iinfo(dtype)
    whole: np.ndarray = np.rint(x).clip(limits.min, limits.max).astype(dtype)
    return whole

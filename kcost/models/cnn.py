"""A convolutional image classifier."""

from __future__ import annotations

import keras

from kcost.core.errors import InputError

SIZES = ("seed", "small")


SMALL_DROPOUT = 0.2


def cnn(
    image_shape: tuple[int, int, int], classes: int, size: str = "seed", dropout: float | None = None
) -> keras.Model:
    """A classifier from images (batch, height, width, channels), float32 in [0, 1], to class probabilities.

    Args:
        image_shape: height, width and channels.
        classes: number of classes; the output is float32 of shape (batch, classes).
        size: `seed` is one convolution of 32 filters, pooling and a dense softmax. `small` has two blocks
            of two convolutions with batch normalisation and one more convolution at the lowest resolution, where it
            costs least, for harder sets; under 100,000 parameters.
        dropout: before the dense layer of `small`, None for SMALL_DROPOUT; `seed` has none.

    Raises:
        InputError: an unknown size, images too small for its pooling, or a dropout for `seed`.
    """
    if size not in SIZES:
        raise InputError(f"A cnn has one of the sizes {', '.join(SIZES)}.", received=repr(size))
    least = 4 if size == "seed" else 8
    if min(image_shape[:2]) < least:
        raise InputError(f"A cnn of size {size} takes images of at least {least} x {least}.", received=image_shape)
    if size == "seed" and dropout is not None:
        raise InputError("A cnn of size seed has no dropout.", dropout, "Leave --dropout out, or take --size small.")
    images = keras.Input(image_shape, name="images")
    x = images
    if size == "seed":
        x = keras.layers.Conv2D(32, 3, activation="relu", name="conv")(x)
        x = keras.layers.MaxPooling2D(2, name="pool")(x)
        x = keras.layers.Flatten(name="flatten")(x)
    else:
        x = _block(x, filters=32, name="block1")
        x = _block(x, filters=64, name="block2")
        x = _convolution(x, filters=48, name="last")
        x = keras.layers.GlobalAveragePooling2D(name="average")(x)
        x = keras.layers.Dropout(SMALL_DROPOUT if dropout is None else dropout, name="dropout")(x)
    probabilities = keras.layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(images, probabilities, name=f"cnn_{size}")


def _block(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    for i in ("1", "2"):
        x = _convolution(x, filters, name, i)
    return keras.layers.MaxPooling2D(2, name=f"{name}_pool")(x)


def _convolution(x: keras.KerasTensor, filters: int, name: str, number: str = "") -> keras.KerasTensor:
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv{number}")(x)
    x = keras.layers.BatchNormalization(name=f"{name}_norm{number}")(x)
    return keras.layers.ReLU(name=f"{name}_relu{number}")(x)

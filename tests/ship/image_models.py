"""Writes a SavedModel that reads files of images as an export does: `python -m tests.ship.image_models OUT`.

Its signatures are grey, colour, scaled and whole: 6 by 5 pixels of one or three channels, in a scale of its own, and as
whole numbers.
"""

import sys
from pathlib import Path

import tensorflow as tf

from kcost.core.pixels import UNIT, Pixels
from kcost.worker.convert.image_bytes import decode_images

HEIGHT, WIDTH = 6, 5
SCALED = Pixels(scale="mean-std", factor=1 / 0.3081, offset=-0.1307 / 0.3081, why="as said")
WHOLE = Pixels(scale="0-255", factor=255.0, why="as said")
FORMS = {
    "grey": (1, UNIT, "float32"),
    "colour": (3, UNIT, "float32"),
    "scaled": (3, SCALED, "float32"),
    "whole": (3, WHOLE, "uint8"),
}


def main(out: Path) -> None:
    module = tf.Module()
    functions = {name: reading(*form) for name, form in FORMS.items()}
    for name, function in functions.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(out), functions)


def reading(channels: int, pixels: Pixels, dtype: str):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def read(files):
        return {"images": decode_images(files, (HEIGHT, WIDTH, channels), pixels, dtype)}

    return read


if __name__ == "__main__":
    main(Path(sys.argv[1]))

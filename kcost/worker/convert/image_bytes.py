"""Decodes PNG and JPEG files within a graph, to the numbers that `kcost.data` reads from them.

What kcost's data reading refuses, or what Pillow and TensorFlow read differently, is refused here: an image of another
size, one of colours for a model of grey, 16 bits a channel, CMYK. kcost's data reading resizes nothing.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kcost.core.pixels import Pixels
from kcost.data.pixels import values_of_bytes

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_HEADER_BYTES = 33
"""Signature, and the first chunk with its checksum: it says size, depth and kind of colours."""

_DEPTH_AT = 24
_GREY, _GREY_ALPHA, _COLOUR_ALPHA = 0, 4, 6
"""Colour types of a PNG."""

_CHUNK_BYTES = 12
"""Of a PNG's chunk, besides what is in it: its length, its name, and a checksum."""


def decode_images(files: Any, shape: tuple[int, int, int], pixels: Pixels, dtype: str) -> Any:
    """Images of files, as a model takes them.

    Args:
        files: contents of PNG and JPEG files, shape (n,), strings.
        shape: height, width and channels (1 or 3) of the model's images.
        pixels: their scale.
        dtype: of the model's input.

    Returns:
        Shape (n, *shape).
    """
    table = values_of_bytes(pixels, dtype)
    images = tf.map_fn(
        lambda content: _decoded(content, shape), files, fn_output_signature=tf.TensorSpec(shape, tf.uint8)
    )
    return tf.gather(table, tf.cast(images, tf.int32))


def _decoded(content: Any, shape: tuple[int, int, int]) -> Any:
    is_png = tf.strings.substr(content, 0, len(_PNG)) == _PNG
    is_jpeg = tf.strings.substr(content, 0, len(_JPEG)) == _JPEG
    content = _if(is_png | is_jpeg, content, "An image is the content of a PNG or a JPEG file.")
    image = tf.cond(is_png, lambda: _png(content, shape[2]), lambda: _jpeg(content, shape[2]))
    size = tf.shape(image)
    rule = f"An image is {shape[0]} pixels high and {shape[1]} wide, as in training. These are its pixels:"
    image = _if(tf.reduce_all(size == shape), image, rule, size[:2])
    image.set_shape(shape)  # what was just asserted; an operation that asserts it again might speak first
    return image


def _if(condition: Any, value: Any, rule: str, *more: Any) -> Any:
    """The value; an error with the rule in its place where the condition does not hold."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [rule, *more])]):
        return tf.identity(value)


def _png(content: Any, channels: int) -> Any:
    content = _if(tf.strings.length(content) >= _PNG_HEADER_BYTES, content, "A PNG file is cut short.")
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(content, _DEPTH_AT, 2), tf.uint8), tf.int32)
    depth, colours = header[0], header[1]
    content = _if(depth <= 8, content, "A PNG file has at most 8 bits a channel. It has", depth)
    is_grey = (colours == _GREY) | (colours == _GREY_ALPHA)
    has_palette_alpha = _has_chunk(content, b"tRNS")
    # Of grey with 2 or 4 bits, Pillow compares the transparent value with one that is scaled already.
    is_read_alike = ~has_palette_alpha | ~is_grey | (depth == 1) | (depth == 8)
    content = _if(is_read_alike, content, "A grey PNG file of 2 or 4 bits has no transparent pixels.")
    has_alpha = has_palette_alpha | (colours == _GREY_ALPHA) | (colours == _COLOUR_ALPHA)
    # Four channels are asked for where the file has an alpha: the one that TensorFlow adds to few bits is none.
    image = tf.cond(has_alpha, lambda: _over_white(content), lambda: tf.io.decode_png(content, channels=3))
    return _channels(image, is_grey, channels)


def _has_chunk(content: Any, name: bytes) -> Any:
    """Whether a PNG file has such a chunk before its pixels."""
    octets = tf.cast(tf.io.decode_raw(content, tf.uint8), tf.int32)
    end = tf.size(octets)
    wanted, pixels = (tf.constant(list(chunk)) for chunk in (name, b"IDAT"))

    def is_further(at: Any, has: Any) -> Any:
        return ~has & (at >= 0) & (at + _CHUNK_BYTES <= end)

    def step(at: Any, has: Any) -> tuple[Any, Any]:
        length = tf.reduce_sum(octets[at : at + 4] * [1 << 24, 1 << 16, 1 << 8, 1])
        here = octets[at + 4 : at + 8]
        is_over = tf.reduce_all(here == pixels) | (length < 0) | (length > end)
        return tf.where(is_over, -1, at + _CHUNK_BYTES + length), tf.reduce_all(here == wanted)

    _, has = tf.while_loop(is_further, step, (len(_PNG), False))
    return has


def _over_white(content: Any) -> Any:
    """A PNG file with its transparent pixels drawn over white, with the rounding of Pillow's alpha_composite."""
    image = tf.cast(tf.io.decode_png(content, channels=4), tf.int32)
    alpha = image[..., 3:]
    return tf.cast(_divided_by_255(image[..., :3] * alpha + 255 * (255 - alpha)), tf.uint8)


def _divided_by_255(values: Any) -> Any:
    """As Pillow's SHIFTFORDIV255 does with 7 more bits of precision."""
    wide = (values + 128) * 128
    return tf.bitwise.right_shift(tf.bitwise.right_shift(tf.bitwise.right_shift(wide, 8) + wide, 8), 7)


def _jpeg(content: Any, channels: int) -> Any:
    components = tf.io.extract_jpeg_shape(content)[2]
    is_read_alike = (components == 1) | (components == 3)
    content = _if(is_read_alike, content, "A JPEG file is grey or of three colours. Its channels are", components)
    # The integer transform and the smooth upsampling of chroma are what Pillow's decoder takes.
    image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True)
    return _channels(image, components == 1, channels)


def _channels(image: Any, is_grey: Any, channels: int) -> Any:
    if channels == 3:
        return image
    return _if(is_grey, image[..., :1], "An image is grey, as in training. It has colours.")

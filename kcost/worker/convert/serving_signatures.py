"""The signatures beside `serving_default`, that take files of images and texts; or why a model has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kcost.core.conversion import IMAGE_SIGNATURE, TEXT_SIGNATURE, LeftOut, ServingRequest, Tagging
from kcost.core.entities import OUTSIDE
from kcost.core.errors import KcostError
from kcost.core.pixels import Pixels
from kcost.data.text_tables import TextTables, text_tables
from kcost.data.tokenizer_files import read_tokenizer
from kcost.worker.convert.endpoint import ModelInput
from kcost.worker.convert.image_bytes import decode_images
from kcost.worker.convert.saved_model import MoreSignature, Serve
from kcost.worker.convert.tag_graph import entities
from kcost.worker.convert.text_graph import by_row, encode_texts

IMAGE_INPUT, TEXT_INPUT = "image_bytes", "text"

_TOKEN_INPUTS = {"token_ids", "segment_ids", "padding_mask"}


def more_signatures(
    request: ServingRequest, inputs: Sequence[ModelInput], outputs: Sequence[str]
) -> tuple[list[MoreSignature], list[LeftOut]]:
    """The signatures that a model can have beside `serving_default`, and those that it could be asked for and has not.

    Args:
        inputs, outputs: of the model's `serving_default`.
    """
    made: list[MoreSignature] = []
    left_out: list[LeftOut] = []
    if request.pixels is not None:
        reason = _no_images(inputs)
        if reason is None:
            made.append(MoreSignature(IMAGE_SIGNATURE, IMAGE_INPUT, _of_images(inputs[0], request.pixels)))
        else:
            left_out.append(LeftOut(what=IMAGE_SIGNATURE, reason=reason))
    if request.tagging is not None:
        try:
            tables = text_tables(read_tokenizer(request.tagging.folder))
        except KcostError as error:
            left_out.append(LeftOut(what=TEXT_SIGNATURE, reason=str(error.received or error)))
        else:
            if {i.name for i in inputs} == _TOKEN_INPUTS and len(outputs) == 1:
                made.append(MoreSignature(TEXT_SIGNATURE, TEXT_INPUT, _of_texts(request.tagging, tables, outputs[0])))
            else:
                names = ", ".join(i.name for i in inputs)
                left_out.append(LeftOut(what=TEXT_SIGNATURE, reason=f"a model of {names}, which is no BERT's"))
    return made, left_out


def _no_images(inputs: Sequence[ModelInput]) -> str | None:
    """Why a model takes no files of images; None where it does."""
    if len(inputs) != 1:
        return f"a model with {len(inputs)} inputs"
    shape = inputs[0].shape
    if len(shape) != 4 or None in shape[1:] or shape[3] not in (1, 3):
        return f"images of the shape {shape[1:]}, where files have a height, a width, and 1 or 3 channels"
    if inputs[0].dtype not in ("float32", "uint8", "int32"):
        return f"an input of {inputs[0].dtype}"
    return None


def _of_images(images: ModelInput, pixels: Pixels) -> Callable[[Serve], Callable[[Any], dict[str, Any]]]:
    height, width, channels = (int(size) for size in images.shape[1:] if size is not None)

    def around(serve: Serve) -> Callable[[Any], dict[str, Any]]:
        def serve_files(files: Any) -> dict[str, Any]:
            return serve({images.name: decode_images(files, (height, width, channels), pixels, images.dtype)})

        return serve_files

    return around


def _of_texts(tagging: Tagging, tables: TextTables, output: str) -> Callable[[Serve], Callable[[Any], dict[str, Any]]]:
    def around(serve: Serve) -> Callable[[Any], dict[str, Any]]:
        def serve_texts(texts: Any) -> dict[str, Any]:
            encoded = encode_texts(texts, tables, tagging.max_length)
            words, count = encoded.words, tf.size(texts)
            arrays = {
                "token_ids": encoded.token_ids,
                "segment_ids": tf.zeros_like(encoded.token_ids),
                "padding_mask": encoded.padding_mask,
            }
            logits = tf.cast(serve(arrays)[output], tf.float32)
            shares = tf.nn.softmax(tf.gather_nd(logits, tf.stack([words.row, encoded.position], 1)))
            # A word that the model does not see is outside of all entities, as in training's scores.
            is_seen = encoded.position > 0
            tag = tf.where(is_seen, tf.argmax(shares, axis=-1, output_type=tf.int32), len(tagging.tag_names))
            scores = tf.where(is_seen, tf.reduce_max(shares, axis=-1), 0.0)
            return {
                "words": by_row(words.text, words, count),
                "spans": by_row(tf.stack([words.start, words.end], 1), words, count),
                "tags": by_row(tf.gather([*tagging.tag_names, OUTSIDE], tag), words, count),
                "scores": by_row(scores, words, count),
                **entities(tag, scores, words, count, tagging.tag_names),
            }

        return serve_texts

    return around

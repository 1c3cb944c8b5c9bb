"""A BERT encoder with a head per token, or one per sequence."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras_nlp.models import BertBackbone

from kcost.core.errors import InputError


class Size(NamedTuple):
    """Shape of an encoder."""

    layers: int
    width: int
    heads: int


SIZES = {
    "tiny": Size(2, 128, 2),
    "mini": Size(4, 256, 4),
    "minilm": Size(6, 384, 12),
    "base": Size(12, 768, 12),
}
"""tiny, mini and base: Turc et al. 2019 (arXiv 1908.08962) and Devlin et al. 2018; minilm: MiniLM-L6-H384."""

INPUT_NAMES = ("token_ids", "segment_ids", "padding_mask")
"""Inputs of every BERT model here: int32 arrays of shape (batch, length); both axes are free."""


def backbone(vocabulary_size: int, size: str, *, dropout: float = 0.1, max_length: int = 512) -> BertBackbone:
    """An encoder with random weights.

    Raises:
        InputError: an unknown size.
    """
    if size not in SIZES:
        raise InputError(f"A bert has one of the sizes {', '.join(SIZES)}.", received=repr(size))
    shape = SIZES[size]
    return BertBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=shape.layers,
        num_heads=shape.heads,
        hidden_dim=shape.width,
        intermediate_dim=4 * shape.width,
        dropout=dropout,
        max_sequence_length=max_length,
    )


def token_classifier(encoder: keras.Model, tags: int, *, dropout: float = 0.1) -> keras.Model:
    """A tagger over an encoder: inputs as in INPUT_NAMES, output `logits` (batch, length, tags), float32.

    The encoder's layers become layers of the tagger; its pooler, which a tagger does not use, is left out.
    """
    x = keras.layers.Dropout(dropout, name="head_dropout")(encoder.output["sequence_output"])
    logits = keras.layers.Dense(tags, name="logits")(x)
    return keras.Model({name: encoder.input[name] for name in INPUT_NAMES}, logits, name="bert_tagger")


def sequence_classifier(encoder: keras.Model, classes: int, *, dropout: float = 0.1) -> keras.Model:
    """A text classifier over an encoder: inputs as in INPUT_NAMES, output `logits` (batch, classes), float32.

    The head reads BERT's pooled output, a dense layer with tanh on [CLS]. The encoder's layers, the pooler among
    them, become layers of the classifier. Source: Devlin et al. (2018), section 4.1.
    """
    x = keras.layers.Dropout(dropout, name="head_dropout")(encoder.output["pooled_output"])
    logits = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model({name: encoder.input[name] for name in INPUT_NAMES}, logits, name="bert_text_classifier")

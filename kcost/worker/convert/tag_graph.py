"""Entities of tagged words, with operations that every TensorFlow has: as `kcost.core.scores` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kcost.core.entities import OUTSIDE
from kcost.worker.convert.text_graph import Words, before, by_row, places_of


def entities(tag: Any, scores: Any, words: Words, count: Any, tag_names: Sequence[str]) -> dict[str, Any]:
    """The entities of each text: each starts with a B, and an I of its type continues it; other I are in none.

    Args:
        tag: of each word, its place in `tag_names`, their count for O; shape (words,), int32.
        scores: of each word, shape (words,), float32.
        count: of texts.

    Returns:
        entity_types, strings of shape (texts, most entities of one); entity_spans, [start, end) in characters, int32 of
        that shape and two more; entity_scores, the least score of its words, float32 of that shape.
    """
    names = [*tag_names, OUTSIDE]
    types = sorted({name[2:] for name in names})
    type_of = tf.gather([types.index(name[2:]) for name in names], tag)
    is_inside = tf.gather([name != OUTSIDE for name in names], tag)
    begins = tf.gather([name.startswith("B") for name in names], tag)
    # Words that follow each other with one type, none of them but the first with a B, are a chain; a chain that does
    # not begin with a B is no entity.
    follows = (before(words.row, -1) == words.row) & before(is_inside, False) & (before(type_of, -1) == type_of)
    is_head = is_inside & (begins | ~follows)
    chain = tf.cumsum(tf.cast(is_head, tf.int32)) - 1
    has_start = tf.concat([tf.boolean_mask(begins, is_head), [False]], 0)
    is_member = is_inside & tf.gather(has_start, tf.maximum(chain, 0))
    number = tf.boolean_mask(tf.cumsum(tf.cast(begins, tf.int32)) - 1, is_member)
    total = tf.reduce_sum(tf.cast(begins, tf.int32))
    ends = tf.math.unsorted_segment_max(tf.boolean_mask(words.end, is_member), number, total)
    least = tf.math.unsorted_segment_min(tf.boolean_mask(scores, is_member), number, total)
    places = places_of(tf.boolean_mask(words.row, begins), count)
    return {
        "entity_types": by_row(tf.gather(types, tf.boolean_mask(type_of, begins)), places, count),
        "entity_spans": by_row(tf.stack([tf.boolean_mask(words.start, begins), ends], 1), places, count),
        "entity_scores": by_row(least, places, count),
    }

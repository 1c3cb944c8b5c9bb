"""Rows that lie end to end in TensorFlow, and back: what is not padded, but for attention, where each row is alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from kcost.core.conversion import ROW_LENGTHS

TIME_STEP = 8
"""A line is as long as the longest row, to a multiple of it: oneDNN prepares attention's products for each length."""


class Packing(NamedTuple):
    """Where the places of rows that lie end to end are, when each row has a line of its own."""

    row: Any
    """int32 (places,)."""
    place: Any
    """int32 (places,), in its row, from 0."""
    lines: Any
    """int32 (rows, time): which of all places is there; the row's last one again where the row is shorter."""
    is_real: Any
    """bool (rows, time): false where a row is shorter."""

    @classmethod
    def of(cls, lengths: Any, places: Any) -> Packing:
        """Where each place is. Those beyond the last row belong to none: they count as the first place of the last row.

        The graph raises InvalidArgumentError for rows with more places than there are: each line would be as long.

        Args:
            lengths: int32 (rows,), of each row.
            places: int32 (), at least as many as the sum of the lengths.
        """
        fits = tf.reduce_all(lengths >= 0) & (tf.reduce_sum(tf.cast(lengths, tf.int64)) <= tf.cast(places, tf.int64))
        rule = f"{ROW_LENGTHS} says how long each row is; together they have at most the places there are. Received:"
        with tf.control_dependencies([tf.debugging.Assert(fits, [rule, lengths, "for", places], summarize=8)]):
            lengths = tf.identity(lengths)
        time = tf.reduce_max(tf.concat([[0], lengths], 0)) + (TIME_STEP - 1)
        time = time // TIME_STEP * TIME_STEP
        ends = tf.cumsum(lengths)
        starts = ends - lengths
        every = tf.range(places)
        row = tf.minimum(tf.searchsorted(ends, every, side="right"), tf.shape(lengths)[0] - 1)
        place = tf.where(every < tf.reduce_sum(lengths), every - tf.gather(starts, row), 0)
        in_line = tf.range(time)[None, :]
        # Behind a shorter row stands no other row's place: what is not a number there would spoil this one's answers.
        own = tf.minimum(in_line, tf.maximum(lengths - 1, 0)[:, None])
        lines = tf.clip_by_value(starts[:, None] + own, 0, tf.maximum(places - 1, 0))
        return cls(row, place, lines, in_line < lengths[:, None])

    def heads(self, qkv: Any, heads: int, head_width: int) -> tuple[Any, Any, Any]:
        """(places, 3 * heads * head_width) as query, key and value, (rows, heads, time, head_width) each."""
        pieces = tf.range(3 * heads)
        at = self.lines[None, :, None, :] * (3 * heads) + tf.reshape(pieces, (3, 1, heads, 1))
        split = tf.gather(tf.reshape(qkv, (-1, head_width)), at)
        query, key, value = tf.unstack(split, num=3)
        return query, key, value

    def end_to_end(self, context: Any, heads: int, head_width: int) -> Any:
        """(rows, heads, time, head_width) as (places, heads * head_width)."""
        time = tf.shape(self.lines)[1]
        at = (self.row[:, None] * heads + tf.range(heads)[None, :]) * time + self.place[:, None]
        return tf.reshape(tf.gather(tf.reshape(context, (-1, head_width)), at), (-1, heads * head_width))

    def mask(self, padding_mask: Any | None) -> Any:
        """float32 (rows, time): 1 for what is real, 0 for what the mask (..., places) takes out, -1 beyond a row.

        Where the mask takes out a whole row, each place looks at all of that row alike, and at nothing beyond it.
        """
        seen: Any = tf.ones((), tf.float32)
        if padding_mask is not None:
            flat = tf.reshape(tf.cast(tf.cast(padding_mask, tf.bool), tf.float32), (-1,))
            seen = tf.gather(flat, self.lines)
        return tf.where(self.is_real, seen, -1.0)

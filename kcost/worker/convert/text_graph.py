"""Cuts texts into words and WordPiece ids with operations that every TensorFlow has, as `kcost.data` does in training.

All of it works on the characters of a whole batch at once, as flat arrays: no operation depends on how many texts,
words or pieces there are. What tables hold is in `kcost.data.text_tables`; the rules beside them stand with each step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kcost.data.text_tables import (
    ALONE,
    BLOCK,
    CHARACTER_BITS,
    JOIN,
    SPACE,
    Blocks,
    CharacterTables,
    PieceTrie,
    TextTables,
)
from kcost.data.words import KINDS

_SPACE, _MARK, _LETTER, _OTHER = (KINDS.index(kind) for kind in ("space", "mark", "letter", "other"))


class Places(NamedTuple):
    """Where some values lie that belong to texts, in order."""

    row: Any
    """Text of each value, shape (values,), int32."""
    place: Any
    """Of each value within its text, shape (values,), int32."""
    most: Any
    """Values of the text with the most, int32."""


class Words(NamedTuple):
    """The words of a batch of texts, in order."""

    row: Any
    """Text of each word, shape (words,), int32."""
    place: Any
    """Of each word within its text, shape (words,), int32."""
    start: Any
    """First character of each word in its text, shape (words,), int32."""
    end: Any
    """The character behind its last one."""
    text: Any
    """Shape (words,), strings."""
    most: Any
    """Words of the text with the most, int32."""


class EncodedTexts(NamedTuple):
    """A batch of texts as a tagger takes them."""

    token_ids: Any
    """Shape (texts, length), int32; as are the next two."""
    padding_mask: Any
    words: Words
    position: Any
    """Of the first piece of each word in its row, 0 where the model does not see the word; shape (words,), int32."""


def encode_texts(texts: Any, tables: TextTables, max_length: int) -> EncodedTexts:
    """Cuts texts into words, and words into pieces between the tokens before and after a text.

    Args:
        texts: shape (n,), strings of UTF-8.
        tables: of the tokenizer.
        max_length: most positions of a row; what does not fit is cut off.
    """
    decoded = tf.strings.unicode_decode(texts, "UTF-8", errors="strict")
    count = tf.cast(decoded.nrows(), tf.int32)
    characters, row = decoded.values, tf.cast(decoded.value_rowids(), tf.int32)
    word, words = _words(characters, row, count, tables)
    piece, piece_word = _pieces(tf.boolean_mask(characters, word >= 0), tf.boolean_mask(word, word >= 0), tables)
    return _rows(piece, piece_word, words, count, tables, max_length)


def _words(characters: Any, row: Any, count: Any, tables: TextTables) -> tuple[Any, Words]:
    """The word of each character, -1 between words; and the words. The rule is that of `kcost.data.words.words_of`."""
    kind = _looked_up(tables.word_kind_of, characters)
    same_row = before(row, -1) == row
    # A mark takes the kind of what it stands on: the last character before it that is no mark, if in the same text.
    plain = tf.where(kind != _MARK)[:, 0]
    standing = tf.cumsum(tf.cast(kind != _MARK, tf.int32)) - 1
    base = tf.gather(tf.concat([tf.cast(plain, tf.int32), [0]], 0), tf.maximum(standing, 0))
    has_base = (standing >= 0) & (tf.gather(row, base) == row)
    kind_below = tf.where(has_base, tf.gather(kind, base), _SPACE)
    last = tf.where((kind == _MARK) & (kind_below == _SPACE), _MARK, kind_below)
    last_before = tf.where(same_row, before(last, _SPACE), _SPACE)
    is_joiner = tf.reduce_any(characters[:, None] == tables.joiners, axis=1)
    joined_before = same_row & before(is_joiner, False)
    goes_on = (kind == last_before) & ((kind == _LETTER) | ((kind == _OTHER) & joined_before))
    goes_on |= (kind == _MARK) & (last_before != _SPACE)
    is_start = (kind != _SPACE) & ~goes_on
    word = tf.where(kind != _SPACE, tf.cumsum(tf.cast(is_start, tf.int32)) - 1, -1)
    starts = tf.cast(tf.where(is_start)[:, 0], tf.int32)
    words_row = tf.gather(row, starts)
    within = tf.boolean_mask(tf.stack([characters, word], 1), word >= 0)
    total = tf.size(starts)
    lengths = _counts(within[:, 1], total)
    text = tf.strings.unicode_encode(tf.RaggedTensor.from_row_lengths(within[:, 0], lengths), "UTF-8")
    places = places_of(words_row, count)
    start = starts - tf.gather(_starts_of(row, count), words_row)
    return word, Words(words_row, places.place, start, start + lengths, text, places.most)


def _pieces(characters: Any, word: Any, tables: TextTables) -> tuple[Any, Any]:
    """The ids of the pieces of all words in order, and the word of each."""
    characters, kinds, word = _normalised(characters, word, tables.characters)
    # A run begins at a word, at and behind a character that stands alone, and behind one that parts.
    begins = (before(word, -1) != word) | (before(kinds, JOIN) != JOIN) | (kinds == ALONE)
    run = tf.cumsum(tf.cast(begins, tf.int32)) - 1
    stays = kinds != SPACE
    characters, word, run = (tf.boolean_mask(values, stays) for values in (characters, word, run))
    numbers, run = tf.unique(run)
    runs = tf.size(numbers)
    lengths = _counts(run, runs)
    starts = tf.cumsum(lengths, exclusive=True)
    piece = _walked(characters, run, starts, lengths, tables.trie)
    is_piece = piece >= 0
    return tf.boolean_mask(piece, is_piece), tf.boolean_mask(word, is_piece)


def _normalised(characters: Any, word: Any, tables: CharacterTables) -> tuple[Any, Any, Any]:
    """The characters that the tokenizer makes of others, the kind of each, and the word that it belongs to."""
    entry = _looked_up(tables.entry_of, characters)
    starts, lengths = _with_empty(tables.starts), _with_empty(tables.lengths)
    at = tf.where(entry < 0, len(tables.starts), entry)  # the last entry is an empty one
    counts = tf.where(entry < 0, 1, tf.gather(lengths, at))
    source = tf.repeat(tf.range(tf.size(characters)), counts)
    offset = tf.range(tf.size(source)) - tf.gather(tf.cumsum(counts, exclusive=True), source)
    source_entry = tf.gather(entry, source)
    place = tf.where(source_entry < 0, len(tables.characters), tf.gather(starts, tf.gather(at, source)) + offset)
    made = tf.gather(_with_empty(tables.characters), place)
    kinds = tf.gather(_with_empty(tables.kinds), place)
    characters = tf.where(source_entry < 0, tf.gather(characters, source), made)
    kinds = tf.where(source_entry < 0, tf.where(source_entry == -2, ALONE, kinds), kinds)
    word = tf.gather(word, source)
    if len(tables.marks):
        mark_class = _of_sorted(tables.marks, tables.mark_classes, characters)
        falls = (mark_class[1:] > 0) & (mark_class[:-1] > mark_class[1:]) & (word[1:] == word[:-1])
        tf.debugging.Assert(
            ~tf.reduce_any(falls), ["A text has marks in an order that Unicode's normalisation would change."]
        )
    return characters, kinds, word


def _walked(characters: Any, run: Any, starts: Any, lengths: Any, trie: PieceTrie) -> Any:
    """At the place of each character the id of the piece that begins there, -1 where none does; shape (n,), int32.

    The longest piece of the vocabulary that fits is taken each time, from the left. A run with a rest that no piece
    begins, or that is too long, is the unknown piece as a whole. Source: Devlin et al. (2019), BERT.
    """
    count = tf.size(characters)
    end_of = tf.gather(starts + lengths, run)
    places = tf.range(count)
    keys, nodes, pieces = (tf.constant(array) for array in (trie.keys, trie.nodes, trie.pieces))

    def step(depth: Any, at: Any, length: Any, piece: Any) -> tuple[Any, Any, Any, Any]:
        """One character further from every place at once, as the first piece of a run and as one within it."""
        next_place = places + depth
        there = tf.gather(characters, tf.minimum(next_place, count - 1))
        key = tf.bitwise.left_shift(tf.cast(at, tf.int64), CHARACTER_BITS) | tf.cast(there, tf.int64)
        edge = tf.minimum(tf.searchsorted(keys, tf.reshape(key, [-1])), len(trie.keys) - 1)
        edge = tf.reshape(edge, tf.shape(key))
        follows = (at >= 0) & (next_place < end_of) & (tf.gather(keys, edge) == key)
        at = tf.where(follows, tf.gather(nodes, edge), -1)
        ending = tf.where(follows, tf.gather(pieces, tf.maximum(at, 0)), -1)
        return depth + 1, at, tf.where(ending >= 0, depth + 1, length), tf.where(ending >= 0, ending, piece)

    begin = tf.stack([tf.zeros_like(places), tf.ones_like(places)])
    nothing = tf.zeros_like(begin)
    _, _, longest, ids = tf.while_loop(
        lambda depth, at, length, piece: tf.reduce_any(at >= 0), step, (0, begin, nothing, nothing - 1)
    )

    def take(root: Any, current: Any, ends: Any, piece: Any) -> tuple[Any, Any, Any, Any]:
        """The next piece of every run that is not at its end."""
        active = tf.where(current < ends)[:, 0]
        here = tf.gather(current, active)
        length = tf.gather(longest[root], here)
        piece = tf.tensor_scatter_nd_update(piece, here[:, None], tf.gather(ids[root], here))
        # No piece fits: the run's place goes behind its end, which tells.
        after = tf.where(length > 0, here + length, tf.gather(ends, active) + 1)
        return 1, tf.tensor_scatter_nd_update(current, active[:, None], after), ends, piece

    ends = starts + lengths
    too_long = lengths > trie.longest_run
    _, reached, _, piece = tf.while_loop(
        lambda root, current, ends, piece: tf.reduce_any(current < ends),
        take,
        (0, tf.where(too_long, ends + 1, starts), ends, tf.fill([count], -1)),
    )
    is_unknown = tf.gather(reached > ends, run)
    is_first = places == tf.gather(starts, run)
    return tf.where(is_unknown, tf.where(is_first, trie.unknown, -1), piece)


def _rows(piece: Any, piece_word: Any, words: Words, count: Any, tables: TextTables, max_length: int) -> EncodedTexts:
    """The pieces as rows, between the tokens before and after a text."""
    row = tf.gather(words.row, piece_word)
    place = 1 + tf.range(tf.size(piece)) - tf.gather(_starts_of(row, count), row)
    fits = place < max_length - 1
    is_first = (before(piece_word, -1) != piece_word) & fits
    first_word, first_place = tf.boolean_mask(piece_word, is_first), tf.boolean_mask(place, is_first)
    position = tf.scatter_nd(first_word[:, None], first_place, [tf.size(words.row)])
    piece, row, place = (tf.boolean_mask(values, fits) for values in (piece, row, place))
    lengths = _counts(row, count) + 2
    length = tf.reduce_max(tf.concat([lengths, [2]], 0))
    mask = tf.sequence_mask(lengths, length, tf.int32)
    ids = tf.scatter_nd(tf.stack([row, place], 1), piece - tables.pad_id, [count, length]) + tables.pad_id
    columns = tf.range(length)
    ids = tf.where(columns == 0, tables.start_id, ids)
    ids = tf.where(columns == lengths[:, None] - 1, tables.end_id, ids)
    return EncodedTexts(ids, mask, words, position)


def places_of(row: Any, count: Any) -> Places:
    """The places of values whose texts, ascending, are given."""
    place = tf.range(tf.size(row)) - tf.gather(_starts_of(row, count), row)
    return Places(row, place, tf.reduce_max(tf.concat([_counts(row, count), [0]], 0)))


def by_row(values: Any, places: Places | Words, count: Any) -> Any:
    """Values as rows of texts, shape (texts, most values of one, ...); zeros and empty strings behind the last."""
    shape = tf.concat([[count, places.most], tf.shape(values)[1:]], 0)
    at = tf.stack([places.row, places.place], 1)
    if values.dtype != tf.string:
        return tf.scatter_nd(at, values, shape)
    return tf.tensor_scatter_nd_update(tf.fill(shape, ""), at, values)


def _looked_up(blocks: Blocks, code_points: Any) -> Any:
    block = tf.gather(blocks.block_of, code_points // BLOCK)
    return tf.gather(blocks.values.reshape(-1), block * BLOCK + code_points % BLOCK)


def _of_sorted(keys: np.ndarray, values: np.ndarray, wanted: Any) -> Any:
    """The value of each key, 0 of one that is not there."""
    place = tf.minimum(tf.searchsorted(keys, wanted), len(keys) - 1)
    return tf.where(tf.gather(keys, place) == wanted, tf.gather(values, place), 0)


def _with_empty(values: np.ndarray) -> np.ndarray:
    return np.append(values, np.int32(0))


def _counts(group: Any, count: Any) -> Any:
    """Values of each group, shape (count,), int32."""
    return tf.math.unsorted_segment_sum(tf.ones_like(group), group, count)


def _starts_of(group: Any, count: Any) -> Any:
    """Where each group begins in values that are ordered by it, shape (count,), int32."""
    return tf.cumsum(_counts(group, count), exclusive=True)


def before(values: Any, first: Any) -> Any:
    """What stands before each value; `first` before the first one."""
    return tf.concat([[tf.constant(first, values.dtype)], values], 0)[:-1]

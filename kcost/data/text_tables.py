"""How a WordPiece tokenizer cuts text, as tables of numbers: what a graph needs to do the same without the library.

The library itself is asked what it makes of each code point, so that its version of Unicode decides, not Python's. What
depends on more than one character is left to who reads the tables: words, runs of pieces, and the order of marks.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from kcost.core.errors import UnavailableError
from kcost.data.tokenize import WordPiece
from kcost.data.words import JOINERS, KINDS, kind_of, words_of

CODE_POINTS = 0x110000
BLOCK = 256
"""Code points of a block: most blocks are alike, so that each is stored once."""

SURROGATES = range(0xD800, 0xE000)

JOIN, ALONE, SPACE = 0, 1, 2
"""A normalised character stands with its neighbours, is a run of its own, or parts two runs."""

CHARACTER_BITS = 21
"""Of a code point, within a key of the trie."""

_SEPARATOR = "0"
"""Stands between code points when the library is asked about many at once; nothing else becomes it."""

_STAYS, _STAYS_ALONE = -1, -2


@dataclass(frozen=True, eq=False)
class Blocks:
    """A number for each code point, blocks that are alike stored once.

    Attributes:
        block_of: which of `values` the code points from 256 i on have, shape (4352,), int32.
        values: shape (blocks, 256), int32.
    """

    block_of: np.ndarray
    values: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> Blocks:
        """Of a number for each code point, shape (4352, 256), integers."""
        rows, block_of = np.unique(values, axis=0, return_inverse=True)
        return Blocks(block_of.reshape(-1).astype(np.int32), rows.astype(np.int32))

    def __getitem__(self, code_points: np.ndarray) -> np.ndarray:
        """The numbers of some code points, of their shape."""
        return np.asarray(self.values[self.block_of[code_points // BLOCK], code_points % BLOCK])


@dataclass(frozen=True, eq=False)
class CharacterTables:
    """What the tokenizer makes of each code point.

    Attributes:
        entry_of: -1 for a code point that stays as it is and joins its neighbours, -2 for one that stays and is a run
            of its own, else the number of an entry below.
        starts, lengths: of an entry, which of `characters` it becomes; shape (entries,), int32.
        characters: normalised code points, shape (n,), int32.
        kinds: JOIN, ALONE or SPACE of each of them, shape (n,), int32.
        marks: code points that Unicode's normalisation may put in another order and that stay, ascending, shape (m,),
            int32; empty where the tokenizer does not decompose.
        mark_classes: the canonical combining class of each, shape (m,), int32.
    """

    entry_of: Blocks
    starts: np.ndarray
    lengths: np.ndarray
    characters: np.ndarray
    kinds: np.ndarray
    marks: np.ndarray
    mark_classes: np.ndarray


@dataclass(frozen=True, eq=False)
class PieceTrie:
    """The pieces of a vocabulary, to be walked a character at a time.

    Node 0 begins a run, node 1 goes on within one.

    Attributes:
        keys: node << 21 | code point, ascending, shape (edges,), int64.
        nodes: where each edge leads, shape (edges,), int32.
        pieces: id of the piece that ends at a node, -1 where none does, shape (nodes,), int32.
        unknown: id of the unknown piece.
        longest_run: characters; a run with more is unknown.
    """

    keys: np.ndarray
    nodes: np.ndarray
    pieces: np.ndarray
    unknown: int
    longest_run: int


@dataclass(frozen=True, eq=False)
class TextTables:
    """All that cutting a text into words and pieces takes.

    Attributes:
        word_kind_of: the place of each code point's kind in `kcost.data.words.KINDS`.
        joiners: code points, shape (2,), int32.
        pad_id, start_id, end_id: of the padding, and of the tokens before and after a text.
    """

    word_kind_of: Blocks
    joiners: np.ndarray
    characters: CharacterTables
    trie: PieceTrie
    pad_id: int
    start_id: int
    end_id: int


def text_tables(pieces: WordPiece) -> TextTables:
    """The tables of a tokenizer, for words that `kcost.data.words.words_of` cuts.

    Raises:
        UnavailableError: the tokenizer does something that no table of characters says; the reason is told.
    """
    library = pieces.library_tokenizer
    description = json.loads(library.to_str())
    _refuse_other_than_bert(description)
    return TextTables(
        word_kind_of=_word_kinds(),
        joiners=np.array([ord(c) for c in JOINERS], np.int32),
        characters=_character_tables(library),
        trie=_trie(library.get_vocab(with_added_tokens=False), description["model"]),
        pad_id=pieces.pad_id,
        start_id=pieces.start_id,
        end_id=pieces.end_id,
    )


def _refuse_other_than_bert(description: dict[str, Any]) -> None:
    parts = {
        "normalizer": ((description["normalizer"] or {}).get("type"), "BertNormalizer"),
        "pre_tokenizer": ((description["pre_tokenizer"] or {}).get("type"), "BertPreTokenizer"),
        "model": (description["model"].get("type", "WordPiece"), "WordPiece"),
    }
    for part, (there, wanted) in parts.items():
        if there != wanted:
            raise _unavailable(f"a tokenizer with the {part} {there}, where BERT has {wanted}")
    for token in description["added_tokens"]:
        if not _is_parted(token["content"]):
            raise _unavailable(f"the added token {token['content']!r}, which may stand within a word")


def _is_parted(text: str) -> bool:
    """Whether no word of a running text holds all of `text`, whatever stands around it."""
    return any("mark" not in (kind_of(a), kind_of(b)) and len(words_of(a + b)) != 1 for a, b in pairwise(text)) or any(
        kind_of(c) == "space" for c in text
    )


def _unavailable(received: str) -> UnavailableError:
    return UnavailableError(
        "Text is cut within a graph where that gives exactly the pieces of training.",
        received=received,
        remedy="Cut texts before they are sent.",
    )


@cache
def _word_kinds() -> Blocks:
    place_of = {kind: i for i, kind in enumerate(KINDS)}
    kinds = np.empty((CODE_POINTS // BLOCK, BLOCK), np.int32)
    for row, characters in zip(kinds, _blocks(), strict=True):
        # Most blocks are of nothing: only the others are looked at a character at a time.
        is_of_nothing = {unicodedata.category(c) for c in characters} <= {"Cn", "Co", "Cs"}
        row[:] = place_of["other"] if is_of_nothing else [place_of[kind_of(c)] for c in characters]
    return Blocks.of(kinds)


def _blocks() -> Iterator[list[str]]:
    """The characters of each block. Surrogates are among them, which no text holds and no library takes."""
    return ([chr(i) for i in range(at, at + BLOCK)] for at in range(0, CODE_POINTS, BLOCK))


def _character_tables(library: Any) -> CharacterTables:
    entry_of = np.full((CODE_POINTS // BLOCK, BLOCK), _STAYS, np.int32)
    number_of: dict[tuple[tuple[int, int], ...], int] = {}
    kind_of_character: dict[str, int] = {}
    combining: set[str] = set()
    for row, characters in zip(entry_of, _blocks(), strict=True):
        if ord(characters[0]) in SURROGATES:
            continue
        normalised = _normalised(library, characters)
        combining |= {c for text in normalised for c in text if unicodedata.combining(c)}
        if normalised == characters and len(library.pre_tokenizer.pre_tokenize_str(f"a{''.join(characters)}a")) == 1:
            continue  # most blocks: every character stays, and joins
        kind_of_character |= _kinds_of(library, sorted({c for text in normalised for c in text}))
        if not any(normalised):
            row[:] = number_of.setdefault((), len(number_of))
            continue
        for i, (character, text) in enumerate(zip(characters, normalised, strict=True)):
            entry = _without_frame(tuple((ord(c), kind_of_character[c]) for c in text))
            if entry == ((ord(character), JOIN),):
                continue
            is_itself_alone = entry == ((ord(character), ALONE),)
            row[i] = _STAYS_ALONE if is_itself_alone else number_of.setdefault(entry, len(number_of))
    lengths = np.array([len(entry) for entry in number_of], np.int32)
    flat = np.array([pair for entry in number_of for pair in entry], np.int32).reshape(-1, 2)
    marks = sorted(map(ord, combining)) if _decomposes(library) else []
    return CharacterTables(
        entry_of=Blocks.of(entry_of),
        starts=(np.cumsum(lengths) - lengths).astype(np.int32),
        lengths=lengths,
        characters=flat[:, 0],
        kinds=flat[:, 1],
        marks=np.array(marks, np.int32),
        mark_classes=np.array([unicodedata.combining(chr(i)) for i in marks], np.int32),
    )


def _without_frame(entry: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Without the spaces around one run of its own: they part nothing more."""
    if len(entry) == 3 and entry[0][1] == entry[2][1] == SPACE and entry[1][1] != SPACE:
        return ((entry[1][0], ALONE),)
    return entry


def _normalised(library: Any, characters: list[str]) -> list[str]:
    """What each character becomes, alone."""
    joined = library.normalizer.normalize_str(_SEPARATOR + _SEPARATOR.join(characters) + _SEPARATOR)
    parts: list[str] = joined.split(_SEPARATOR)[1:-1]
    if len(parts) != len(characters):  # those with the separator itself
        parts = [library.normalizer.normalize_str(c) for c in characters]
    return parts


def _kinds_of(library: Any, characters: list[str]) -> dict[str, int]:
    """How each normalised character stands between two that join."""
    runs = library.pre_tokenizer.pre_tokenize_str(" ".join(f"a{c}a" for c in characters))
    starts = {start for _, (start, _) in runs}
    kinds = {}
    for i, character in enumerate(characters):
        place = 4 * i + 1  # of the character: there are four before it for each of the others
        kinds[character] = JOIN if place + 1 not in starts else ALONE if place in starts else SPACE
    return kinds


def _decomposes(library: Any) -> bool:
    """Whether the tokenizer takes letters and their marks apart, which puts marks in Unicode's order."""
    settings = json.loads(library.to_str())["normalizer"]
    strips = settings.get("strip_accents")
    return bool(settings.get("lowercase") if strips is None else strips)


def _trie(vocabulary: dict[str, int], model: dict[str, Any]) -> PieceTrie:
    prefix = model.get("continuing_subword_prefix", "##")
    edges: dict[int, int] = {}
    ends: list[int] = [-1, -1]
    for piece, number in vocabulary.items():
        beginnings = [(0, piece), *([(1, piece[len(prefix) :])] if piece.startswith(prefix) else [])]
        for node, text in beginnings:
            if not text:
                continue
            for character in text:
                key = node << CHARACTER_BITS | ord(character)
                if key not in edges:
                    edges[key] = len(ends)
                    ends.append(-1)
                node = edges[key]
            ends[node] = number
    keys = np.array(sorted(edges), np.int64)
    unknown = model["unk_token"]
    if unknown not in vocabulary:
        raise _unavailable(f"a vocabulary without {unknown!r}")
    return PieceTrie(
        keys=keys,
        nodes=np.array([edges[key] for key in keys.tolist()], np.int32),
        pieces=np.array(ends, np.int32),
        unknown=vocabulary[unknown],
        longest_run=int(model.get("max_input_chars_per_word", 100)),
    )

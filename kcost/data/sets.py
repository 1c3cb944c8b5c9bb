"""What a data set is once it is read: arrays, sentences or texts in three splits, and where they came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kcost.core.artifact import Dataset, Split
from kcost.core.pixels import UNIT, Pixels

SPLITS = ("train", "validation", "test")
"""The names of the splits of every data set, in this order."""


@dataclass(frozen=True, eq=False)
class Images:
    """One split of images.

    Attributes:
        x: pixels, shape (n, height, width, channels), float32 in [0, 1] as they are loaded; else as `ImageSet.pixels`.
        y: class indices into `ImageSet.label_names`, shape (n,), int32.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with one label each, in the splits train, validation and test.

    Attributes:
        stored_white: the number that stands for 1 in the files that the images were read from, 255 for bytes; None
            where they are stored in different scales.
        pixels: the scale of the splits.
    """

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, Images]
    record: Dataset
    stored_white: float | None = 1.0
    pixels: Pixels = UNIT

    task: Literal["image-classification"] = "image-classification"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        height, width, channels = self.splits["train"].x.shape[1:]
        return height, width, channels


@dataclass(frozen=True, eq=False)
class Arrays:
    """One split of arrays of any kind, one row an example in each.

    Attributes:
        x: features by the name of the model's input; an only one may be called nothing.
        y: labels by the name of the model's output; an only one may be called nothing.
    """

    x: dict[str, np.ndarray]
    y: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.x.values())))


@dataclass(frozen=True, eq=False)
class ArraySet:
    """Arrays of any kind in the splits train, validation and test. `label_names` may be empty."""

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, Arrays]
    record: Dataset

    task: Literal["arrays"] = "arrays"


@dataclass(frozen=True)
class Sentence:
    """Words and one BIO tag a word: `tokens` and `tags` have the same length."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TagSet:
    """Sentences with a BIO tag for each word, in the splits train, validation and test.

    `tag_names` starts with "O"; then come "B-X" and "I-X" for each entity type X, types in alphabetical order.
    """

    name: str
    tag_names: tuple[str, ...]
    splits: dict[str, tuple[Sentence, ...]]
    record: Dataset

    task: Literal["token-classification"] = "token-classification"


@dataclass(frozen=True, eq=False)
class Texts:
    """One split of labelled texts.

    Attributes:
        texts: as they were read.
        y: class indices into `TextSet.label_names`, shape (n,), int32.
    """

    texts: tuple[str, ...]
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class TextSet:
    """Texts with one label each, in the splits train, validation and test. Labels are in alphabetical order."""

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, Texts]
    record: Dataset

    task: Literal["sequence-classification"] = "sequence-classification"


DataSet = ImageSet | TagSet | TextSet | ArraySet


def tag_names_of(sentences: Iterable[Sentence]) -> tuple[str, ...]:
    """("O", "B-X", "I-X", ...) for all entity types X that the sentences hold."""
    types = sorted({tag[2:] for sentence in sentences for tag in sentence.tags if tag != "O"})
    return ("O", *(f"{prefix}-{name}" for name in types for prefix in "BI"))


def images_split(images: Images) -> Split:
    """Size and content hash: SHA-256 over the shape, then the bytes of `x`, then those of `y`, little-endian."""
    digest = hashlib.sha256(repr(images.x.shape).encode())
    digest.update(np.ascontiguousarray(images.x, dtype="<f4").data)
    digest.update(np.ascontiguousarray(images.y, dtype="<i4").data)
    return Split(count=len(images), sha256=digest.hexdigest())


def sentences_split(sentences: tuple[Sentence, ...]) -> Split:
    """Size and content hash: SHA-256 over the sentences as CoNLL lines (token, tab, tag) in UTF-8."""
    digest = hashlib.sha256()
    for sentence in sentences:
        lines = [f"{token}\t{tag}\n" for token, tag in zip(sentence.tokens, sentence.tags, strict=True)]
        digest.update(("".join(lines) + "\n").encode("utf-8", "surrogatepass"))
    return Split(count=len(sentences), sha256=digest.hexdigest())


def texts_split(texts: Texts) -> Split:
    """Size and content hash: SHA-256 over a JSON line [text, label index] for each text, in UTF-8."""
    digest = hashlib.sha256()
    for text, label in zip(texts.texts, texts.y.tolist(), strict=True):
        digest.update((json.dumps([text, label], ensure_ascii=False) + "\n").encode("utf-8"))
    return Split(count=len(texts), sha256=digest.hexdigest())

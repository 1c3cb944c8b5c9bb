"""Tagging schemes: which one a file is written in, how it becomes BIO, and what is wrong with a tag sequence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

Scheme = Literal["BIO", "IOB1", "BIOES"]

_TAG = re.compile(r"O|[BIESLU]-\S+")
_TO_BIO_PREFIX = {"B": "B", "I": "I", "E": "I", "L": "I", "S": "B", "U": "B"}


def is_tag(text: str) -> bool:
    """True for "O" and for a prefix (B, I, E, S, or L and U for E and S), a hyphen and an entity type."""
    return _TAG.fullmatch(text) is not None


def lacks_type(text: str) -> bool:
    """True for a prefix without an entity type: B, I, E, S, L or U alone."""
    return text in _TO_BIO_PREFIX


def detect(sequences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme that the tag sequences of a whole data set are written in.

    BIOES (with BILOU as another spelling) is known by its E and S tags. IOB1 has entities that start with I,
    and uses B only where an entity follows another of the same type directly; BIO starts every entity with B.
    """
    starts_with_i = starts_with_b = False
    for tags in sequences:
        previous = "O"
        for tag in tags:
            if tag[0] in "ESLU":
                return "BIOES"
            if tag != "O" and previous[2:] != tag[2:]:
                starts_with_i |= tag[0] == "I"
                starts_with_b |= tag[0] == "B"
            previous = tag
    return "IOB1" if starts_with_i and not starts_with_b else "BIO"


def normalise(tags: Sequence[str], scheme: Scheme) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The tags in BIO, and the positions that broke the scheme and were repaired.

    A tag that should continue an entity and has none before it (at the start, after O, after another type, after
    the E or S that closed one) starts one: the reading of conlleval. In IOB1 that is how entities start, no break.
    In BIOES an entity that no E or S closes is broken at its last tag, where it ends in BIO as well.
    """
    bio: list[str] = []
    broken: list[int] = []
    for i, tag in enumerate(tags):
        if continues_none(tags, i):
            bio.append("B" + tag[1:])
            broken.append(i)
        else:
            bio.append(tag if tag == "O" else _TO_BIO_PREFIX[tag[0]] + tag[1:])
            if scheme == "BIOES" and leaves_open(tags, i):
                broken.append(i)
    return tuple(bio), () if scheme == "IOB1" else tuple(broken)


def continues_none(tags: Sequence[str], i: int) -> bool:
    """Whether the tag at `i` says that it continues or ends an entity, and there is none before it."""
    previous = tags[i - 1] if i else "O"
    return tags[i][0] in "IEL" and not (previous[0] in "BI" and previous[1:] == tags[i][1:])


def leaves_open(tags: Sequence[str], i: int) -> bool:
    """Whether the tag at `i` says, in BIOES, that its entity goes on, and the next tag does not continue it."""
    return tags[i][0] in "BI" and (i + 1 == len(tags) or tags[i + 1][0] not in "IEL" or tags[i + 1][1:] != tags[i][1:])

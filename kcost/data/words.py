"""Words of a running text, by what Unicode says of its characters."""

from __future__ import annotations

import re
import unicodedata

_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd]")
JOINERS = "\u200c\u200d"
"""Zero width non-joiner and joiner: Persian, the scripts of India and emoji hold them inside of words."""


KINDS = ("space", "mark", "ideograph", "letter", "other")
"""What a character is: an ideograph or kana, a letter or digit, a mark or joiner."""


def words_of(text: str) -> list[tuple[int, int]]:
    """Where the words of a text lie: [start, end) in characters, in order.

    A word is a run of letters and digits, one ideograph or kana, or one other character, white space excepted. Marks
    (vowel signs, accents, variation selectors) and joiners belong to the character before them, and join what follows:
    a letter to letters, an emoji to an emoji.
    """
    words: list[tuple[int, int]] = []
    last = "space"  # kind of the character that the word so far ends with
    joined = False  # whether a joiner stands after it
    for at, character in enumerate(text):
        kind = kind_of(character)
        if kind == "space":
            last, joined = kind, False
            continue
        goes_on = kind == last and (kind == "letter" or (kind == "other" and joined))
        if goes_on or (kind == "mark" and last != "space"):
            words[-1] = (words[-1][0], at + 1)
        else:
            words.append((at, at + 1))
        joined = character in JOINERS
        if kind != "mark" or last == "space":
            last = kind
    return words


def kind_of(character: str) -> str:
    """Which of KINDS a character is."""
    if character.isspace():
        return "space"
    if character in JOINERS or unicodedata.category(character)[0] == "M":
        return "mark"
    if _IDEOGRAPH.match(character):
        return "ideograph"
    return "letter" if character.isalnum() or character == "_" else "other"

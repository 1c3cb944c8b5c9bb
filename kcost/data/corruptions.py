"""Test examples changed as the world changes them: noise, blur, shift, rotation and contrast of images, noise of
numbers, typos, casing and other names in texts. Each has a stated strength, and the same seed gives the same change.

Source of the kinds for images: Hendrycks and Dietterich (2019), Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations, ICLR. The strengths are kcost's own, small ones that a person sees through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from kcost.core.errors import InputError
from kcost.data.names_by_region import PERSON_TYPES, PLACE_TYPES, REGIONS, names_of
from kcost.data.sets import Arrays, ArraySet, DataSet, Images, ImageSet, Sentence, TagSet, Texts, TextSet

SEED = 0
"""Of every random change, so that the same model has the same answers again."""

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
TextChange = Callable[[list[str], np.random.Generator], list[str]]

_NEIGHBOURS = {
    letter: row[max(0, i - 1) : i] + row[i + 1 : i + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for i, letter in enumerate(row)
}
"""Keys beside each letter on a QWERTY keyboard."""

SHORTEST_MISTYPED = 4
"""Letters of the shortest word that gets a typo: a shorter one often becomes another word."""


def conditions_for(read: DataSet) -> tuple[str, ...]:
    """The names of the changes that examples of a data set can be put through, each with its strength.

    Examples:
        >>> from kcost import data
        >>> conditions_for(data.load("digits", limit=20))[:3]
        ('noise 5%', 'noise 10%', 'noise 20%')
    """
    if isinstance(read, ImageSet):
        return tuple(_IMAGES)
    if isinstance(read, TextSet):
        return tuple(_TEXTS)
    if isinstance(read, TagSet):
        types = {name[2:] for name in read.tag_names if name != "O"}
        named = any(kind.upper() in PERSON_TYPES | PLACE_TYPES for kind in types)
        regions = tuple(f"names of {region}" for region in REGIONS) if named else ()
        return (*_TEXTS, *((SWAPPED,) if types else ()), *regions)
    floats = any(a.dtype.kind == "f" for a in read.splits["test"].x.values())
    return tuple(_NUMBERS) if floats else ()


SWAPPED = "entities swapped"
"""Each entity becomes another one of its type from the same data."""


def sample_of_test(read: DataSet, most: int) -> DataSet:
    """The data set with at most so many test examples, a seeded sample in the order that they have."""
    count = len(read.splits["test"])
    if count <= most:
        return read
    rows = np.sort(np.random.default_rng(SEED).permutation(count)[:most])
    return _with_test(read, lambda test: _rows_of(test, rows))


def corrupted(read: DataSet, condition: str) -> DataSet:
    """The data set with its test examples changed; labels and the other splits stay as they are.

    Args:
        read: images in [0, 1] as they are loaded.
        condition: one of `conditions_for`.

    Raises:
        InputError: no such change is known for these data.
    """
    if condition not in conditions_for(read):
        raise InputError(
            "A change is one of those that are known for the data.",
            received=f"{condition!r} for {read.name}",
            remedy=f"Take one of {', '.join(conditions_for(read)) or 'none: the data hold whole numbers alone'}.",
        )
    rng = np.random.default_rng([SEED, *condition.encode()])
    if isinstance(read, ImageSet):
        return _with_test(read, lambda test: Images(_IMAGES[condition](test.x, rng), test.y))
    if isinstance(read, ArraySet):
        return _with_test(read, lambda test: Arrays(_noisy(test.x, read.splits["train"].x, condition, rng), test.y))
    if isinstance(read, TextSet):
        return _with_test(
            read, lambda test: Texts(tuple(" ".join(_TEXTS[condition](t.split(), rng)) for t in test.texts), test.y)
        )
    if condition == SWAPPED:
        return _with_test(read, lambda test: swapped_entities(test, _mentions_of(test), rng))
    if condition.startswith("names of "):
        mentions = names_of(condition.removeprefix("names of "))
        by_type = {name[2:]: mentions.get(name[2:].upper(), ()) for name in read.tag_names if name != "O"}
        return _with_test(read, lambda test: swapped_entities(test, by_type, rng))
    change = _TEXTS[condition]
    return _with_test(read, lambda test: tuple(Sentence(tuple(change(list(s.tokens), rng)), s.tags) for s in test))


def swapped_entities(
    sentences: tuple[Sentence, ...], mentions: Mapping[str, tuple[tuple[str, ...], ...]], rng: np.random.Generator
) -> tuple[Sentence, ...]:
    """Sentences with each entity replaced by a mention that is drawn for its type, and tags to match.

    Args:
        mentions: the words of each mention, by type; a type without any keeps its entities.

    Examples:
        >>> sentence = Sentence(("Hello", "Ann"), ("O", "B-PER"))
        >>> swapped_entities((sentence,), {"PER": (("Li", "Na"),)}, np.random.default_rng(0))[0].tags
        ('O', 'B-PER', 'I-PER')
    """
    changed = []
    for sentence in sentences:
        tokens: list[str] = []
        tags: list[str] = []
        for start, end, kind in _spans(sentence.tags):
            words = sentence.tokens[start:end]
            if kind is not None and mentions.get(kind):
                choices = mentions[kind]
                words = choices[int(rng.integers(len(choices)))]
            tokens += words
            inside = [] if kind is None else [f"B-{kind}"] + [f"I-{kind}"] * (len(words) - 1)
            tags += inside or ["O"] * len(words)
        changed.append(Sentence(tuple(tokens), tuple(tags)))
    return tuple(changed)


def _spans(tags: tuple[str, ...]) -> list[tuple[int, int, str | None]]:
    """(start, end, type) of each entity, and of each word outside of one, whose type is None."""
    spans: list[tuple[int, int, str | None]] = []
    for i, tag in enumerate(tags):
        if tag.startswith("I-") and spans and spans[-1][2] == tag[2:]:
            spans[-1] = (spans[-1][0], i + 1, tag[2:])
        else:
            spans.append((i, i + 1, None if tag == "O" else tag[2:]))
    return spans


def _mentions_of(sentences: tuple[Sentence, ...]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Every entity that sentences name, by type, in the order in which they first stand."""
    mentions: dict[str, dict[tuple[str, ...], None]] = {}
    for sentence in sentences:
        for start, end, kind in _spans(sentence.tags):
            if kind is not None:
                mentions.setdefault(kind, {})[sentence.tokens[start:end]] = None
    return {kind: tuple(words) for kind, words in mentions.items()}


def _noise(deviation: float) -> Change:
    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _clipped(x + np.float32(deviation) * rng.standard_normal(x.shape, dtype=np.float32))

    return change


def _blur(part_of_height: float) -> Change:
    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        from scipy.ndimage import gaussian_filter

        sigma = part_of_height * x.shape[1]
        return _clipped(gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest"))

    return change


def _shift(part_of_side: float) -> Change:
    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        from scipy.ndimage import shift

        angles = rng.uniform(0, 2 * np.pi, len(x))
        down, right = part_of_side * x.shape[1] * np.sin(angles), part_of_side * x.shape[2] * np.cos(angles)
        moved = [shift(image, (d, r, 0), order=1, mode="nearest") for image, d, r in zip(x, down, right, strict=True)]
        return _clipped(np.stack(moved))

    return change


def _rotation(degrees: float) -> Change:
    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        from scipy.ndimage import rotate

        angles = degrees * rng.choice([-1, 1], len(x))
        turned = [rotate(image, a, reshape=False, order=1, mode="nearest") for image, a in zip(x, angles, strict=True)]
        return _clipped(np.stack(turned))

    return change


def _contrast(kept: float) -> Change:
    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        mean = x.mean((1, 2, 3), keepdims=True)
        return _clipped(mean + np.float32(kept) * (x - mean))

    return change


def _clipped(x: np.ndarray) -> np.ndarray:
    clipped: np.ndarray = np.clip(x, 0, 1).astype(np.float32)
    return clipped


_IMAGES: dict[str, Change] = {
    **{f"noise {share:.0%}": _noise(share) for share in (0.05, 0.1, 0.2)},
    **{f"blur {share:.0%}": _blur(share) for share in (0.02, 0.04, 0.08)},
    **{f"shift {share:.0%}": _shift(share) for share in (0.05, 0.1)},
    **{f"rotation {degrees} degrees": _rotation(degrees) for degrees in (10, 20)},
    **{f"contrast {share:.0%}": _contrast(share) for share in (0.5, 0.25)},
}
"""Noise: its standard deviation, of white less black. Blur: the standard deviation of a Gaussian, of the height. Shift:
of the sides, in any direction. Rotation: to the left or the right. Contrast: what is left of it."""

_NUMBERS = {"noise 10%": 0.1, "noise 50%": 0.5}
"""Standard deviation of noise, of each number's own over the training split."""


def _noisy(
    x: dict[str, np.ndarray], train: dict[str, np.ndarray], condition: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    changed = {}
    for name, array in x.items():
        if array.dtype.kind != "f":
            changed[name] = array
            continue
        deviation = _NUMBERS[condition] * train[name].std(0, dtype=np.float64)
        changed[name] = (array + deviation * rng.standard_normal(array.shape)).astype(array.dtype)
    return changed


def _typos(share: float) -> TextChange:
    def change(words: list[str], rng: np.random.Generator) -> list[str]:
        return [
            mistyped(word, rng) if len(word) >= SHORTEST_MISTYPED and word.isalpha() and rng.random() < share else word
            for word in words
        ]

    return change


def mistyped(word: str, rng: np.random.Generator) -> str:
    """A word with one typo behind its first letter: two letters exchanged, one missing, doubled, or the key beside it.

    Examples:
        >>> mistyped("letters", np.random.default_rng(0)) != "letters"
        True
    """
    place = int(rng.integers(1, len(word) - 1))
    here, after = word[place], word[place + 1]
    kind = int(rng.integers(4))
    if kind == 0 and here != after:
        return word[:place] + after + here + word[place + 2 :]
    if kind == 1:
        return word[:place] + word[place + 1 :]
    beside = _NEIGHBOURS.get(here.lower(), "")
    if kind == 2 and beside:
        key = beside[int(rng.integers(len(beside)))]
        return word[:place] + (key.upper() if here.isupper() else key) + word[place + 1 :]
    return word[:place] + here + word[place:]


_TEXTS: dict[str, TextChange] = {
    "typos 10%": _typos(0.1),
    "typos 30%": _typos(0.3),
    "small letters": lambda words, rng: [word.lower() for word in words],
    "capital letters": lambda words, rng: [word.upper() for word in words],
}
"""Typos: the share of words of at least SHORTEST_MISTYPED letters that get one."""


def _with_test(read: DataSet, change: Callable[..., object]) -> DataSet:
    splits = {**read.splits, "test": change(read.splits["test"])}
    return replace(read, splits=splits)  # type: ignore[arg-type]  # each change gives what it was given


def _rows_of(test: object, rows: np.ndarray) -> object:
    if isinstance(test, Images):
        return Images(test.x[rows], test.y[rows])
    if isinstance(test, Texts):
        return Texts(tuple(test.texts[i] for i in rows), test.y[rows])
    if isinstance(test, Arrays):
        return Arrays({n: a[rows] for n, a in test.x.items()}, {n: a[rows] for n, a in test.y.items()})
    assert isinstance(test, tuple)
    return tuple(test[i] for i in rows)

"""Changes of test examples: each does what its name says, the same every time, and leaves labels and others alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost import data
from kcost.core.artifact import Dataset
from kcost.core.errors import InputError
from kcost.data import Arrays, ArraySet, Images, ImageSet, Sentence, TagSet, Texts, TextSet
from kcost.data.corruptions import (
    SWAPPED,
    conditions_for,
    corrupted,
    mistyped,
    sample_of_test,
    swapped_entities,
)
from kcost.data.names_by_region import REGIONS, names_of

RECORD = Dataset(name="d", synthetic=True, source="a test", licence="MIT", splits={})
WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=4).map(tuple)


def images(count: int = 12, side: int = 16) -> ImageSet:
    """A bright square in the middle of grey."""
    x = np.full((count, side, side, 1), 0.4, np.float32)
    x[:, 5:11, 5:11] = 0.9
    part = Images(x, np.zeros(count, np.int32))
    return ImageSet("d", ("a", "b"), dict.fromkeys(("train", "validation", "test"), part), RECORD)


def tagged(*sentences: Sentence) -> TagSet:
    names = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    return TagSet("d", names, dict.fromkeys(("train", "validation", "test"), sentences), RECORD)


ANN = Sentence(("Dear", "Ann", "Lee", "of", "Paris"), ("O", "B-PER", "I-PER", "O", "B-LOC"))
TOM = Sentence(("Thomas", "left", "London", "yesterday"), ("B-PER", "O", "B-LOC", "O"))


def test_every_change_of_an_image_changes_it_within_its_range_and_leaves_labels_and_other_splits() -> None:
    read = images()
    for condition in conditions_for(read):
        changed = corrupted(read, condition)
        assert isinstance(changed, ImageSet)
        x = changed.splits["test"].x
        assert (x.shape, x.dtype) == (read.splits["test"].x.shape, np.float32), condition
        assert 0 <= x.min() <= x.max() <= 1, condition
        assert not np.array_equal(x, read.splits["test"].x), condition
        assert np.array_equal(x, corrupted(read, condition).splits["test"].x), f"{condition} is not the same again"  # type: ignore[union-attr]
        assert changed.splits["train"] is read.splits["train"]
        assert np.array_equal(changed.splits["test"].y, read.splits["test"].y)


def change_of(condition: str) -> np.ndarray:
    read = images(200)
    changed = corrupted(read, condition)
    assert isinstance(changed, ImageSet)
    return changed.splits["test"].x - read.splits["test"].x


def test_the_strength_is_what_the_name_says() -> None:
    assert change_of("noise 5%").std() == pytest.approx(0.05, rel=0.02)  # 0.4 and 0.9 leave room on both sides
    flat = images(2)
    kept = corrupted(flat, "contrast 25%").splits["test"].x  # type: ignore[union-attr]
    assert np.ptp(kept) == pytest.approx(0.25 * 0.5, rel=1e-4)
    moved = corrupted(images(300, 40), "shift 10%").splits["test"].x[..., 0] - 0.4  # type: ignore[union-attr]
    places = np.arange(40)
    for axis in (1, 2):
        centre = (moved.sum(3 - axis) * places).sum(1) / moved.sum((1, 2)) - 7.5
        assert 2.5 < np.sqrt(2) * centre.std() < 4.5, "4 pixels in a random direction are 2.8 along each side"


def test_a_stronger_change_of_a_kind_changes_more() -> None:
    for kind in ("noise", "blur", "shift", "rotation", "contrast"):
        names = [c for c in conditions_for(images()) if c.startswith(kind)]
        sizes = [abs(change_of(name)).mean() for name in names]
        assert sizes == sorted(sizes), (kind, sizes)
        assert len(set(sizes)) == len(sizes)


def test_noise_of_numbers_goes_by_each_numbers_own_spread_and_leaves_whole_ones() -> None:
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(0, [1, 100], (4000, 2)), "n": rng.integers(0, 9, (4000, 1))}
    part = Arrays(x, {"": rng.integers(0, 2, 4000)})
    read = ArraySet("d", (), dict.fromkeys(("train", "validation", "test"), part), RECORD)
    assert conditions_for(read) == ("noise 10%", "noise 50%")
    changed = corrupted(read, "noise 50%").splits["test"].x  # type: ignore[union-attr]
    assert (changed["a"] - x["a"]).std(0) == pytest.approx([0.5, 50], rel=0.05)
    assert changed["n"] is x["n"]
    whole = ArraySet("d", (), dict.fromkeys(read.splits, Arrays({"n": x["n"]}, part.y)), RECORD)
    assert conditions_for(whole) == ()
    with pytest.raises(InputError, match="whole numbers alone"):
        corrupted(whole, "noise 10%")


@given(st.text("abcdefghijklmnopqrstuvwxyzäß", min_size=4, max_size=12), st.integers(0, 1000))
def test_a_typo_is_one_and_never_at_the_start(word: str, seed: int) -> None:
    typed = mistyped(word, np.random.default_rng(seed))
    assert typed != word
    assert typed[0] == word[0]
    assert abs(len(typed) - len(word)) <= 1


def test_typos_casing_and_their_share() -> None:
    text = " ".join(["longer", "a"] * 3000)
    part = Texts((text,), np.zeros(1, np.int32))
    read = TextSet("d", ("a", "b"), dict.fromkeys(("train", "validation", "test"), part), RECORD)
    typed = corrupted(read, "typos 30%").splits["test"].texts[0].split()  # type: ignore[union-attr]
    long = [word for word in typed if word != "a"]
    assert np.mean([word != "longer" for word in long]) == pytest.approx(0.3, abs=0.03)
    assert corrupted(read, "capital letters").splits["test"].texts[0] == text.upper()  # type: ignore[union-attr]
    assert SWAPPED not in conditions_for(read)


def test_swaps_keep_the_words_around_and_fit_the_tags() -> None:
    read = tagged(ANN, TOM)
    assert [c for c in conditions_for(read) if c.startswith("names of")] == [f"names of {r}" for r in REGIONS]
    for condition in (SWAPPED, *(f"names of {region}" for region in REGIONS)):
        changed = corrupted(read, condition).splits["test"]
        assert isinstance(changed, tuple)
        for before, after in zip((ANN, TOM), changed, strict=True):
            assert len(after.tokens) == len(after.tags)
            outside = [[t for t, tag in zip(s.tokens, s.tags, strict=True) if tag == "O"] for s in (before, after)]
            assert outside[0] == outside[1]
            starts = [[tag for tag in s.tags if tag[0] == "B"] for s in (before, after)]
            assert starts[0] == starts[1]
    renamed = corrupted(read, "names of East Asia").splits["test"]
    assert isinstance(renamed, tuple)
    assert renamed[0].tokens[1:3] in names_of("East Asia")["PER"]
    assert renamed[1].tokens[-2:-1] in names_of("East Asia")["LOC"]


@given(st.lists(WORDS, min_size=1, max_size=5), st.integers(0, 99))
def test_any_mention_may_stand_for_any(mentions: list[tuple[str, ...]], seed: int) -> None:
    (changed,) = swapped_entities((ANN,), {"PER": tuple(mentions)}, np.random.default_rng(seed))
    assert changed.tags.count("B-PER") == 1
    assert changed.tokens[-2:] == ("of", "Paris"), "a type without mentions keeps its own"
    assert changed.tokens[1 : 1 + changed.tags.count("B-PER") + changed.tags.count("I-PER")] in mentions


def test_types_that_are_no_persons_or_places_have_no_names_of_regions() -> None:
    read = TagSet("d", ("O", "B-DRUG", "I-DRUG"), {"test": (ANN,)}, RECORD)
    assert conditions_for(read)[-1] == SWAPPED
    assert all(len({p[0] for p in names_of(r)["PER"]}) == 10 == len(names_of(r)["GPE"]) for r in REGIONS)


def test_a_sample_is_seeded_in_order_and_whole_where_there_are_few() -> None:
    read = data.load("ner-mini")
    assert sample_of_test(read, 10_000) is read
    some, again = (sample_of_test(read, 20).splits["test"] for _ in range(2))
    assert some == again
    assert len(some) == 20
    places = [read.splits["test"].index(sentence) for sentence in some]  # type: ignore[union-attr, arg-type]
    assert places == sorted(places)

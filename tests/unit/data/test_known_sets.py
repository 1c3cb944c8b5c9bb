"""The sets that come with kcost, and what `load` promises of every set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kcost.core.errors import DataError, UnavailableError
from kcost.data import Images, ImageSet, Sentence, TagSet, load
from kcost.data.sets import SPLITS, images_split, sentences_split

NER_MINI_TRAIN = "e70562f75b01a4714680d8001677d3f648b5e47ad551435b4b92c7a1041de451"


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    data_set = load("digits")
    assert isinstance(data_set, ImageSet)
    return data_set


@pytest.fixture(scope="module")
def ner_mini() -> TagSet:
    data_set = load("ner-mini")
    assert isinstance(data_set, TagSet)
    return data_set


def test_digits_are_whole_and_in_range(digits):
    assert digits.task == "image-classification"
    assert digits.label_names == tuple("0123456789")
    assert digits.image_shape == (8, 8, 1)
    assert tuple(digits.splits) == SPLITS
    assert sum(len(images) for images in digits.splits.values()) == 1797
    for images in digits.splits.values():
        assert images.x.dtype == np.float32
        assert images.y.dtype == np.int32
        assert images.x.min() == 0
        assert images.x.max() == 1
        assert set(images.y.tolist()) == set(range(10))


def test_digits_keep_the_pixels_of_the_source(digits):
    from sklearn.datasets import load_digits

    source = load_digits()
    ours = np.concatenate([images.x.reshape(len(images), 64) * 16 for images in digits.splits.values()])
    labels = np.concatenate([images.y for images in digits.splits.values()])
    rows = np.column_stack([ours, labels])
    expected = np.column_stack([source.data, source.target])
    assert np.array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


def test_the_test_part_does_not_depend_on_the_seed_and_the_validation_part_does(digits):
    other = load("digits", seed=1)
    assert other.record.splits["test"] == digits.record.splits["test"]
    assert other.record.splits["validation"] != digits.record.splits["validation"]
    assert load("digits").record == digits.record


def test_the_record_hashes_what_the_splits_hold(digits, ner_mini):
    assert {name: images_split(part) for name, part in digits.splits.items()} == digits.record.splits
    assert {name: sentences_split(part) for name, part in ner_mini.splits.items()} == ner_mini.record.splits
    assert len({split.sha256 for split in digits.record.splits.values()}) == 3


def test_a_content_hash_sees_every_part_of_the_content(digits):
    part = digits.splits["test"]
    brighter, relabelled = part.x.copy(), part.y.copy()
    brighter[7, 3, 3, 0] += np.float32(1 / 16)
    relabelled[7] = (relabelled[7] + 1) % 10
    images = [part, Images(brighter, part.y), Images(part.x, relabelled), Images(part.x.reshape(-1, 4, 16, 1), part.y)]
    assert len({images_split(i).sha256 for i in images}) == 4
    words = [Sentence(("a", "b"), ("O", "O")), Sentence(("a", "b"), ("O", "B-X")), Sentence(("ab",), ("O",))]
    assert len({sentences_split((s,)).sha256 for s in words}) == 3


def test_limit_keeps_the_share_of_each_class_and_is_noted():
    data_set = load("digits", limit=50)
    assert {name: len(part) for name, part in data_set.splits.items()} == {"train": 50, "validation": 50, "test": 50}
    for part in data_set.splits.values():
        assert set(np.bincount(part.y, minlength=10).tolist()) <= {4, 5, 6}
    assert "at most 50 images a split, sampled with seed 0, each class at its share" in data_set.record.notes
    assert load("digits", limit=50, seed=3).record.splits["train"] != data_set.record.splits["train"]
    assert len(load("digits", limit=10**6).splits["test"]) == len(load("digits").splits["test"])


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_leaves_nothing_is_refused(limit):
    with pytest.raises(DataError, match=f"positive number(.|\n)*{limit}"):
        load("digits", limit=limit)


def test_ner_mini_is_synthetic_and_says_so(ner_mini):
    assert ner_mini.record.synthetic
    assert ner_mini.task == "token-classification"
    assert ner_mini.tag_names == ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
    assert {name: len(part) for name, part in ner_mini.splits.items()} == {
        "train": 1200,
        "validation": 200,
        "test": 200,
    }
    assert not load("digits", limit=5).record.synthetic


def test_ner_mini_is_always_the_same(ner_mini):
    code = "import kcost.data as d; print(d.load('ner-mini').record.splits['test'].sha256)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == ner_mini.record.splits["test"].sha256
    assert ner_mini.record.splits["train"].sha256 == NER_MINI_TRAIN, "the corpus changed: say so in CHANGELOG.md"


def test_ner_mini_is_not_solved_by_remembering_words(ner_mini):
    """A tagger that gives each word its most frequent tag of train is far from right, yet far from nothing."""
    from collections import Counter, defaultdict

    from kcost.core.scores import entity_f1

    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sentence in ner_mini.splits["train"]:
        for token, tag in zip(sentence.tokens, sentence.tags, strict=True):
            seen[token][tag] += 1
    test = ner_mini.splits["test"]
    remembered = [[max(seen[t], key=seen[t].__getitem__) if t in seen else "O" for t in s.tokens] for s in test]
    score = entity_f1([s.tags for s in test], remembered, "test")
    assert 0.2 < score.value < 0.7


def test_ner_mini_has_unseen_names_and_ambiguous_words(ner_mini):
    train_words = {token for s in ner_mini.splits["train"] for token in s.tokens}
    named = {t for s in ner_mini.splits["test"] for t, tag in zip(s.tokens, s.tags, strict=True) if tag != "O"}
    assert 0.15 < len(named - train_words) / len(named) < 0.6
    kinds: dict[str, set[str]] = {}
    for s in ner_mini.splits["train"]:
        for token, tag in zip(s.tokens, s.tags, strict=True):
            kinds.setdefault(token, set()).add(tag[2:])
    for word in ("May", "Rose", "Will", "Mark", "Reading"):
        assert {"", "PER"} <= kinds[word], word
    assert {"PER", "LOC"} <= kinds["Jordan"]


def test_ner_mini_shares_no_sentence_between_splits(ner_mini):
    tokens = [s.tokens for part in ner_mini.splits.values() for s in part]
    assert len(set(tokens)) == len(tokens) == 1600


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DataError, match=r"'minst'(.|\n)*digits, ner-mini, mnist, fashion_mnist, btc, wnut17, uner-zh"):
        load("minst")


@pytest.mark.parametrize("path", ["x" * 5000, "no/such/folder", "", "a\0b"])
def test_a_path_that_cannot_be_is_a_data_error(path):
    with pytest.raises(DataError):
        load(path)


def test_a_folder_that_may_not_be_read_is_a_data_error(tmp_path, monkeypatch):
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=rf"{tmp_path}: Permission denied"):
        load(str(tmp_path))


def test_digits_without_scikit_learn_name_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UnavailableError, match="pip install scikit-learn"):
        load("digits")


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, kcost.data, kcost.core.scores; kcost.data.load('ner-mini', limit=5)\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'torch', 'scipy', 'sklearn', 'pooch', 'tokenizers', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

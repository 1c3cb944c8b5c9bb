"""The published sets, where the folder that KCOST_DATA_DIR names holds them."""

from __future__ import annotations

import os

import numpy as np
import pytest

from kcost.core.entities import tags_of_words
from kcost.data import ImageSet, TagSet, load
from kcost.data.tokenize import WordPiece

pytestmark = pytest.mark.skipif(
    not os.environ.get("KCOST_DATA_DIR"), reason="KCOST_DATA_DIR is not set: the published data sets are not tested"
)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_images(name):
    data_set = load(name)
    assert isinstance(data_set, ImageSet)
    assert {split: len(part) for split, part in data_set.splits.items()} == {
        "train": 54000,
        "validation": 6000,
        "test": 10000,
    }
    assert data_set.image_shape == (28, 28, 1)
    assert (data_set.splits["test"].x.min(), data_set.splits["test"].x.max()) == (0, 1)
    assert data_set.splits["test"].y[:5].tolist() == {"mnist": [7, 2, 1, 0, 4], "fashion_mnist": [9, 2, 1, 1, 6]}[name]
    train = np.bincount(np.concatenate([data_set.splits["train"].y, data_set.splits["validation"].y]))
    shares = np.bincount(data_set.splits["validation"].y) / train
    assert np.allclose(shares, 0.1, atol=0.001)


SIZES = {
    "btc": {"train": (6338, 99933, 8779), "validation": (1000, 15023, 1730), "test": (2001, 35425, 4376)},
    "wnut17": {"train": (3394, 62730, 1975), "validation": (1009, 15733, 836), "test": (1287, 23394, 1079)},
    "uner-zh": {"train": (3997, 98616, 6118), "validation": (500, 12663, 753), "test": (500, 12012, 763)},
}
"""Sentences, tokens and entities, counted from the files apart from kcost."""


@pytest.mark.parametrize("name", list(SIZES))
def test_sentences(name):
    data_set = load(name, repair=False)
    assert isinstance(data_set, TagSet)
    counted = {
        split: (len(part), sum(len(s.tokens) for s in part), sum(tag[0] == "B" for s in part for tag in s.tags))
        for split, part in data_set.splits.items()
    }
    assert counted == SIZES[name]
    types = {"wnut17": ["corporation", "creative-work", "group", "location", "person", "product"]}
    assert data_set.tag_names[1::2] == tuple(f"B-{kind}" for kind in types.get(name, ["LOC", "ORG", "PER"]))


def test_what_is_odd_in_btc_is_noted():
    notes = load("btc").record.notes
    assert "validation: 4 lines with an empty token and the tag O were left out" in notes
    assert "test: 3 lines with an empty token and the tag O were left out" in notes
    assert "4 of 1000 validation examples stand in train too, exactly equal" in notes


@pytest.mark.parametrize("name", list(SIZES))
def test_every_word_keeps_its_tag_through_the_tokenizer(name):
    data_set = load(name)
    pieces = WordPiece.train(data_set.splits["train"], 6000)
    test = data_set.splits["test"]
    encoded = pieces.encode(test, data_set.tag_names, 512)
    assert encoded.unseen_words == {"btc": 1}.get(name, 0)  # a left-to-right mark alone, of which nothing is left
    true, decoded = tags_of_words(encoded.labels, encoded.labels, encoded.unseen_labels, data_set.tag_names)
    assert true == decoded == [list(s.tags) for s in test]
    short = pieces.encode(test, data_set.tag_names, 16)
    assert short.unseen_words == sum(len(s.tokens) for s in test) - (short.labels >= 0).sum() > 1

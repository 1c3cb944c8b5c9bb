"""Cards: each number that is changed is found, what a person writes is left alone."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kcost.risk.card import TO_BE_WRITTEN, Card, differences, render_card
from kcost.risk.report import Surroundings

from .test_decide import report


@pytest.fixture(scope="module")
def card() -> Card:
    around = Surroundings(columns={"part": np.where(np.arange(1500) % 2, "odd", "even")}, groups=("part",))
    return render_card(report("min_score = 0.99\nmax_p99_ms = 5.0\nusd_per_label = 0.1", around), None)


def test_a_card_is_as_its_evidence_has_it(card: Card) -> None:
    assert differences(card.text, card) == []


def test_every_number_that_is_changed_is_found(card: Card) -> None:
    """Each run of digits in turn, in the metadata, tables, hashes and gates."""
    places = list(re.finditer(r"\d+", card.text))
    assert len(places) > 100
    for place in places:
        digit = str((int(place[0][-1]) + 1) % 10)
        changed = card.text[: place.end() - 1] + digit + card.text[place.end() :]
        assert differences(changed, card), f"{place[0]} at {place.start()} was changed, and nobody saw it"


def test_every_word_of_a_block_that_is_changed_or_gone_is_found(card: Card) -> None:
    for name, text in card.blocks.items():
        assert differences(card.text.replace(text, ""), card), name
        begin = f"<!-- kcost:begin {name} -->"
        assert differences(card.text.replace(begin, ""), card), begin
    assert differences(card.text.replace("fail", "pass"), card)
    assert differences("", card)


def test_what_a_person_writes_is_left_alone(card: Card) -> None:
    written = card.text.replace(TO_BE_WRITTEN, "For sorting 10,000 letters a day.")
    assert written != card.text
    assert differences(written, card) == []
    assert differences(card.text + "\n## More\n\nSince 2024.\n", card) == []


def test_a_block_of_ones_own_is_told(card: Card) -> None:
    forged = card.text + "\n<!-- kcost:begin more -->\naccuracy 1.0\n<!-- kcost:end more -->\n"
    assert differences(forged, card) == ["the block 'more' is none of kcost's"]
    gates = "<!-- kcost:begin gates -->\nall pass\n<!-- kcost:end gates -->\n"
    for doubled in (card.text + gates, card.text.replace("\n---\n", f"\n---\n{gates}", 1)):
        assert "the block 'gates' stands there twice" in differences(doubled, card)

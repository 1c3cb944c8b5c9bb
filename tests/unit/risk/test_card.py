"""Cards: each number that is changed is found, what a person writes is left alone."""

from __future__ import annotations

import re

import pytest

from kcost.report.card_page import render_card_page
from kcost.risk.annex_iv import render_annex
from kcost.risk.card import REST_TO_BE_WRITTEN, TO_BE_WRITTEN, Card, differences, differing

from .cards import PAGES
from .reports import report


@pytest.fixture(params=list(PAGES))
def card(request: pytest.FixtureRequest) -> Card:
    return PAGES[request.param]


def test_a_card_is_as_its_evidence_has_it(card: Card) -> None:
    assert differences(card.text, card) == []


def test_every_number_that_is_changed_is_found(card: Card) -> None:
    """Each run of digits in turn, in the metadata, tables, hashes and gates."""
    places = list(re.finditer(r"\d+", card.text))
    assert len(places) > 90
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
    doubled = "<!-- kcost:begin evidence -->\nall pass\n<!-- kcost:end evidence -->\n"
    assert "the block 'evidence' stands there twice" in differences(card.text + doubled, card)
    front = PAGES["card"].text.replace("\n---\n", f"\n---\n{doubled}", 1)
    assert "the block 'evidence' stands there twice" in differences(front, PAGES["card"])


def test_every_number_that_is_changed_in_a_page_is_found(card: Card) -> None:
    """Each run of digits of the HTML in turn, those of its looks as well."""
    page = render_card_page(card.text, "card").decode()
    assert list(differing("page", page, page)) == []
    places = list(re.finditer(r"\d+", page))
    assert len(places) > 150
    for place in places:
        digit = str((int(place[0][-1]) + 1) % 10)
        changed = page[: place.end() - 1] + digit + page[place.end() :]
        assert list(differing("page", changed, page)), f"{place[0]} at {place.start()}"


def test_a_page_shows_what_its_card_says_and_runs_nothing_that_stands_in_it(card: Card) -> None:
    written = card.text.replace(TO_BE_WRITTEN, "<script>alert(1)</script> [x](javascript:alert(2))", 1)
    page = render_card_page(written, "<b>").decode()
    body = page[page.index("<main>") :]
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in body
    assert "href" not in body
    assert "<title>&lt;b&gt;</title>" in page
    assert "kcost:begin" not in body
    assert body.count("<table>") == written.count("|---|---|---|")
    shown = re.sub(r"<[^>]+>", "", body)
    for figure in re.findall(r"\d\.\d{4,}", "".join(card.blocks.values())):
        assert figure in shown


def test_annex_iv_has_every_point_and_says_who_is_to_write_it() -> None:
    text = PAGES["annex"].text
    numbers = re.findall(r"^#+ (\d(?:\([a-h]\)|\.)) ", text, re.MULTILINE)
    letters = [f"{point}({letter})" for point in (1, 2) for letter in "abcdefgh"]
    assert sorted(numbers) == sorted([*letters, *(f"{point}." for point in range(1, 10))])
    assert numbers == sorted(numbers, key=lambda n: (n[0], n[1:] != ".", n))
    for heading, evidence in {
        "2(a)": "train: epochs 3, seed 7",
        "2(c)": "12.5 s, energy not measured, 60 labelled examples",
        "2(g)": "accuracy under noise 5",
        "2(h)": "accuracy under PGD",
        "3.": "AUROC of strange",
        "5.": "min_score",
    }.items():
        section = text[text.index(f" {heading} ") :]
        assert evidence in section[: section.index("\n#")], heading
        assert REST_TO_BE_WRITTEN in section[: section.index("\n#")], heading
    assert TO_BE_WRITTEN in text[text.index("### 1(h)") :][:200]
    bare = render_annex(report(), None).text
    after = bare[bare.index("### 1(c)") : bare.index("### 1(d)")]
    assert TO_BE_WRITTEN in after, "of a bare file kcost does not know what made it"
    assert "written by a person" not in text[text.index("### 1(c)") : text.index("### 1(d)")]

"""Tagging schemes against seqeval, which reads each of them."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB1, IOB2, IOBES, Entities

from kcost.data.tags import detect, is_tag, normalise

Spans = list[tuple[str, int, int]]


@st.composite
def spans_in_words(draw: st.DrawFn) -> tuple[int, Spans]:
    """A sentence length and entities in it that do not overlap."""
    gaps = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from(["PER", "LOC"])), max_size=5))
    spans, at = [], 0
    for gap, size, kind in gaps:
        spans.append((kind, at + gap, at + gap + size))
        at += gap + size
    return at + draw(st.integers(0, 2)) + (not gaps), spans


def _write(words: int, spans: Spans, scheme: str) -> list[str]:
    tags = ["O"] * words
    for kind, start, end in spans:
        previous = tags[start - 1] if start else "O"
        first = "I" if scheme == "IOB1" and previous[2:] != kind else "B"
        tags[start:end] = [f"{first}-{kind}", *[f"I-{kind}"] * (end - start - 1)]
        if scheme in ("BIOES", "BILOU"):
            tags[end - 1] = f"{scheme[3]}-{kind}" if scheme == "BIOES" else f"L-{kind}"
            if end - start == 1:
                tags[start] = f"S-{kind}" if scheme == "BIOES" else f"U-{kind}"
    return tags


def _read(tags: list[str], scheme: type) -> Spans:
    return [(e.tag, e.start, e.end) for e in Entities([list(tags)], scheme).entities[0]]


@given(st.lists(spans_in_words(), min_size=1, max_size=6), st.sampled_from(["BIO", "IOB1", "BIOES", "BILOU"]))
def test_a_written_scheme_is_found_and_made_bio(sentences, scheme):
    written = [_write(words, spans, scheme) for words, spans in sentences]
    scheme_of_tags = detect(written)
    for tags, (words, spans) in zip(written, sentences, strict=True):
        bio, broken = normalise(tags, scheme_of_tags)
        assert bio == tuple(_write(words, spans, "BIO"))
        assert broken == ()
        assert _read(bio, IOB2) == spans


@given(spans_in_words())
def test_the_writers_of_this_test_agree_with_seqeval(sentence):
    words, spans = sentence
    assert _read(_write(words, spans, "BIO"), IOB2) == spans
    assert _read(_write(words, spans, "IOB1"), IOB1) == spans
    assert _read(_write(words, spans, "BIOES"), IOBES) == spans


@given(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), min_size=1, max_size=12))
def test_a_broken_sequence_is_repaired_as_conlleval_reads_it(tags):
    bio, broken = normalise(tags, "BIO")
    assert _read(bio, IOB2) == [(kind, start, end + 1) for kind, start, end in get_entities(tags)]
    assert normalise(bio, "BIO") == (bio, ())
    assert [i for i, (old, new) in enumerate(zip(tags, bio, strict=True)) if old != new] == list(broken)


@pytest.mark.parametrize(
    ("tags", "scheme", "bio", "broken"),
    [
        (["E-PER", "O"], "BIOES", ("B-PER", "O"), (0,)),
        (["S-PER", "I-PER"], "BIOES", ("B-PER", "B-PER"), (1,)),
        (["B-PER", "E-LOC"], "BIOES", ("B-PER", "B-LOC"), (0, 1)),
        (["B-PER", "I-PER", "O"], "BIOES", ("B-PER", "I-PER", "O"), (1,)),
        (["B-PER", "B-PER", "E-PER"], "BIOES", ("B-PER", "B-PER", "I-PER"), (0,)),
        (["O", "I-PER"], "BIOES", ("O", "B-PER"), (1,)),
        (["B-PER", "L-PER", "U-PER"], "BIOES", ("B-PER", "I-PER", "B-PER"), ()),
        (["I-PER", "B-PER"], "IOB1", ("B-PER", "B-PER"), ()),
    ],
)
def test_cases(tags, scheme, bio, broken):
    assert normalise(tags, scheme) == (bio, broken)


def test_a_file_with_both_kinds_of_starts_is_bio_that_is_broken():
    assert detect([["I-PER", "O"], ["B-LOC"]]) == "BIO"


@pytest.mark.parametrize("text", ["", "o", "B", "B-", "PER", "X-PER", "B-PER LOC", "b-PER", "B_PER", "-"])
def test_what_is_no_tag(text):
    assert not is_tag(text)


@pytest.mark.parametrize("text", ["O", "B-PER", "I-creative-work", "S-1", "U-人"])
def test_what_is_a_tag(text):
    assert is_tag(text)

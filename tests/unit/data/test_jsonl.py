"""JSON lines: tokens with tags, or a text with character spans; and what a broken line is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import DataError
from kcost.data import TagSet, load
from kcost.data.jsonl import read_jsonl
from kcost.data.words import words_of


def _read(folder, *entries: object) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    path = folder / "train.jsonl"
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [(s.tokens, s.tags) for s in read_jsonl(path).sentences]


def test_tokens_and_tags(tmp_path):
    first = {"tokens": ["Ada", "left"], "tags": ["B-PER", "O"], "id": 1}
    sentences = _read(tmp_path, first, "", {"tokens": ["x"], "labels": ["O"]})
    assert sentences == [(("Ada", "left"), ("B-PER", "O")), (("x",), ("O",))]


@pytest.mark.parametrize("key", ["spans", "entities"])
def test_text_and_spans(tmp_path, key):
    text = "Ada Lovelace's home, New York."
    spans = [{"start": 21, "end": 29, "label": "LOC", "extra": 1}, {"start": 0, "end": 12, "label": "PER"}]
    assert _read(tmp_path, {"text": text, key: spans}) == [
        (
            ("Ada", "Lovelace", "'", "s", "home", ",", "New", "York", "."),
            ("B-PER", "I-PER", "O", "O", "O", "O", "B-LOC", "I-LOC", "O"),
        )
    ]


def test_ideographs_are_words_of_their_own(tmp_path):
    entry = {"text": "我在上海工作2年", "spans": [{"start": 2, "end": 4, "label": "LOC"}]}
    assert _read(tmp_path, entry) == [(tuple("我在上海工作2年"), ("O", "O", "B-LOC", "I-LOC", *"OOOO"))]


def _words(text: str) -> list[str]:
    return [text[start:end] for start, end in words_of(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("सीता दिल्ली में रहती है।", ["सीता", "दिल्ली", "में", "रहती", "है", "।"]),
        ("สมชาย อยู่ ที่กรุงเทพ", ["สมชาย", "อยู่", "ที่กรุงเทพ"]),
        ("مُحَمَّدٌ فِي القَاهِرَة", ["مُحَمَّدٌ", "فِي", "القَاهِرَة"]),
        ("Zoe\u0308's cafe\u0301.", ["Zoe\u0308", "'", "s", "cafe\u0301", "."]),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]),
        ("क्\u200dष", ["क्\u200dष"]),
        ("か\u3099き\u3099", ["か\u3099", "き\u3099"]),
        ("葛\U000e0100城", ["葛\U000e0100", "城"]),
        ("ok ❤\ufe0f! 1\ufe0f\u20e3", ["ok", "❤\ufe0f", "!", "1\ufe0f\u20e3"]),
        ("\U0001f469\u200d\U0001f467x", ["\U0001f469\u200d\U0001f467", "x"]),
        ("\u0301 a", ["\u0301", "a"]),
        ("a_b-c3", ["a_b", "-", "c3"]),
    ],
)
def test_marks_and_joiners_belong_to_the_character_before(text, words):
    assert _words(text) == words


def test_spans_of_a_text_with_vowel_signs_keep_their_offsets(tmp_path):
    text = "सीता दिल्ली में रहती है"
    spans = [{"start": 0, "end": 4, "label": "PER"}, {"start": 5, "end": 11, "label": "LOC"}]
    assert _read(tmp_path, {"text": text, "spans": spans}) == [(tuple(text.split()), ("B-PER", "B-LOC", "O", "O", "O"))]


def test_a_span_inside_a_word_of_a_script_without_spaces_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(DataError, match=r'Thai(.|\n)*"tokens"'):
        _read(tmp_path, {"text": "เขาอยู่กรุงเทพ", "spans": [{"start": 7, "end": 14, "label": "LOC"}]})


@given(st.text())
def test_words_cover_all_but_white_space(text):
    assert "".join(_words(text)) == "".join(text.split())


@given(st.text(min_size=1).filter(lambda text: len(words_of(text)) > 0), st.data())
def test_a_span_of_whole_words_is_read_back(tmp_path_factory, text, data):
    words = words_of(text)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    entry = {"text": text, "spans": [{"start": words[first][0], "end": words[last][1], "label": "X"}]}
    [(tokens, tags)] = _read(tmp_path_factory.mktemp("jsonl"), entry)
    assert list(tokens) == _words(text)
    assert [i for i, tag in enumerate(tags) if tag != "O"] == list(range(first, last + 1))


TEXT = "Ada left Paris"


def _span(start: object, end: object, label: object = "PER") -> dict[str, object]:
    return {"start": start, "end": end, "label": label}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"tokens": ["a"]', "line 2, column 17: Expecting"),
        ("[" * 100_000, "line 2: "),
        ("[1]", "line 2: a list"),
        ({"words": ["a"]}, "line 2: the keys words"),
        ({"tokens": ["a"], "tags": [0]}, "tags by name"),
        ({"tokens": "a b", "tags": ["O"]}, "lists of strings"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "line 2: 2 tokens and 1 tags"),
        ({"tokens": ["a"], "tags": ["PER"]}, "line 2: the tag 'PER'"),
        ({"tokens": [" "], "tags": ["B-PER"]}, "empty token"),
        ({"text": TEXT}, "line 2: the keys text"),
        ({"text": TEXT, "spans": [_span(0, 2)]}, "line 2: the PER span 0 to 2, 'Ad'"),
        ({"text": TEXT, "spans": [_span(1, 3)]}, "where a word starts"),
        ({"text": TEXT, "spans": [_span(0, 4)]}, "the end is exclusive"),
        ({"text": TEXT, "spans": [_span(4, 3)]}, "span 4 to 3"),
        ({"text": TEXT, "spans": [_span(-3, 99)]}, "span -3 to 99"),
        ({"text": TEXT, "spans": [_span(0, 3), _span(0, 8)]}, "overlaps"),
        ({"text": TEXT, "spans": [_span("0", 3)]}, 'Write {"start"'),
        ({"text": TEXT, "spans": [_span(True, 3)]}, 'Write {"start"'),
        ({"text": TEXT, "spans": [_span(0, 3, "a b")]}, 'Write {"start"'),
        ({"text": TEXT, "spans": [[0, 3, "PER"]]}, 'Write {"start"'),
    ],
)
def test_a_broken_line_is_named(tmp_path, entry, message):
    with pytest.raises(DataError) as caught:
        _read(tmp_path, {"tokens": ["a"], "tags": ["O"]}, entry)
    assert message in str(caught.value)
    assert f"{tmp_path / 'train.jsonl'}, line 2" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["O", "B-X", "a b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tokens", "tags", "text", "spans", "start", "end", "label"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_a_sentence_or_a_data_error(tmp_path_factory, entry):
    folder = tmp_path_factory.mktemp("jsonl")
    try:
        sentences = _read(folder, {"tokens": ["a"], "tags": ["O"]}, entry)
    except DataError as error:
        message = str(error)
    else:
        assert len(sentences) in (1, 2)
        message = "line 2"
    assert "line 2" in message


def test_an_empty_file(tmp_path):
    with pytest.raises(DataError, match="at least one word"):
        _read(tmp_path, "", {"text": " ", "spans": []})


def test_load_by_path_cuts_parts_and_counts_empty_tokens(tmp_path):
    entries = [{"tokens": ["Ada", "", str(i)], "tags": ["S-PER", "O", "O"]} for i in range(10)]
    _read(tmp_path, *entries)
    data_set = load(str(tmp_path / "train.jsonl"))
    assert isinstance(data_set, TagSet)
    assert data_set.splits["test"][0].tags == ("B-PER", "O")
    assert data_set.record.notes[:2] == (
        "tags converted from BIOES to BIO",
        "train: 10 words of white space with the tag O were left out",
    )
    (tmp_path / "test.jsonl").write_text('{"text": "Bea ran", "entities": [{"start": 0, "end": 3, "label": "PER"}]}\n')
    assert {name: len(part) for name, part in load(str(tmp_path)).splits.items()} == {
        "train": 9,
        "validation": 1,
        "test": 1,
    }

"""Texts with one label each: JSON lines and CSV, and what a broken line is told."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import DataError
from kcost.data import TagSet, TextSet, load
from kcost.data.texts import read_texts


def write(path: Path, *entries: object) -> Path:
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def examples(count: int = 20) -> list[dict[str, str]]:
    return [{"text": f"text {i}", "label": "odd" if i % 2 else "even"} for i in range(count)]


def test_json_lines(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"text": "Good  day", "label": " yes "},
        "",
        {"tokens": ["a", "b"], "label": 3, "id": 1},
        {"text": " ", "label": "no"},
    )
    raw = read_texts(path)
    assert (raw.texts, raw.labels, raw.empty) == (("Good  day", "a b"), ("yes", "3"), 1)


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_csv(tmp_path, name, separator):
    text = f'label{separator}id{separator}text\nyes{separator}1{separator}"one, ""two""\nthree\u2028"\n'
    (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")
    raw = read_texts(tmp_path / name)
    assert (raw.texts, raw.labels) == (('one, "two"\nthree\u2028',), ("yes",))


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a"])
def test_the_header_tells_a_table_not_the_ending(tmp_path, name, separator):
    rows = [f"text {i}{separator}{'ab'[i % 2]}" for i in range(20)]
    (tmp_path / name).write_text("\r\n".join([f"text{separator}label", *rows]), encoding="utf-16")
    data_set = load(str(tmp_path / name))
    assert isinstance(data_set, TextSet)
    assert (data_set.label_names, sum(len(part) for part in data_set.splits.values())) == (("a", "b"), 20)


@pytest.mark.parametrize("name", ["train.txt", "train.data", "train"])
def test_json_lines_are_known_by_their_content(tmp_path, name):
    assert isinstance(load(str(write(tmp_path / name, *examples()))), TextSet)


def test_a_table_named_train_goes_before_text_files_that_are_no_part(tmp_path):
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
    (tmp_path / "train.csv").write_text("text,label\n" + rows)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    assert isinstance(load(str(tmp_path)), TextSet)


PRINTED = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


ROWS = st.lists(st.tuples(PRINTED, PRINTED.map(str.strip)), min_size=1, max_size=5)


@given(ROWS, st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_what_is_written_is_read(tmp_path_factory, rows, suffix):
    path = tmp_path_factory.mktemp("texts") / f"a{suffix}"
    if suffix == ".jsonl":
        content = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    else:
        out = io.StringIO()
        writer = csv.writer(out, delimiter="\t" if suffix == ".tsv" else ",", quoting=csv.QUOTE_ALL)
        writer.writerows([("text", "label"), *rows])
        content = out.getvalue()
    path.write_bytes(content.encode())
    raw = read_texts(path)
    assert list(zip(raw.texts, raw.labels, strict=True)) == rows


def test_load_cuts_stratified_parts_and_notes_what_happened(tmp_path):
    data_set = load(str(write(tmp_path / "a.jsonl", *examples(40), {"text": "", "label": "odd"}, examples()[0])))
    assert isinstance(data_set, TextSet)
    assert (data_set.task, data_set.label_names) == ("sequence-classification", ("even", "odd"))
    assert {name: len(part) for name, part in data_set.splits.items()} == {"train": 30, "validation": 3, "test": 8}
    assert Counter(data_set.splits["test"].y.tolist()) == {0: 4, 1: 4}
    for part in data_set.splits.values():
        assert part.y.dtype == np.int32
        assert all((int(text.split()[1]) % 2) == y for text, y in zip(part.texts, part.y, strict=True))
    assert data_set.record.notes[0] == "train: 1 empty texts were left out"
    assert data_set.record.splits["test"].count == 8
    again = load(str(tmp_path / "a.jsonl"))
    assert again.record == data_set.record
    other = load(str(tmp_path / "a.jsonl"), limit=2, seed=3)
    assert [len(part) for part in other.splits.values()] == [2, 2, 2]
    assert other.record.splits["train"].sha256 != data_set.record.splits["train"].sha256


def test_a_folder_of_parts(tmp_path):
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.csv").write_text("text,label\n" + "".join(f"{part} {i},{'ab'[i % 2]}\n" for i in range(4)))
    (tmp_path / "test.csv").write_text("text,label\ntrain 0,a\ntest 1,c\n")
    data_set = load(str(tmp_path))
    assert isinstance(data_set, TextSet)
    assert data_set.label_names == ("a", "b", "c")
    assert data_set.splits["validation"].texts == ("dev 0", "dev 1", "dev 2", "dev 3")
    assert "1 of 2 test examples stand in train too, exactly equal" in data_set.record.notes
    assert "labels without a train example: c" in data_set.record.notes


def test_tagged_sentences_stay_tagged_sentences(tmp_path):
    rows = [{"tokens": ["Ada", str(i)], "tags": ["B-PER", "O"], "label": "x"} for i in range(10)]
    write(tmp_path / "train.jsonl", *rows)
    (tmp_path / "train_counts.csv").write_text("a,b\n")
    assert isinstance(load(str(tmp_path)), TagSet)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"text": "a"', "line 3, column 13: Expecting"),
        ("[" * 100_000, "line 3: "),
        ("[1]", "line 3: a list"),
        ({"label": "a"}, "line 3: no text"),
        ({"text": "a"}, "line 3: a label that is empty or no string"),
        ({"text": "a", "label": " "}, "line 3: a label that is empty"),
        ({"text": "a", "label": True}, "line 3: a label"),
        ({"text": ["a"], "label": "x"}, "line 3: no text"),
        ({"tokens": ["a", 1], "label": "x"}, "line 3: no text"),
        ({"text": "\ud800", "label": "x"}, "surrogate"),
    ],
)
def test_a_broken_line_is_named(tmp_path, entry, message):
    path = write(tmp_path / "a.jsonl", *examples(2), entry)
    with pytest.raises(DataError) as caught:
        load(str(path))
    assert message in str(caught.value)
    assert f"{path}, line 3" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no header"),
        ("text,class\na,b\n", "with text, class"),
        ("text,label\n", "without any"),
        ("text,label\na\n", "line 2: a label"),
        ("text,label\na,\n", "line 2: a label"),
        ('text,label\n"a,b\n', "line 2: unexpected end of data"),
        ('text,label\na,b\n"c" d,b\n', "line 3: ',' expected after '\"'"),
        ("text,label\na,b\nwell, this,c\n", "line 3: 3 columns"),
        ("text,label\na,b\nc,b\n", "the label 'b' alone"),
        ("text,label\na,b\n,c\nx,c\n", "none left for"),
    ],
)
def test_a_broken_csv_is_named(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / "a.csv"))
    assert message in str(caught.value)


def test_long_texts_of_a_csv_are_read(tmp_path):
    limit = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f"text,label\n{'a' * (limit + 1)},b\n")
    assert len(read_texts(tmp_path / "a.csv").texts[0]) == limit + 1
    assert csv.field_size_limit() == limit

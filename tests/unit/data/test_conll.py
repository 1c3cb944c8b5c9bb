"""CoNLL files: forms, odd characters, repairs, and what a broken line is told."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import DataError
from kcost.data import TagSet, load
from kcost.data.conll import read_conll
from tests.unit.data.files import TEN, conll


def _load(path, **settings) -> TagSet:
    data_set = load(str(path), **settings)
    assert isinstance(data_set, TagSet)
    return data_set


def _write(path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return path


def _read(tmp_path, text: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(s.tokens, s.tags) for s in read_conll(_write(tmp_path / "file.conll", text)).sentences]


TOKENS = st.text(st.characters(exclude_characters="\t\n\r\0", exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip() and not text.startswith(("-DOCSTART-", "\ufeff")) and not ("=" in text and text[0] == "#")
)
ROWS = st.lists(st.tuples(TOKENS, st.sampled_from(["O", "B-PER", "I-PER", "B-LOC"])), min_size=1, max_size=6)
SENTENCES = st.lists(ROWS, min_size=1, max_size=4)


@given(SENTENCES)
def test_what_is_written_with_tabs_is_read(tmp_path_factory, sentences):
    text = "".join("".join(f"{token}\t{tag}\n" for token, tag in rows) + "\n" for rows in sentences)
    expected = [tuple(zip(*rows, strict=True)) for rows in sentences]
    assert _read(tmp_path_factory.mktemp("conll"), text) == expected


@given(st.text())
def test_any_text_is_sentences_or_a_data_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("conll") / "file.conll"
    path.write_bytes(text.encode("utf-8", "replace"))
    try:
        file = read_conll(path)
    except DataError as error:
        message = str(error)
    else:
        message = str(file.path)
        assert file.sentences
    assert str(path) in message


@pytest.mark.parametrize("separator", ["\t", " ", "  ", " \t"])
def test_separators(tmp_path, separator):
    sentences = _read(tmp_path, conll("Ada/B-PER left/O", "Go/O", separator=separator))
    assert [[token.strip() for token in tokens] for tokens, _ in sentences] == [["Ada", "left"], ["Go"]]
    assert [tags for _, tags in sentences] == [("B-PER", "O"), ("O",)]


def test_columns_between_token_and_tag_are_passed_over(tmp_path):
    text = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n"
    assert _read(tmp_path, text) == [(("EU", "rejects"), ("B-ORG", "O"))]


def test_the_form_of_universal_ner(tmp_path):
    text = (
        "# newdoc id = 1\n# sent_id = 1-1\n# text = # Ada left\n"
        "1\t#\tO\t-\t-\n2\tAda\tB-PER\t-\tann\n3\tleft\tO\t-\t-\n"
        "\n# sent_id = 1-2\n1\t7\tO\t-\t-\n"
    )
    assert _read(tmp_path, text) == [(("#", "Ada", "left"), ("O", "B-PER", "O")), (("7",), ("O",))]


def test_numbers_as_tokens_are_not_taken_for_an_index(tmp_path):
    assert _read(tmp_path, "1\tO\n2\tO\n\n1\tB-PER\n") == [(("1", "2"), ("O", "O")), (("1",), ("B-PER",))]


def test_a_hash_sign_as_a_token_is_no_comment(tmp_path):
    assert _read(tmp_path, "# O\nAda B-PER\n") == [(("#", "Ada"), ("O", "B-PER"))]
    assert _read(tmp_path, "#\tO\n#tag\tO\nAda\tB-PER\n")[0][0] == ("#", "#tag", "Ada")


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("#newparty O", True),
        ("#newdocs\tB-ORG", True),
        ("#newpar O", True),
        ("# O", True),
        ("#text B-ORG", True),
        ("#", False),
        ("# ", False),
        ("#newpar", False),
        ("# newdoc", False),
        ("# newdoc id = x", False),
        ("#newdoc id=x", False),
        ("# sent_id = 3", False),
        ("#sent_id = 3", False),
        ("# text = Ada\tleft O", False),
        ("# made by hand\tin 2020", False),
        ("# this sentence is about B-PER", False),
    ],
)
def test_words_and_comments_that_begin_with_a_hash_sign(tmp_path, line, kept):
    separator = "\t" if "\t" in line else " "
    text = f"{line}\nAda{separator}B-PER\n\nleft{separator}O\n"
    file = read_conll(_write(tmp_path / "file.conll", text))
    assert [len(s.tokens) for s in file.sentences] == [1 + kept, 1]
    assert file.left_out == ({} if kept else {"comment lines": 1})


def test_a_hash_sign_in_a_file_of_four_columns(tmp_path):
    text = "# SYM B-NP O\nAda NNP B-NP B-PER\n# a comment on O\n"
    assert _read(tmp_path, text) == [(("#", "Ada"), ("O", "B-PER"))]


def test_empty_columns_at_the_end_do_not_count(tmp_path):
    text = "Ada\tB-PER\t\t\r\nleft\tO\t\r\n\r\nAda\tB-PER \r\n"
    assert _read(tmp_path, text) == [(("Ada", "left"), ("B-PER", "O")), (("Ada",), ("B-PER",))]


def test_multiword_tokens_and_empty_nodes_of_conll_u_are_no_words(tmp_path):
    text = "1-2\tdel\tO\n1\tde\tO\n2\tel\tO\n2.1\tx\tO\n3\tRey\tB-PER\n"
    file = read_conll(_write(tmp_path / "file.conllu", text))
    assert file.sentences[0].tokens == ("de", "el", "Rey")
    assert file.left_out == {"lines of CoNLL-U that are no words (multiword tokens and empty nodes)": 2}


def test_an_indexed_file_with_the_tag_last(tmp_path):
    text = "1\tAda\tPROPN\tB-PER\n2\tleft\tVERB\tO\n"
    assert _read(tmp_path, text) == [(("Ada", "left"), ("B-PER", "O"))]


@pytest.mark.parametrize(
    "name", ["train.tsv", "train.txt", "train.iob2", "train.conll", "train.bio", "train", "train.csv"]
)
@pytest.mark.parametrize("separator", ["\t", " "])
def test_the_columns_tell_the_form_not_the_ending(tmp_path, name, separator):
    text = "# a comment\n" + conll(*TEN, separator=separator)
    data_set = _load(_write(tmp_path / name, text))
    assert sum(len(part) for part in data_set.splits.values()) == 10
    assert "train: 1 comment lines were left out" in data_set.record.notes


def test_parts_between_tabs_beside_other_tables(tmp_path):
    for part in ("train", "devel", "test"):
        _write(tmp_path / f"{part}.tsv", conll(*TEN))
    _write(tmp_path / "train_counts.csv", "type,count\nPER,3\n")
    assert {name: len(part) for name, part in _load(tmp_path).splits.items()} == {
        "train": 10,
        "validation": 10,
        "test": 10,
    }


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32", "utf-16-le-mark", "utf-16-be-mark"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, encoding):
    text = "Zoë\tB-PER\r\n上海\tB-LOC\r\n"
    mark = "\ufeff" if encoding.endswith("-mark") else ""
    path = tmp_path / "train.txt"
    path.write_bytes((mark + text).encode(encoding.removesuffix("-mark")))
    assert [(s.tokens, s.tags) for s in read_conll(path).sentences] == [(("Zoë", "上海"), ("B-PER", "B-LOC"))]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_refused_by_name(tmp_path, encoding):
    path = tmp_path / "train.txt"
    path.write_bytes("Ada\tB-PER\nleft\tO\n".encode(encoding))
    with pytest.raises(DataError, match=r"UTF-16(.|\n)*iconv"):
        load(str(path))


def test_tags_without_a_type_are_refused_once_with_their_count(tmp_path):
    _write(tmp_path / "train.tsv", conll(*["p53/B binds/O", "the/O gene/B BRCA1/I"] * 5))
    _write(tmp_path / "test.tsv", conll("p53/B binds/O"))
    with pytest.raises(DataError) as caught:
        load(str(tmp_path))
    message = str(caught.value)
    assert "16 tags without a type: 15 in" in message
    assert f"{tmp_path / 'train.tsv'} (the first, B, in line 1), 1 in {tmp_path / 'test.tsv'}" in message
    assert "sed -E" in message


def test_odd_lines(tmp_path):
    text = "\ufeffAda\tB-PER\r\n\ufe0f\tO\r\n\t\r\nA\u00a0b\u2028c\tO\n \t \n\nlast\tO"
    sentences = _read(tmp_path, text)
    assert sentences == [(("Ada", "\ufe0f"), ("B-PER", "O")), (("A\u00a0b\u2028c",), ("O",)), (("last",), ("O",))]


def test_empty_tokens_are_left_out_and_noted(tmp_path):
    folder = tmp_path / "set"
    _write(folder / "train.conll", "\tO\n \tO\n" + conll(*TEN))
    _write(folder / "test.conll", conll("Bea/B-PER ran/O"))
    data_set = _load(folder)
    assert "train: 2 lines with an empty token and the tag O were left out" in data_set.record.notes
    with pytest.raises(DataError, match=r"line 2: the tag B-PER on an empty token"):
        _read(tmp_path, "a\tO\n\tB-PER\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ada\tB-PER\nleft\n", r"file.conll, line 2: 'left'"),
        ("Ada B-PER\n\n\nleft\n", r"file.conll, line 4: 'left'"),
        ("Ada\tPER\n", r"line 1: tag 'PER'"),
        ("Ada\tO\nleft\tb-per\n", r"line 2: tag 'b-per'"),
        ("Ada\t\n", r"line 1: 'Ada'"),
        ("Ada\tNNP\tO\nLu\tNNP\tO\nleft\tVB\t\n", r"line 3: 'left\\tVB'"),
        ("1\tAda\tB-PER\n2\tleft\n", r"line 2: tag 'left'"),
        ("", "at least one token"),
        ("\n \n\t\n", "at least one token"),
        ("# sent_id = 3\n", "at least one token"),
    ],
)
def test_a_broken_line_is_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        _read(tmp_path, text)
    assert str(tmp_path / "file.conll") in str(caught.value)


def test_a_byte_that_is_not_utf8_is_named_with_its_line(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(b"Ada\tO\nZo\xeb\tB-PER\n")
    with pytest.raises(DataError, match=r"train.txt, line 2: byte 0xeb(.|\n)*iconv"):
        load(str(path))


@pytest.mark.parametrize(
    "names",
    [
        ("train.conll", "dev.conll", "test.conll"),
        ("mine.train", "mine.dev", "mine.test"),
        ("wnut17train.conll", "emerging.valid.conll", "emerging.test.annotated"),
        ("zh-ud-train.iob2", "zh-ud-dev.iob2", "zh-ud-test.iob2"),
    ],
)
def test_parts_by_file_name(tmp_path, names):
    texts = [conll(*TEN), conll("Bea/B-ORG ran/O"), conll("Cy/B-LOC sat/O", "Di/B-PER ate/O")]
    for name, text in zip(names, texts, strict=True):
        _write(tmp_path / name, text)
    _write(tmp_path / "README.md", "# About\n")
    _write(tmp_path / "LICENSE", "free\n")
    data_set = _load(tmp_path)
    assert {name: len(part) for name, part in data_set.splits.items()} == {"train": 10, "validation": 1, "test": 2}
    assert data_set.tag_names == ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
    assert "entity types without a train example: LOC, ORG" in data_set.record.notes


def test_one_file_is_cut_into_three_parts(tmp_path):
    data_set = _load(_write(tmp_path / "all.bio", conll(*TEN)))
    assert data_set.name == "all"
    assert {name: len(part) for name, part in data_set.splits.items()} == {"train": 7, "validation": 1, "test": 2}
    assert sorted(s.tokens[4] for part in data_set.splits.values() for s in part) == [str(i) for i in range(10)]
    assert len([note for note in data_set.record.notes if "taken from train" in note]) == 2
    alone = tmp_path / "folder"
    _write(alone / "corpus.txt", conll(*TEN))
    assert _load(alone).record.splits == data_set.record.splits


def test_folders_without_the_parts(tmp_path):
    _write(tmp_path / "a.conll", conll(*TEN))
    _write(tmp_path / "b.conll", conll(*TEN))
    with pytest.raises(DataError, match=r"a.conll, b.conll(.|\n)*train.conll"):
        load(str(tmp_path))
    _write(tmp_path / "test.conll", conll(*TEN))
    with pytest.raises(DataError, match="has a train part"):
        load(str(tmp_path))
    _write(tmp_path / "train.conll", conll(*TEN))
    _write(tmp_path / "train2.conll", conll(*TEN))
    with pytest.raises(DataError, match=r"train.conll and train2.conll"):
        load(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no data file"):
        load(str(tmp_path / "empty"))


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="give the folder"):
        load(str(path))


def test_a_broken_sequence_is_repaired_and_counted_or_refused(tmp_path):
    _write(tmp_path / "train.conll", conll(*TEN, "Bea/I-PER Orr/I-PER met/O Cy/B-LOC Di/I-PER"))
    _write(tmp_path / "test.conll", conll("Cy/B-PER sat/O"))
    data_set = _load(tmp_path)
    assert "train: 2 tags that continued no entity were repaired to start one" in data_set.record.notes
    repaired = [s.tags for s in data_set.splits["train"] + data_set.splits["validation"] if s.tokens[0] == "Bea"]
    assert repaired == [("B-PER", "I-PER", "O", "B-LOC", "B-PER")]
    with pytest.raises(DataError, match=r"train.conll, line 71: I-PER, which continues none(.|\n)*repair=True"):
        load(str(tmp_path), repair=False)


def test_an_entity_that_bioes_leaves_open_is_repaired_and_counted_or_refused(tmp_path):
    closed = ["Ada/B-PER Lu/E-PER sat/O Rome/S-LOC"] * 9
    path = _write(tmp_path / "train.conll", conll(*closed, "Bea/B-PER Orr/I-PER met/O Cy/I-LOC Di/E-LOC"))
    notes = _load(path).record.notes
    assert "train: 1 tags that left their entity open were repaired to end it" in notes
    assert "train: 1 tags that continued no entity were repaired to start one" in notes
    with pytest.raises(DataError, match=r"train.conll, line 47: I-PER, which leaves its entity open(.|\n)*--no-repair"):
        load(str(path), repair=False)


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [("IOB1", "I-PER I-PER O I-LOC B-LOC"), ("BIOES", "B-PER E-PER O S-LOC S-LOC")],
)
def test_other_schemes_become_bio_and_are_noted(tmp_path, scheme, tags):
    sentences = [" ".join(f"w{i}{j}/{tag}" for j, tag in enumerate(tags.split())) for i in range(10)]
    data_set = _load(_write(tmp_path / "all.conll", conll(*sentences)), repair=False)
    assert {s.tags for part in data_set.splits.values() for s in part} == {("B-PER", "I-PER", "O", "B-LOC", "B-LOC")}
    assert f"tags converted from {scheme} to BIO" in data_set.record.notes


def test_duplicates_between_splits_are_noted(tmp_path):
    _write(tmp_path / "train.conll", conll(*TEN))
    _write(tmp_path / "dev.conll", conll("New/O one/O"))
    _write(tmp_path / "test.conll", conll(TEN[3], "New/O one/O", "New/B-ORG two/I-ORG"))
    notes = _load(tmp_path).record.notes
    assert "1 of 3 test examples stand in train too, exactly equal" in notes
    assert "1 of 3 test examples stand in validation too, exactly equal" in notes


def test_limit(tmp_path):
    _write(tmp_path / "train.conll", conll(*TEN))
    _write(tmp_path / "test.conll", conll("Cy/B-PER sat/O"))
    data_set = _load(tmp_path, limit=4, seed=2)
    assert {name: len(part) for name, part in data_set.splits.items()} == {"train": 4, "validation": 1, "test": 1}
    assert "at most 4 sentences a split, sampled with seed 2" in data_set.record.notes


def test_no_entity_or_too_few_sentences(tmp_path):
    with pytest.raises(DataError, match="at least one entity"):
        load(str(_write(tmp_path / "o.conll", conll("a/O", "b/O", "c/O"))))
    with pytest.raises(DataError, match=r"at least one example(.|\n)*2"):
        load(str(_write(tmp_path / "two.conll", conll("a/B-PER", "b/O"))))

"""WordPiece: the arrays, the way back to words, truncation, vocabularies on disk."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.entities import tags_of_words
from kcost.core.errors import ArtifactError, DataError, StorageError
from kcost.data import Sentence, load
from kcost.data.tokenize import IGNORED, Encoded, WordPiece
from kcost.data.tokenizer_files import read_tokenizer

TAGS = ("O", "B-PER", "I-PER")
NAMES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Ada", "un", "##seen", "##s", ".", "'", "left", "海", "上"]


def _pieces(lowercase: bool = False) -> WordPiece:
    return WordPiece.from_vocab({piece: i for i, piece in enumerate(VOCAB)}, lowercase=lowercase)


def _sentence(words: str, tags: str) -> Sentence:
    return Sentence(tuple(words.split()), tuple(tags.split()))


def _decoded(encoded: Encoded, predictions: np.ndarray) -> list[list[str]]:
    """One tag a word."""
    return tags_of_words(encoded.labels, predictions, encoded.unseen_labels, TAGS)[1]


def test_arrays_of_a_sentence():
    encoded = _pieces().encode([_sentence("Ada unseens left .", "B-PER I-PER O O")], TAGS, 10)
    ids = {piece: i for i, piece in enumerate(VOCAB)}
    expected = ["[CLS]", "Ada", "un", "##seen", "##s", "left", ".", "[SEP]", "[PAD]", "[PAD]"]
    assert encoded.token_ids.tolist() == [[ids[piece] for piece in expected]]
    assert encoded.segment_ids.tolist() == [[0] * 10]
    assert encoded.padding_mask.tolist() == [[1] * 8 + [0] * 2]
    assert encoded.labels.tolist() == [[-1, 1, 2, -1, -1, 0, 0, -1, -1, -1]]
    assert [row.tolist() for row in encoded.unseen_labels] == [[]]
    assert encoded.lengths.tolist() == [8]
    assert encoded.unseen_words == 0
    for array in (encoded.token_ids, encoded.segment_ids, encoded.padding_mask, encoded.labels, *encoded.unseen_labels):
        assert array.dtype == np.int32


def test_the_pieces_are_those_of_the_library():
    from tokenizers.implementations import BertWordPieceTokenizer

    data = load("ner-mini", limit=40)
    ours = WordPiece.train(data.splits["train"], 300)
    theirs = BertWordPieceTokenizer(ours.vocab, lowercase=False)
    encoded = ours.encode(data.splits["test"], data.tag_names, 128)
    for row, sentence in enumerate(data.splits["test"]):
        expected = theirs.encode(list(sentence.tokens), is_pretokenized=True)
        length = encoded.lengths[row]
        assert encoded.token_ids[row, :length].tolist() == expected.ids
        words = expected.word_ids
        firsts = [i for i, word in enumerate(words) if word is not None and word != words[i - 1]]
        assert np.flatnonzero(encoded.labels[row] >= 0).tolist() == firsts


def test_words_that_normalisation_empties_have_no_place_and_are_counted():
    words = Sentence(("\ufe0f", "Ada", "\u200b", "left", "\u200e"), ("O", "B-PER", "O", "I-PER", "O"))
    encoded = _pieces(lowercase=True).encode([words], TAGS, 8)
    assert encoded.labels.tolist() == [[-1, 1, 2, -1, -1, -1, -1, -1]]
    assert [row.tolist() for row in encoded.unseen_labels] == [[0, -1, 0, -1, 0]]
    assert encoded.unseen_words == 3
    assert _decoded(encoded, encoded.labels) == [["O", "B-PER", "O", "I-PER", "O"]]


def test_special_tokens_in_a_text_are_known_as_transformers_knows_them():
    encoded = _pieces().encode([_sentence("[SEP] x[MASK]", "O B-PER")], TAGS, 8)
    assert encoded.token_ids[0, :5].tolist() == [VOCAB.index(p) for p in ("[CLS]", "[SEP]", "[UNK]", "[MASK]", "[SEP]")]
    assert encoded.labels[0].tolist() == [-1, 0, 1, -1, -1, -1, -1, -1]


def test_ideographs_inside_a_word_are_pieces_of_it():
    encoded = _pieces().encode([Sentence(("上海", "left"), ("B-PER", "O"))], TAGS, 8)
    assert encoded.token_ids[0, :5].tolist() == [VOCAB.index(p) for p in ("[CLS]", "上", "海", "left", "[SEP]")]
    assert encoded.labels[0, :5].tolist() == [-1, 1, -1, 0, -1]


def test_lost_words_are_counted_and_predicted_o():
    sentences = [_sentence("Ada unseens Ada", "B-PER I-PER B-PER"), _sentence("Ada", "B-PER")]
    encoded = _pieces().encode(sentences, TAGS, 5)
    assert encoded.token_ids[0].tolist() == [VOCAB.index(p) for p in ("[CLS]", "Ada", "un", "##seen", "[SEP]")]
    assert encoded.unseen_words == 1
    assert [row.tolist() for row in encoded.unseen_labels] == [[-1, -1, 1], []]
    assert _decoded(encoded, np.ones((2, 5), int)) == [["B-PER", "B-PER", "O"], ["B-PER"]]


@given(
    st.lists(
        st.lists(st.tuples(st.text(min_size=1, max_size=8), st.sampled_from(TAGS)), max_size=8).map(
            lambda rows: Sentence(tuple(t for t, _ in rows), tuple(tag for _, tag in rows))
        ),
        max_size=4,
    ),
    st.integers(3, 12),
    st.booleans(),
)
@settings(deadline=None)
def test_true_labels_come_back_as_the_true_tags_where_they_fit(sentences, max_length, lowercase):
    pieces = WordPiece.from_vocab({piece: i for i, piece in enumerate(VOCAB)}, lowercase=lowercase)
    encoded = pieces.encode(sentences, TAGS, max_length)
    assert encoded.token_ids.shape == (len(sentences), max_length)
    assert (encoded.lengths <= max_length).all()
    true, decoded = tags_of_words(encoded.labels, encoded.labels, encoded.unseen_labels, TAGS)
    assert true == [list(sentence.tags) for sentence in sentences]
    for sentence, tags, unseen in zip(sentences, decoded, encoded.unseen_labels, strict=True):
        lost = set(np.flatnonzero(unseen != IGNORED).tolist())
        assert tags == ["O" if i in lost else tag for i, tag in enumerate(sentence.tags)]
    assert encoded.unseen_words == sum(len(s.tokens) for s in sentences) - (encoded.labels != IGNORED).sum()


def test_a_tag_that_the_model_does_not_know_is_a_data_error():
    with pytest.raises(DataError, match=r"'B-LOC' in sentence 1(.|\n)*O, B-PER, I-PER"):
        _pieces().encode([_sentence("Ada", "O"), _sentence("Ada", "B-LOC")], TAGS, 6)
    with pytest.raises(ValueError, match="at least 3"):
        _pieces().encode([], TAGS, 2)


def test_take_cuts_rows_and_columns():
    sentences = [_sentence("Ada unseens left .", "B-PER I-PER O O"), _sentence("Ada", "B-PER"), _sentence("left", "O")]
    encoded = _pieces().encode(sentences, TAGS, 10)
    part = encoded.take(np.array([2, 1]), 3)
    assert part.token_ids.tolist() == [[2, VOCAB.index("left"), 3], [2, VOCAB.index("Ada"), 3]]
    assert _decoded(part, part.labels) == [["O"], ["B-PER"]]
    with pytest.raises(ValueError, match="longest sentence, 8"):
        encoded.take(np.array([0]), 7)


def test_training_gives_the_same_vocabulary_in_every_process():
    code = (
        "import kcost.data as d; from kcost.data.tokenize import WordPiece\n"
        "print(list(WordPiece.train(d.load('ner-mini').splits['train'], 500).vocab.items()))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert len({run.stdout for run in runs}) == 1
    vocab = dict(eval(runs[0].stdout))
    assert len(vocab) == 500
    assert list(vocab)[:5] == VOCAB[:5]
    assert sorted(vocab.values()) == list(range(500))
    assert {"the", "##s"} <= set(vocab)


def test_every_character_can_start_a_word():
    vocab = WordPiece.train([_sentence("ab ab cab", "O O O")], 100).vocab
    assert {"a", "b", "c", "##a", "##b", "ab"} <= set(vocab)
    assert "##c" not in vocab


def test_training_learns_what_the_library_learns():
    """The same text gives the library's own trainer the same pieces, but for ties."""
    from tokenizers.implementations import BertWordPieceTokenizer

    words = [token for sentence in load("ner-mini").splits["train"] for token in sentence.tokens]
    theirs = BertWordPieceTokenizer(lowercase=False)
    theirs.train_from_iterator([" ".join(words)], vocab_size=400, min_frequency=2, show_progress=False)
    ours = WordPiece.train(load("ner-mini").splits["train"], 400)
    common = set(ours.vocab) & set(theirs.get_vocab())
    assert len(common) > 0.97 * len(ours.vocab)


def test_a_saved_vocabulary_reads_back(tmp_path):
    pieces = WordPiece.train(load("ner-mini", limit=50).splits["train"], 200, lowercase=True)
    pieces.save(tmp_path / "new" / "folder")
    again = read_tokenizer(tmp_path / "new" / "folder")
    assert (list(again.vocab.items()), again.config) == (list(pieces.vocab.items()), pieces.config | NAMES)
    assert json.loads((tmp_path / "new/folder/tokenizer_config.json").read_text())["do_lower_case"] is True


def test_a_folder_of_before_with_a_vocabulary_and_its_config_reads_as_it_did(tmp_path):
    """Artifacts were written without tokenizer.json."""
    pieces = WordPiece.train(load("ner-mini", limit=50).splits["train"], 200)
    pieces.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    config = {"do_lower_case": False, "strip_accents": None, "tokenize_chinese_chars": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "BertTokenizer"}))
    again, data = read_tokenizer(tmp_path), load("ner-mini")
    arrays = [p.encode(data.splits["test"], data.tag_names, 48).token_ids for p in (again, pieces)]
    np.testing.assert_array_equal(*arrays)


def _folder_of(tmp_path, vocabulary: bytes, config: object = None):
    (tmp_path / "vocab.txt").write_bytes(vocabulary)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config or {"do_lower_case": False}))
    return tmp_path


def test_lines_of_a_vocabulary_end_at_line_feeds_only(tmp_path):
    text = "\r\n".join([*VOCAB, "\u2028", "a\u0085b"]) + "\r\n"
    assert list(read_tokenizer(_folder_of(tmp_path, text.encode())).vocab) == [*VOCAB, "\u2028", "a\u0085b"]


def test_bad_vocabularies(tmp_path):
    with pytest.raises(ArtifactError, match="TypeError"):
        read_tokenizer(_folder_of(tmp_path, "\n".join(VOCAB).encode(), [1]))
    with pytest.raises(DataError, match="1 repeated lines"):
        read_tokenizer(_folder_of(tmp_path, "\n".join([*VOCAB, "Ada"]).encode()))
    with pytest.raises(DataError, match=r"without \[UNK\], \[SEP\]"):
        read_tokenizer(_folder_of(tmp_path, b"[PAD]\n[CLS]\nAda"))
    with pytest.raises(DataError, match="UTF-8"):
        read_tokenizer(_folder_of(tmp_path, b"\xff\xfe"))
    with pytest.raises(DataError, match=r"without \[UNK\], \[SEP\]"):
        WordPiece.from_vocab({"[PAD]": 0, "[CLS]": 1}, lowercase=False)


def test_saving_where_a_file_stands_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        _pieces().save(tmp_path / "file")

"""The tokenizer of a pretrained BERT, in each form that a folder may hold it; and whole texts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kcost.core.errors import ArtifactError, DataError
from kcost.data.tokenize import WordPiece
from kcost.data.tokenizer_files import read_tokenizer

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "caf", "##e", "##é", "Caf", "上", "##海", "上海", "."]


IDS = {piece: i for i, piece in enumerate(VOCAB)}


def saved(folder, **settings):
    WordPiece.from_vocab({piece: i for i, piece in enumerate(VOCAB)}, **settings).save(folder)
    return read_tokenizer(folder)


def pieces_of(tokenizer: WordPiece, text: str) -> list[str]:
    ids = tokenizer.encode_texts([text], 12)["token_ids"][0]
    return [VOCAB[i] for i in ids if VOCAB[i][0] != "["]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lowercase": True}, ["caf", "##e", "上"]),
        ({"lowercase": True, "strip_accents": False}, ["caf", "##é", "上"]),
        ({"lowercase": False}, ["Caf", "##é", "上"]),
        ({"lowercase": False, "strip_accents": True}, ["Caf", "##e", "上"]),
        ({"lowercase": False, "split_ideographs": False}, ["Caf", "##é", "上海"]),
    ],
)
def test_settings_are_kept_and_followed(tmp_path, settings, expected):
    tokenizer = saved(tmp_path, **settings)
    assert pieces_of(tokenizer, "Café 上海")[: len(expected)] == expected


def test_texts_become_arrays(tmp_path):
    tokenizer = saved(tmp_path, lowercase=False)
    arrays = tokenizer.encode_texts(["Café.", "", ". . . . ."], 6)
    ids = {piece: i for i, piece in enumerate(VOCAB)}
    rows = [["[CLS]", "Caf", "##é", ".", "[SEP]", "[PAD]"], ["[CLS]", "[SEP]", *["[PAD]"] * 4]]
    rows.append(["[CLS]", *"....", "[SEP]"])
    assert arrays["token_ids"].tolist() == [[ids[piece] for piece in row] for row in rows]
    assert arrays["padding_mask"].sum(axis=1).tolist() == [5, 2, 6]
    assert not arrays["segment_ids"].any()
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int32)}
    with pytest.raises(ValueError, match="at least 3"):
        tokenizer.encode_texts([], 2)


def tokenizer_file(**changes):
    document = {
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "handle_chinese_chars": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "vocab": {piece: i for i, piece in enumerate(VOCAB)}},
    }
    return json.dumps({**document, **changes})


def test_the_tokenizer_file_of_transformers_5(tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_file(), encoding="utf-8")
    tokenizer = read_tokenizer(tmp_path)
    assert list(tokenizer.vocab) == VOCAB
    assert pieces_of(tokenizer, "Café 上海") == ["caf", "##e", "上"]


def test_the_files_of_a_keras_preset(tmp_path):
    config = {"lowercase": True, "strip_accents": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"class_name": "BertTokenizer", "config": config}))
    with pytest.raises(DataError, match=r"vocabulary\.txt"):
        read_tokenizer(tmp_path)
    (tmp_path / "assets" / "tokenizer").mkdir(parents=True)
    (tmp_path / "assets" / "tokenizer" / "vocabulary.txt").write_text("\n".join(VOCAB), encoding="utf-8")
    assert pieces_of(read_tokenizer(tmp_path), "Café") == ["caf", "##é"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "TypeError"),
        ("{", "JSONDecodeError"),
        ("[" * 100_000, "RecursionError"),
        ("{}", "KeyError: 'model'"),
        (tokenizer_file(normalizer=None), "TypeError"),
        (tokenizer_file(model={"type": "BPE", "vocab": {}}), "model 'BPE', where BERT has 'WordPiece'"),
        (tokenizer_file(pre_tokenizer={"type": "Metaspace"}), "pre_tokenizer 'Metaspace'"),
        (tokenizer_file(model={"type": "WordPiece", "vocab": {**IDS, "a": "b"}}), "TypeError"),
        (
            tokenizer_file(model={"type": "WordPiece", "vocab": IDS, "max_input_chars_per_word": 9}),
            "where BERT has 100",
        ),
        (tokenizer_file(truncation={"direction": "Left"}), "truncation_side"),
        (tokenizer_file(added_tokens=[{"id": 40, "content": "@user"}]), "'@user' with the id 40, where it gets 12"),
        ('{"class_name": "BertTokenizer", "config": {}}', "KeyError: 'lowercase'"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, text, message):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read_tokenizer(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_lower_case": 1}, "do_lower_case 1"),
        ({"do_lower_case": True, "strip_accents": "no"}, "strip_accents 'no'"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize false"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "BertJapaneseTokenizer"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, "without a tokenizer.json"),
        ({"truncation_side": "left"}, "truncation_side"),
        ({"do_lower_case": True, "cls_token": "<s>"}, "without <s>"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(tmp_path, config, message):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises((ArtifactError, DataError)) as caught:
        read_tokenizer(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("more", [("Ada",), ("##S",)])
def test_a_cased_vocabulary_without_a_word_on_case_is_refused(tmp_path, more):
    """transformers drops the case of its texts, which the vocabulary contradicts."""
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unusedA]", "ada")
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    assert read_tokenizer(tmp_path).config["do_lower_case"] is True
    (tmp_path / "vocab.txt").write_text("\n".join([*pieces, *more]))
    with pytest.raises(ArtifactError, match=r'capital letters in vocab\.txt(.|\n)*Write \{"do_lower_case": false\}'):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert read_tokenizer(tmp_path).config["do_lower_case"] is False


@pytest.mark.parametrize(
    ("normalizer", "config", "missing"),
    [
        ({"lowercase": False}, {}, '"do_lower_case": false'),
        ({"lowercase": True, "strip_accents": False}, {"do_lower_case": True}, '"strip_accents": false'),
        ({"lowercase": True, "handle_chinese_chars": False}, {}, '"tokenize_chinese_chars": false'),
    ],
)
def test_a_config_that_is_silent_where_the_default_is_not_the_file_is_refused(tmp_path, normalizer, config, missing):
    text = tokenizer_file(normalizer={"type": "BertNormalizer", **normalizer})
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError) as caught:
        read_tokenizer(tmp_path)
    assert f"tokenizer.json for {missing}" in str(caught.value)
    stated = json.loads("{" + missing + "}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | stated))
    assert read_tokenizer(tmp_path).config.items() >= stated.items()


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(ArtifactError, match=r"vocab.txt or tokenizer.json(.|\n)*without them"):
        read_tokenizer(tmp_path)
    with pytest.raises(ArtifactError, match="nowhere, which is no folder"):
        read_tokenizer(tmp_path / "nowhere")

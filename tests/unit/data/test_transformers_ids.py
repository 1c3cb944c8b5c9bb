"""Ids are those of transformers, on hard sentences in twelve scripts, for each way a folder may hold a tokenizer."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kcost.core.errors import ArtifactError
from kcost.data import Sentence
from kcost.data.tokenize import WordPiece, bert_tokenizer
from kcost.data.tokenizer_files import read_tokenizer
from tests.unit.data.transformers_ids import SAVED

SCRIPTS = {
    "Latin": "Émile naïve Zoë's İstanbul straße ŁÓDŹ",
    "Cyrillic": "Ёлка Москва їжак",
    "Greek": "Ωμέγα ΣΊΣΥΦΟΣ",
    "Arabic": "مُحَمَّدٌ القَاهِرَة",
    "Hebrew": "שָׁלוֹם יְרוּשָׁלַיִם",
    "Devanagari": "सीता दिल्ली में",
    "Bengali": "ঢাকা কলকাতা",
    "Tamil": "சென்னை",
    "Thai": "กรุงเทพ อยู่ ที่",
    "Hangul": "서울에서 한국어",
    "Han": "上海市 北京 葛飾",
    "Kana": "カタカナ ひらがな が",
}
ODD = (
    *(
        "@user",
        "x@user",
        "<url>",
        "<url>.",
        "<E>",
        "[SEP]",
        "[MASK]s",
        "[UNK]",
        "#tag",
        "don't",
        "U.S.A.",
        "C++",
        "$3.5",
    ),
    *(
        "\ufe0f",
        "\u200b",
        "\u200e",
        "",
        "\u0301",
        "e\u0301a",
        "co\u00adop",
        "a\u00a0b",
        "a b",
        "\ufffd",
        "a\0b",
        "\ue000",
    ),
    *("😀", "\U0001f469\u200d\U0001f467", "1\ufe0f\u20e3", "می\u200c", "क्\u200dष", "\uff21\uff22", "ﬁn", "½", "x²"),
    *("—", "«a»", "w" * 99, "w" * 100, "w" * 101, "İ", "ẞ", "Ǆ", "\U00020000", "\u3000", "\u2028", "Émile", "émile"),
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def hard_sentences(count: int = 200) -> list[list[str]]:
    """Words of two scripts each and odd ones; some decomposed, in capitals or joined by punctuation."""
    rng = random.Random(0)
    changes: list[Callable[[str], str]] = [
        str,
        str.upper,
        str.lower,
        lambda word: unicodedata.normalize("NFD", word),
        lambda word: f"({word},",
        lambda word: word + rng.choice(ODD),
    ]
    sentences = []
    for i in range(count):
        names = [list(SCRIPTS)[i % len(SCRIPTS)], rng.choice(list(SCRIPTS))]
        words = [rng.choice(SCRIPTS[rng.choice(names)].split()) for _ in range(rng.randint(1, 6))]
        words = [rng.choice(changes)(word) for word in words]
        sentences.append(words + rng.sample(ODD, 3))
    assert len(sentences) == count
    return sentences


def vocabulary(sentences: list[list[str]], *, lowercase: bool) -> dict[str, int]:
    """Pieces of most characters, whole and decomposed, at the start of a word and inside, and of some words."""
    words = [word.lower() if lowercase else word for sentence in sentences for word in sentence]
    forms = {unicodedata.normalize(form, word) for word in words for form in ("NFC", "NFD")}
    characters = sorted({c for word in forms for c in word if not c.isspace() and c != "\0"})
    kept = [c for i, c in enumerate(characters) if i % 17]
    pieces = dict.fromkeys([*SPECIAL, *kept, *(f"##{c}" for c in kept), "##ww", "上海", "user", "##user", "url"])
    if lowercase:
        pieces = dict.fromkeys(piece for piece in pieces if piece in SPECIAL or piece == piece.lower())
    return {piece: i for i, piece in enumerate(pieces)}


def write_vocab(folder: Path, vocab: dict[str, int], config: dict[str, Any] | None = None, **files: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocab), encoding="utf-8")
    for name, content in {**files, **({} if config is None else {"tokenizer_config": config})}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def tokenizer_json(
    vocab: dict[str, int], *, lowercase: bool, tokens: tuple[Any, ...] = (), unusual: bool = False
) -> str:
    from tokenizers import normalizers, pre_tokenizers, processors

    tokenizer = bert_tokenizer(vocab, lowercase)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(tokens))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    if unusual:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.enable_truncation(8)
        tokenizer.enable_padding(length=16, pad_token="[PAD]")
    return str(tokenizer.to_str())


def write_layouts(folder: Path, vocab: dict[str, int], cased: dict[str, int]) -> None:
    """Folders as they are met with."""
    from tokenizers import AddedToken

    write_vocab(folder / "vocab-alone", vocab)
    write_vocab(folder / "vocab-cased", cased, {"do_lower_case": False})
    write_vocab(
        folder / "vocab-accents-kept",
        vocab,
        {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
    )
    write_vocab(
        folder / "vocab-and-added",
        cased,
        {"do_lower_case": False, "tokenizer_class": "BertTokenizer"},
        added_tokens={"@user": len(cased), "<E>": len(cased) + 1},
        special_tokens_map={"additional_special_tokens": ["<E>"], "cls_token": "[CLS]"},
    )
    decoder = {str(cased["[SEP]"]): {"content": "[SEP]", "special": True}}
    decoder |= {str(len(cased) + i): {"content": c, "normalized": i == 0} for i, c in enumerate(["@user", "<url>"])}
    write_vocab(
        folder / "vocab-and-decoder",
        cased,
        {
            "do_lower_case": False,
            "added_tokens_decoder": decoder,
            "cls_token": {"content": "[CLS]", "__type": "AddedToken"},
        },
    )
    write_vocab(folder / "specials-not-known", vocab, {"split_special_tokens": True})
    tokens = (
        AddedToken("@user", single_word=True),
        AddedToken("<url>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("Émile"),
    )
    for name, text, config in (
        ("json-alone", tokenizer_json(vocab, lowercase=True, tokens=tokens), None),
        ("json-silent-config", tokenizer_json(vocab, lowercase=True, tokens=tokens), {"model_max_length": 512}),
        ("json-against-config", tokenizer_json(cased, lowercase=True), {"do_lower_case": False}),
        (
            "json-whole",
            tokenizer_json(cased, lowercase=False, tokens=tokens),
            {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"},
        ),
        (
            "json-whole-unusual",
            tokenizer_json(cased, lowercase=False, tokens=tokens, unusual=True),
            {"tokenizer_class": "TokenizersBackend", "pad_token": "[PAD]", "additional_special_tokens": ["<E>"]},
        ),
    ):
        (folder / name).mkdir()
        (folder / name / "tokenizer.json").write_text(text, encoding="utf-8")
        if config is not None:
            (folder / name / "tokenizer_config.json").write_text(json.dumps(config))


LAYOUTS = (
    *("vocab-alone", "vocab-cased", "vocab-accents-kept", "vocab-and-added", "vocab-and-decoder", "specials-not-known"),
    *("json-alone", "json-silent-config", "json-against-config", "json-whole", "json-whole-unusual"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layouts, each also as kcost saves what it read, and ids.json with what transformers makes of them."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("tokenizers")
    sentences = hard_sentences()
    vocab, cased = vocabulary(sentences, lowercase=True), vocabulary(sentences, lowercase=False)
    write_layouts(folder / "layouts", vocab, cased)
    for name in LAYOUTS:
        read_tokenizer(folder / "layouts" / name).save(folder / "layouts" / f"{name}, as kcost saves it", 512)
    words = {"sentences": sentences, "vocab": vocab, "cased_vocab": cased}
    (folder / "words.json").write_text(json.dumps(words))
    script = Path(__file__).with_name("transformers_ids.py")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "USE_TORCH": "0", "USE_TF": "0"}
    run = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    return folder


def ids_of_words(pieces: WordPiece, sentences: list[list[str]]) -> list[list[int]]:
    encoded = pieces.encode([Sentence(tuple(words), ("O",) * len(words)) for words in sentences], ("O",), 512)
    return [row[:length].tolist() for row, length in zip(encoded.token_ids, encoded.lengths, strict=True)]


@pytest.mark.parametrize("name", [*LAYOUTS, *SAVED])
def test_ids_are_those_of_transformers(made: Path, tmp_path: Path, name: str) -> None:
    sentences = hard_sentences()
    ids = json.loads((made / "ids.json").read_text())
    pieces = read_tokenizer(made / "layouts" / name)
    assert ids_of_words(pieces, sentences) == ids[name]
    texts = pieces.encode_texts([" ".join(words) for words in sentences], 512)
    pairs = zip(texts["token_ids"], texts["padding_mask"], strict=True)
    assert [row[mask == 1].tolist() for row, mask in pairs] == ids[f"{name}, texts"]
    pieces.save(tmp_path)
    assert ids_of_words(read_tokenizer(tmp_path), sentences) == ids[name]
    if name in LAYOUTS:
        assert ids[f"{name}, as kcost saves it"] == ids[name]


def test_the_sentences_are_hard(made: Path) -> None:
    """Each setting changes something, so that a tokenizer that ignores one fails."""
    ids = json.loads((made / "ids.json").read_text())
    names = ("vocab-alone", "vocab-accents-kept", "specials-not-known", "json-alone")
    assert len({json.dumps(ids[name]) for name in names}) == len(names)
    names = ("vocab-cased", "vocab-and-added", "vocab-and-decoder", "json-whole", "json-whole-unusual")
    assert len({json.dumps(ids[name]) for name in names}) == len(names)


@pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordLevel"])
def test_what_is_no_wordpiece_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    from tokenizers import Tokenizer, models

    model = {
        "BPE": lambda: models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]),
        "Unigram": lambda: models.Unigram([("a", -1.0), ("b", -2.0)], 0, False),
        "WordLevel": lambda: models.WordLevel({"a": 0, "[UNK]": 1}, "[UNK]"),
    }[kind]()
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ArtifactError, match=f"model '{kind}'"):
        read_tokenizer(tmp_path)

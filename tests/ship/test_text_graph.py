# ruff: noqa: RUF001
"""Texts that a graph cuts into words and pieces, held against kcost's own tokenizer."""

import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.errors import InputError, UnavailableError
from kcost.core.scores import entity_spans
from kcost.data.sets import Sentence
from kcost.data.text_tables import text_tables
from kcost.data.tokenize import END, MASK, PAD, START, UNKNOWN, WordPiece
from kcost.data.words import words_of
from kcost.runtimes.saved_model import SavedModelSession
from tests.ship.artifacts import TAG_WORDS, TAGS

MAX_LENGTH = 24

HARD = [
    "",
    " \t\n",
    "Barack Obama was born in Honolulu, Hawaii.",
    "Müller trinkt 3,50€-Kaffee in Köln; groß wie STRASSE/Straße!",
    "İstanbul'da ILIK ılık IŞIK",
    "Ὀδυσσεύς ΟΔΥΣΣΕΎΣ στη Θεσσαλονίκη",
    "Москва — столица России, ёлка и ЁЛКА",
    "東京都は日本の首都です。カタカナとｶﾀｶﾅ",
    "北京是中国的首都，人口2154万。",
    "서울은 대한민국의 수도이다 각 각",
    "भारत की राजधानी नई दिल्ली है क्‍ष क्‌ष",
    "กรุงเทพมหานคร เป็นเมืองหลวง",
    "القاهرة عاصمة مِصْرَ می‌خواهم",
    "ירושלים שָׁלוֹם",
    "Zażółć gęślą jaźń e\u0301 n\u0303 \u0301lead \u0301\u0302x",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ☃️ a\u200db x\u200cy",
    "don't U.S.A. e-mail@example.com https://x.y/z?q=1#a_b $5 50% C++ [SEP] [CLS] [MASK] <s>",
    "a" * 100 + " " + "a" * 101 + " " + "é" * 100,
    "\u00adsoft\u00adhyphen \u2028line",
    "zero\u200bwidth \ufeffbom \u0000nul \ufffd \ue000 \U000e0041\u00a0nbsp\u3000wide",
    "ﬁ ﬀ Ǆ ß ẞ Å Å Ω Ω ≠ ≮ ; · ` \u1fef",
    "\U00020000\U0002f800豈﨎 ㍿ Ⅷ ① ²",
    "words " * 40,
]


def vocabulary(lowercase: bool) -> WordPiece:
    """One learnt from some of the sentences, so that pieces, unknown words and single characters occur."""
    sentences = [Sentence(tuple(t.split()), ("O",) * len(t.split())) for t in HARD[2:18:2]] * 3
    return WordPiece.train(sentences, 400, lowercase=lowercase)


KINDS = {"cased": False, "uncased": True}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[WordPiece, Path]]:
    """A tokenizer of each kind, and the folder of a graph that was made of it."""
    made = {}
    for kind, lowercase in KINDS.items():
        made[kind] = (vocabulary(lowercase), tmp_path_factory.mktemp(kind))
        made[kind][0].save(made[kind][1])
    folders = [str(folder) for _, folder in made.values()]
    command = [sys.executable, "-m", "tests.ship.text_models", str(MAX_LENGTH), *folders]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {kind: (pieces, folder / "graph") for kind, (pieces, folder) in made.items()}


@pytest.fixture(scope="module", params=KINDS)
def cut(request: pytest.FixtureRequest, graphs: dict[str, tuple[WordPiece, Path]]):
    """A tokenizer, and a session of the graph that was made of it."""
    pieces, graph = graphs[request.param]
    with SavedModelSession(graph, threads=1, strings=True) as session:
        session.bind("entities")
        yield pieces, session


def expected(pieces: WordPiece, texts: list[str]) -> dict[str, np.ndarray]:
    """What `words_of` and `WordPiece.encode` make of the texts, as the graph answers."""
    spans = [words_of(text) for text in texts]
    words = [[text[a:b] for a, b in row] for text, row in zip(texts, spans, strict=True)]
    encoded = pieces.encode([Sentence(tuple(w), ("O",) * len(w)) for w in words], ["O"], MAX_LENGTH)
    length = max(encoded.lengths.tolist(), default=2)
    most = max(map(len, words), default=0)
    positions = np.zeros((len(texts), most), np.int32)
    for row, (labels, unseen) in enumerate(zip(encoded.labels, encoded.unseen_labels, strict=True)):
        missing = set(np.flatnonzero(unseen >= 0).tolist())
        seen = [i for i in range(len(words[row])) if i not in missing]
        positions[row, seen] = np.flatnonzero(labels >= 0)
    return {
        "token_ids": encoded.token_ids[:, :length],
        "padding_mask": encoded.padding_mask[:, :length],
        "words": np.array([[w.encode() for w in row] + [b""] * (most - len(row)) for row in words], object).reshape(
            len(texts), most
        ),
        "spans": np.array([row + [(0, 0)] * (most - len(row)) for row in spans], np.int32).reshape(len(texts), most, 2),
        "positions": positions,
    }


def assert_same(cut: tuple[WordPiece, SavedModelSession], texts: list[str]) -> None:
    pieces, session = cut
    answers = session.run({"text": np.array([t.encode() for t in texts], object)})
    for name, array in expected(pieces, texts).items():
        np.testing.assert_array_equal(answers[name], array, err_msg=name)


def test_hard_texts_each_and_all_together(cut: tuple[WordPiece, SavedModelSession]) -> None:
    for text in HARD:
        assert_same(cut, [text])
    assert_same(cut, HARD)


def test_the_hard_texts_have_pieces_unknown_words_and_words_that_are_cut_off(
    cut: tuple[WordPiece, SavedModelSession],
) -> None:
    pieces, _ = cut
    made = expected(pieces, HARD)
    names = {i: piece for piece, i in pieces.vocab.items()}
    assert {UNKNOWN, START, END, PAD} <= {names[i] for i in made["token_ids"].ravel().tolist()}
    assert any(names[i].startswith("##") for i in made["token_ids"].ravel().tolist())
    assert ((made["positions"] == 0) & (made["words"] != b"")).any()


CHARACTERS = st.one_of(
    st.sampled_from("aAbBeé \t.,-'[]#_1２漢かｶ가각ñ\u0301\u0323\u200d\u200cأ\u064bΣςßİı👍\U0001f3fd☃\ufe0f"),
    st.characters(exclude_categories=("Cs",)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(CHARACTERS, max_size=40), max_size=4))
def test_any_texts(cut: tuple[WordPiece, SavedModelSession], texts: list[str]) -> None:
    try:
        assert_same(cut, texts)
    except InputError:
        if not any(is_out_of_order(text) for text in texts):
            raise


def is_out_of_order(text: str) -> bool:
    """Whether a mark stands somewhere behind one of a higher class: for such texts alone a graph may refuse."""
    classes = [unicodedata.combining(c) for c in text]
    return any(0 < later < earlier for i, earlier in enumerate(classes) for later in classes[i + 1 :])


def test_every_code_point(cut: tuple[WordPiece, SavedModelSession]) -> None:
    code_points = [i for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    assigned = [i for i in code_points if unicodedata.category(chr(i)) not in ("Cn", "Co")]
    chosen = sorted({*random.Random(0).sample(assigned, 4000), *random.Random(1).sample(code_points, 500)})
    for at in range(0, len(chosen), 500):
        assert_same(cut, [f"ab{chr(i)}ba {chr(i)}" for i in chosen[at : at + 500]])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from(TAG_WORDS), max_size=9), max_size=4))
def test_entities_are_read_as_scores_read_them(cut: tuple[WordPiece, SavedModelSession], rows: list[list[str]]) -> None:
    texts = np.empty(len(rows), object)
    texts[:] = [" ".join(row).encode() for row in rows]
    answers = cut[1].run_signature("entities", {"text": texts})
    tags = [[TAGS[TAG_WORDS.index(word)] for word in row] for row in rows]
    wanted = [entity_spans(row) for row in tags]
    assert answers["entity_types"].shape == (len(rows), max(map(len, wanted), default=0))
    for row, (entities, words) in enumerate(zip(wanted, rows, strict=True)):
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        bounds = [[int(ends[a] - len(words[a])), int(ends[b - 1])] for _, a, b in entities]
        count = len(entities)
        assert [kind for kind in answers["entity_types"][row].tolist() if kind] == [k.encode() for k, _, _ in entities]
        assert answers["entity_spans"][row, :count].tolist() == bounds
        least = [1 / (1 + end) for _, end in bounds]
        np.testing.assert_allclose(answers["entity_scores"][row, :count], least, rtol=1e-6)


def test_marks_that_unicode_would_order_are_refused_not_answered_otherwise(
    cut: tuple[WordPiece, SavedModelSession],
) -> None:
    pieces, session = cut
    text = "a\u302e\u1b44"  # classes 224 and 9, both kept as they are no nonspacing marks
    if pieces.config["do_lower_case"]:
        with pytest.raises(InputError, match="order"):
            session.run({"text": np.array([text.encode()], object)})
    else:
        assert_same(cut, [text])


def test_a_tokenizer_of_another_kind_has_no_tables() -> None:
    pieces = vocabulary(False)
    pieces.library_tokenizer.add_tokens(["abc"])
    with pytest.raises(UnavailableError, match="'abc'"):
        text_tables(pieces)
    vocab = {token: i for i, token in enumerate((PAD, UNKNOWN, START, END, MASK))}
    pieces = WordPiece.from_vocab(vocab, lowercase=True)
    from tokenizers import normalizers

    pieces.library_tokenizer.normalizer = normalizers.NFKC()
    with pytest.raises(UnavailableError, match="normalizer NFKC"):
        text_tables(pieces)

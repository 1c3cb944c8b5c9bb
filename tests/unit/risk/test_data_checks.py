"""Leakage, personal data, label noise, differences between groups: what is planted is found, what is clean not."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import accuracy_score, recall_score

from kcost.core.errors import UnavailableError
from kcost.core.predictions import SplitPredictions
from kcost.report.risk_terminal import limits
from kcost.risk.confident_learning import confident_learning
from kcost.risk.fairness import disparities
from kcost.risk.label_noise import label_noise
from kcost.risk.leakage import leaked_arrays, leaked_texts
from kcost.risk.personal_data import count_personal_data, is_card, is_iban
from kcost.risk.report import Surroundings, assess

from .answers import classifier, tagger
from .reports import EVIDENCE, predictions

WORDS = [f"word{i}" for i in range(400)]


def sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 20)) for _ in range(count)]


def test_texts_that_are_in_both_are_found_and_others_are_not() -> None:
    train, test = sentences(300, 0), sentences(100, 1)
    test[3] = train[7].upper() + " !"
    test[5] = train[9].rsplit(" ", 1)[0] + " other"  # 17 of 19 runs of three words are the same
    leaks = leaked_texts(train, test)
    assert [(leak.test, leak.train, leak.near) for leak in leaks.examples] == [(3, 7, False), (5, 9, True)]
    assert (leaks.exact, leaks.near) == (1, 1)
    assert leaks.share.value == 0.02


def jaccard(a: str, b: str) -> float:
    x, y = ({tuple(t.split()[i : i + 3]) for i in range(len(t.split()) - 2)} for t in (a, b))
    return len(x & y) / len(x | y)


def test_near_texts_are_all_that_comparing_every_pair_finds() -> None:
    """Each test text has some words of a training text replaced, so that many are close to the limit."""
    rng = np.random.default_rng(2)
    train = sentences(60, 0)
    test = []
    for text in train:
        words = text.split()
        for place in rng.choice(20, rng.integers(0, 4), replace=False):
            words[place] = "changed"
        test.append(" ".join(words))
    expected = {j for j, t in enumerate(test) if any(jaccard(t, s) >= 0.8 for s in train)}
    leaks = leaked_texts(train, test)
    assert leaks.exact + leaks.near == len(expected)
    assert 0 < leaks.near < 60


def test_arrays_that_are_in_both_are_found_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.random((500, 8, 8, 1)), rng.random((200, 8, 8, 1))
    test[3], test[5] = train[7], train[9] + 0.01
    test[6] = train[11] + 0.05
    leaks = leaked_arrays(train, test)
    assert [(leak.test, leak.train, leak.near) for leak in leaks.examples] == [(3, 7, False), (5, 9, True)]


def test_near_arrays_are_all_that_comparing_every_pair_finds() -> None:
    rng = np.random.default_rng(1)
    train = rng.random((200, 30))
    test = train + rng.normal(0, 1, train.shape) * rng.uniform(0, 0.04, (200, 1))
    scale = max(train.max(), test.max()) - min(train.min(), test.min())
    near = np.sqrt(np.square(train[None] - test[:, None]).mean(-1)) <= 0.02 * scale
    leaks = leaked_arrays(train, test)
    assert abs(leaks.exact + leaks.near - near.any(1).sum()) <= 1  # float32 against float64 at the limit
    assert 20 < leaks.near < 180


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to ann.b+c@mail.example.org now", "emails"),
        ("call +44 20 7946 0958", "phones"),
        ("call +442079460958", "phones"),
        ("ring (030) 1234 5678", "phones"),
        ("card 4111 1111 1111 1111 ok", "cards"),
        ("card 5500005555555559", "cards"),
        ("pay DE89 3704 0044 0532 0130 00 soon", "ibans"),
        ("pay GB82WEST12345698765432", "ibans"),
    ],
)
def test_personal_data_are_counted_once_and_as_their_kind(text: str, kind: str) -> None:
    counts = count_personal_data([text, "nothing here"])
    assert getattr(counts, kind) == 1
    assert (counts.total, counts.texts_with_any, counts.texts) == (1, 1, 2)


@pytest.mark.parametrize(
    "text",
    [
        "a 2024-11-28 b", "28.11.2024", "4111 1111 1111 1112", "GB83WEST12345698765432", "@user hello",
        "version 1.2.3", "0000 0000 0000 0000", "pi is 3.14159265358979", "a@b", "scores 12-10 and 3-1",
    ],
)  # fmt: skip
def test_what_is_no_personal_data_is_not_counted(text: str) -> None:
    assert count_personal_data([text]).total == 0


@given(st.lists(st.integers(0, 9), min_size=12, max_size=18))
def test_one_of_ten_last_digits_makes_a_card(digits: list[int]) -> None:
    start = "".join(map(str, digits))
    passing = sum(is_card(start + str(last)) for last in range(10))
    assert passing == 1 or len(set(digits)) == 1


@given(st.text(alphabet="0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=11, max_size=30), st.integers(0, 96))
def test_a_changed_check_number_is_no_iban(account: str, shift: int) -> None:
    digits = int("".join(str(int(c, 36)) for c in account + "DE00"))
    check = 98 - digits % 97
    assert is_iban(f"DE{check:02d}{account}")
    other = (check + shift) % 97
    assert is_iban(f"DE{other:02d}{account}") == (other % 97 == check % 97)


@given(st.text())
def test_any_text_can_be_counted(text: str) -> None:
    assert count_personal_data([text]).total >= 0


def test_no_label_noise_where_there_is_none() -> None:
    held = [label_noise(classifier(2000, seed), tuple("abcd"), "examples").share.low == 0 for seed in range(20)]
    assert np.mean(held) >= 0.9


def test_the_label_noise_that_was_put_in_comes_out_and_the_suspects_are_mostly_it() -> None:
    clean = classifier(4000, 0, spread=5)
    rng = np.random.default_rng(0)
    wrong = rng.random(4000) < 0.08
    labels = np.where(wrong, (clean.labels + rng.integers(1, 4, 4000)) % 4, clean.labels)
    noisy = SplitPredictions(labels, clean.predicted, clean.log_probabilities, clean.rows, clean.examples)
    noise = label_noise(noisy, tuple("abcd"), "examples")
    assert noise.share.low < 0.08 < noise.share.high
    assert noise.share.value == pytest.approx(0.08, abs=0.02)
    assert np.mean([wrong[s.example] for s in noise.first]) > 0.9
    assert noise.suspects > 100


def test_differences_between_groups_are_those_of_scikit_learn() -> None:
    answers = classifier(3000, 0, classes=2)
    groups = np.random.default_rng(1).choice(["x", "y", "z"], 3000)
    disparity_of = {d.measure: d for d in disparities(answers, "g", groups, "examples", binary=True)}
    y, p = answers.labels, answers.predicted
    for name, metric in {
        "accuracy": accuracy_score,
        "true_positive_rate": recall_score,
        "selection_rate": lambda _, said: said.mean(),
    }.items():
        rates = [metric(y[groups == g], p[groups == g]) for g in "xyz"]
        assert disparity_of[name].difference.value == pytest.approx(max(rates) - min(rates))
        ratio = disparity_of[name].ratio
        assert ratio is not None
        assert ratio.value == pytest.approx(min(rates) / max(rates))


def test_groups_that_do_not_differ_are_seldom_told_apart() -> None:
    apart = 0
    for seed in range(100):
        groups = np.random.default_rng(seed).choice(list("abcd"), 800)
        (disparity,) = disparities(classifier(800, seed), "g", groups, "examples")
        apart += disparity.difference.low > 0
    assert apart <= 8


def test_groups_that_differ_are_told_apart() -> None:
    answers = classifier(2000, 0)
    groups = np.where(answers.right & (np.arange(2000) % 3 > 0), "good", "mixed")
    (disparity,) = disparities(answers, "g", groups, "examples")
    assert disparity.largest_in == "good"
    assert disparity.difference.low > 0


def test_few_examples_are_no_group() -> None:
    assert disparities(classifier(40, 0), "g", np.array(["a"] * 39 + ["b"]), "examples") == ()


CLEANLAB = pytest.mark.skipif(importlib.util.find_spec("cleanlab") is None, reason="needs kcost[label-noise]")


@CLEANLAB
def test_cleanlab_finds_the_labels_that_were_made_wrong() -> None:
    clean = classifier(1000, 7, spread=4)
    rng = np.random.default_rng(0)
    wrong = rng.random(1000) < 0.08
    noisy = replace(clean, labels=np.where(wrong, (clean.labels + rng.integers(1, 4, 1000)) % 4, clean.labels))
    before, after = (confident_learning(answers, tuple("abcd")) for answers in (clean, noisy))
    assert before.issues < after.issues
    assert np.mean([wrong[issue.example] for issue in after.first]) > 0.9
    sure = [issue.self_confidence for issue in after.first]
    assert sure == sorted(sure)
    assert all(issue.label != issue.answer for issue in after.first)
    report = assess(predictions(), EVIDENCE, Surroundings(cleanlab=True))
    assert report.confident_learning is not None
    said = next(line for line in limits(report) if "cleanlab" in line)
    assert f"takes {report.confident_learning.issues:,} of 1,500 labels" in said


def test_without_cleanlab_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(UnavailableError, match="label-noise"):
        confident_learning(classifier(100, 0), tuple("abcd"))
    with pytest.raises(ValueError, match="one label an example"):
        confident_learning(tagger(10, 0), ("O", "B-X"))

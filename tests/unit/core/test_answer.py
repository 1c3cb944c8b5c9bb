"""What a model answers: from its file, its layers, its labels or the user."""

from __future__ import annotations

import numpy as np
import pytest

from kcost.core.answer import Answer, AnswerChoice, OutputFacts, fitted_labels, resolve
from kcost.core.errors import InputError

CLASSES = np.array([0, 2, 1, 3])
YES_NO = np.array([0, 1, 1, 0])
NUMBERS = np.array([0.5, -1.0, 2.0, 7.5])


def kind_of(shape: tuple[int | None, ...], labels: np.ndarray | None, **facts: object) -> str:
    (answer,) = resolve([OutputFacts(name="y", **facts)], [shape], labels).answers.outputs  # type: ignore[arg-type]
    return answer.kind


@pytest.mark.parametrize(
    ("shape", "labels", "facts", "kind"),
    [
        ((None, 4), CLASSES, {"loss": "sparse_categorical_crossentropy"}, "multiclass"),
        ((None, 4), CLASSES, {"ending": "softmax"}, "multiclass"),
        ((None, 4), CLASSES, {"ending": "linear"}, "multiclass"),
        ((None, 4), np.eye(4), {"ending": "linear"}, "multiclass"),
        ((None, 4), None, {"ending": "linear", "product": True}, "multiclass"),
        ((None, 4), None, {}, "embedding"),
        ((None, 1), YES_NO, {"loss": "binary_crossentropy"}, "binary"),
        ((None, 1), YES_NO, {"ending": "sigmoid"}, "binary"),
        ((None, 1), YES_NO, {"ending": "linear"}, "binary"),
        ((None,), YES_NO, {"ending": "sigmoid"}, "binary"),
        ((None, 2), YES_NO, {"ending": "softmax"}, "binary"),
        ((None, 3), np.array([[0, 1, 1]] * 4), {"ending": "sigmoid"}, "multilabel"),
        ((None, 3), np.array([[0, 1, 1]] * 4), {"ending": "linear"}, "multilabel"),
        ((None, 1), NUMBERS, {"ending": "linear"}, "regression"),
        ((None,), NUMBERS, {}, "regression"),
        ((None, 1), NUMBERS, {"ending": "sigmoid"}, "regression"),
        ((None, 1), np.array([3, 8, 1, 2]), {"ending": "linear"}, "regression"),
        ((None, 3), np.ones((4, 3)) * 0.5, {}, "regression"),
        ((None, 1), YES_NO, {"loss": "mean_squared_error"}, "regression"),
        ((None, 5, 4), np.zeros((4, 5), int), {"ending": "softmax"}, "tags"),
        ((None, 8), None, {"loss": "cosine_similarity"}, "embedding"),
    ],
)
def test_the_kind_of_an_output(
    shape: tuple[int | None, ...], labels: np.ndarray | None, facts: dict[str, object], kind: str
) -> None:
    assert kind_of(shape, labels, **facts) == kind


def test_what_the_kind_was_taken_from_is_told() -> None:
    answers = resolve([OutputFacts(name="y", loss="binary_crossentropy")], [(None, 1)], YES_NO).answers
    assert str(answers.main) == "output 'y' taken as binary from binary_crossentropy in the file, yes above 0.5"


@pytest.mark.parametrize(
    ("facts", "choice", "threshold"),
    [
        ({"ending": "sigmoid"}, None, 0.5),
        ({"ending": "linear", "from_logits": True, "loss": "binary_crossentropy"}, None, 0.0),
        ({"ending": "linear", "loss": "hinge"}, None, 0.0),
        ({"ending": "sigmoid", "threshold": 0.3}, None, 0.3),
        ({"ending": "sigmoid", "threshold": 0.3}, 0.7, 0.7),
    ],
)
def test_the_threshold_of_a_binary_output(facts: dict[str, object], choice: float | None, threshold: float) -> None:
    fitted = resolve(
        [OutputFacts(name="y", **facts)],  # type: ignore[arg-type]
        [(None, 1)],
        YES_NO,
        AnswerChoice(threshold=choice),
    )
    assert fitted.answers.main.threshold == threshold


def test_a_threshold_for_classes_is_refused() -> None:
    with pytest.raises(InputError, match="A threshold is for outputs of one unit"):
        resolve([OutputFacts(name="y", ending="softmax")], [(None, 4)], CLASSES, AnswerChoice(threshold=0.5))


def test_what_the_user_says_goes_before_the_file() -> None:
    facts = [OutputFacts(name="y", loss="sparse_categorical_crossentropy")]
    answers = resolve(facts, [(None, 4)], np.ones((4, 4)) * 0.5, AnswerChoice(kind="regression")).answers
    assert (answers.main.kind, answers.main.because) == ("regression", "what you named")


SEVERAL = [
    OutputFacts(name="embedding", ending="relu", product=True),
    OutputFacts(name="logits", ending="softmax", product=True),
    OutputFacts(name="value", ending="linear", product=True),
]
SHAPES: list[tuple[int | None, ...]] = [(None, 32), (None, 10), (None, 1)]


def test_class_numbers_are_of_the_only_output_that_ends_in_classes() -> None:
    fitted = resolve(SEVERAL, SHAPES, CLASSES)
    assert fitted.answers.scored == "logits"
    assert [a.kind for a in fitted.answers.outputs] == ["embedding", "multiclass", "regression"]


def test_labels_that_fit_two_outputs_score_nothing_and_say_so() -> None:
    twice = [OutputFacts(name=name, ending="softmax") for name in ("a", "b")]
    answers = resolve(twice, [(None, 10), (None, 10)], CLASSES).answers
    assert answers.scored is None
    assert "'a', 'b'" in str(answers.unscored_because)


def test_a_named_output_is_scored() -> None:
    assert resolve(SEVERAL, SHAPES, NUMBERS, AnswerChoice(output="value")).answers.main.kind == "regression"
    with pytest.raises(InputError, match="embedding, logits, value"):
        resolve(SEVERAL, SHAPES, NUMBERS, AnswerChoice(output="valeu"))


def test_labels_by_name_are_of_their_outputs() -> None:
    answers = resolve(SEVERAL, SHAPES, {"value": NUMBERS, "logits": CLASSES}).answers
    assert answers.scored == "logits"
    with pytest.raises(InputError, match="'other'"):
        resolve(SEVERAL, SHAPES, {"other": NUMBERS})


def answer(kind: str, threshold: float | None = None) -> Answer:
    return Answer(output="y", kind=kind, threshold=threshold, because="a test")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "shape", "labels", "fitted"),
    [
        ("multiclass", (None, 4), CLASSES[:, None], CLASSES),
        ("multiclass", (None, 4), np.eye(4)[CLASSES], CLASSES),
        ("multiclass", (None, 4), CLASSES.astype("float32"), CLASSES),
        ("binary", (None, 1), YES_NO[:, None].astype(bool), YES_NO),
        ("binary", (None, 1), YES_NO * 2 - 1, YES_NO),
        ("binary", (None, 2), np.eye(2)[YES_NO], YES_NO),
        ("regression", (None,), NUMBERS, NUMBERS[:, None]),
        ("tags", (None, 2, 4), np.array([[[1], [-1]]]), np.array([[1, -1]])),
    ],
)
def test_labels_in_the_form_of_their_kind(
    kind: str, shape: tuple[int | None, ...], labels: np.ndarray, fitted: np.ndarray
) -> None:
    np.testing.assert_array_equal(fitted_labels(answer(kind), shape, labels), fitted)


@pytest.mark.parametrize(
    ("kind", "shape", "labels"),
    [
        ("multiclass", (None, 3), CLASSES),  # there is no fourth unit
        ("multiclass", (None, 4), NUMBERS),
        ("binary", (None, 1), CLASSES),
        ("multilabel", (None, 3), np.zeros((4, 2), int)),
        ("regression", (None, 1), np.array([np.nan, 1.0])),
        ("multiclass", (None, 4), np.array(["a", "b"])),
    ],
)
def test_labels_of_another_kind_are_refused(kind: str, shape: tuple[int | None, ...], labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="Labels are of the kind"):
        fitted_labels(answer(kind), shape, labels)

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.cost.quality import QualityCheck, reference_cell
from testing.runs import MODELS, plan, simulated_run

CNN, BERT = MODELS["simulated-cnn"], MODELS["simulated-bert"]


def answers(predictions, labels=None, outputs=None):
    arrays = {"predictions": np.array(predictions), "outputs": np.zeros((2, 3)) if outputs is None else outputs}
    return arrays if labels is None else {**arrays, "labels": np.array(labels)}


def test_the_same_answers_are_the_same() -> None:
    arrays = answers([1, 2, 3, 4], [1, 2, 3, 0])
    quality = QualityCheck(CNN, arrays).of(arrays)
    assert (quality.max_abs_difference, quality.agreement, quality.agreement_count, quality.drop) == (0.0, 1.0, 4, 0.0)
    assert [(s.name, s.value, s.count) for s in quality.scores] == [("accuracy", 0.75, 4)]


def test_other_answers_show_in_agreement_and_drop() -> None:
    check = QualityCheck(CNN, answers([1, 2, 3, 4], [1, 2, 3, 4]))
    quality = check.of(answers([1, 2, 0, 0], [1, 2, 3, 4], np.full((2, 3), 0.25)))
    assert (quality.max_abs_difference, quality.agreement, quality.drop) == (0.25, 0.5, 0.5)


def test_a_smaller_batch_is_judged_on_what_it_answered() -> None:
    check = QualityCheck(CNN, answers([1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]))
    quality = check.of(answers([1, 1], [1, 1]))
    assert (quality.agreement, quality.agreement_count, quality.drop) == (1.0, 2, 0.0)
    assert quality.reference_scores[0].count == 2
    longer = QualityCheck(CNN, answers([1, 1], [1, 1])).of(answers([1, 1, 0, 0], [1, 1, 1, 1]))
    assert (longer.scores[0].count, longer.scores[0].value) == (2, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_no_number_is_told(bad: float) -> None:
    outputs = np.zeros((2, 3))
    outputs[1, 1] = bad
    quality = QualityCheck(CNN, answers([1])).of(answers([1], outputs=outputs))
    assert quality.not_finite
    assert quality.max_abs_difference is None


def test_what_cannot_be_compared_is_none() -> None:
    check = QualityCheck(CNN, answers([1, 2]))
    assert check.of(None).agreement is None
    other_shapes = check.of(answers([[1, 2]], outputs=np.zeros((2, 4))))
    assert other_shapes.max_abs_difference is None
    assert other_shapes.agreement is None
    assert not other_shapes.not_finite
    without_labels = check.of(answers([1, 3]))
    assert without_labels.scores == ()
    assert without_labels.drop is None
    assert without_labels.agreement == 0.5
    alone = QualityCheck(CNN, None).of(answers([1, 2], [1, 1]))
    assert alone.scores[0].value == 0.5
    assert alone.drop is None
    assert QualityCheck(CNN, answers([1], [-1])).of(answers([1], [-1])).scores == ()


def test_tags_are_scored_as_entities_and_padding_is_no_answer() -> None:
    # label names: O, B-PER, I-PER, B-LOC, I-LOC
    labels = [[1, 2, 0, 3, -1], [0, 0, 3, -1, -1]]
    all_seen = {"unseen_labels": np.full((2, 0), -1)}
    right = answers(labels, labels) | all_seen
    half = answers([[1, 2, 0, 0, 4], [0, 0, 3, 4, 4]], labels) | all_seen
    quality = QualityCheck(BERT, right).of(half)
    assert [(s.name, s.count, s.unit) for s in quality.scores] == [
        ("entity_f1", 3, "entities"),
        ("token_accuracy", 7, "tokens"),
    ]
    assert quality.scores[0].value == pytest.approx(0.8)  # 2 of 3 found, none wrong
    assert quality.scores[1].value == pytest.approx(6 / 7)
    assert quality.drop == pytest.approx(0.2)
    assert (quality.agreement, quality.agreement_count) == (pytest.approx(6 / 7), 7)


def test_entities_with_words_that_truncation_lost_are_missed() -> None:
    labels = [[1, 2, 0, -1], [3, -1, -1, -1]]
    arrays = answers(labels, labels) | {"unseen_labels": np.array([[-1, -1, -1, 3, 4], [-1, 4, 1, 2, 0]])}
    quality = QualityCheck(BERT, arrays).of(arrays)
    # PER is found; lost are the LOC and the PER behind the cut, and the LOC that it parts, which is also found wrongly.
    assert [(s.name, s.value, s.count) for s in quality.scores] == [
        ("entity_f1", pytest.approx(2 / (2 + 1 + 3)), 4),
        ("token_accuracy", 1.0, 4),
    ]
    assert quality.drop == 0.0
    first = {name: array[:1] for name, array in arrays.items()}
    assert QualityCheck(BERT, arrays).of(first).reference_scores[0].value == pytest.approx(2 / (2 + 1))


def test_where_nothing_is_known_of_lost_words_the_score_says_so() -> None:
    labels = [[1, 2, 0, -1], [3, -1, -1, -1]]
    arrays = answers(labels, labels)
    check = QualityCheck(BERT, arrays)
    quality = check.of(answers([[1, 2, 0, -1], [0, -1, -1, -1]], labels))
    assert [(s.name, s.value, s.count) for s in quality.scores] == [
        ("entity_f1_of_seen_words", pytest.approx(2 / 3), 2),
        ("token_accuracy", 0.75, 4),
    ]
    assert quality.drop == pytest.approx(1 / 3)
    with_unseen = check.of(arrays | {"unseen_labels": np.array([[-1, -1, -1, 3], [-1, -1, -1, -1]])})
    assert [(s.name, s.count) for s in with_unseen.reference_scores] == [("entity_f1", 3), ("token_accuracy", 4)]
    assert with_unseen.drop == 0.0, "a reference of before is scored as the cell is"


def test_labels_of_lost_words_without_a_name_are_no_tags() -> None:
    labels = [[1, 2, 0, 3]]
    arrays = answers(labels, labels) | {"unseen_labels": np.array([[-1, -1, -1, -1, 9]])}
    assert [s.name for s in QualityCheck(BERT, arrays).of(arrays).scores] == ["token_accuracy"]


@pytest.mark.parametrize(
    "entry",
    [
        BERT.model_copy(update={"label_names": ()}),
        BERT.model_copy(update={"label_names": ("O", "B-PER")}),
        BERT.model_copy(update={"label_names": ("DET", "NOUN", "VERB", "ADJ", "ADV")}),
    ],
    ids=["no names", "too few names", "no entities"],
)
def test_tags_without_entities_are_scored_by_token(entry) -> None:
    labels = [[1, 2, 0, 3]]
    quality = QualityCheck(entry, answers(labels, labels)).of(answers([[1, 2, 0, 0]], labels))
    assert [(s.name, s.value) for s in quality.scores] == [("token_accuracy", 0.75)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.data())
def test_a_score_drops_by_at_most_the_share_of_other_answers(labels, data) -> None:
    size = len(labels)
    numbers = st.lists(st.integers(0, 9), min_size=size, max_size=size)
    mine, theirs = data.draw(numbers), data.draw(numbers)
    quality = QualityCheck(CNN, answers(theirs, labels)).of(answers(mine, labels))
    assert abs(quality.drop) <= 1 - quality.agreement + 1e-12


def test_the_reference_is_float32_not_predict_in_the_order_of_backends() -> None:
    run, _ = simulated_run(plan())
    inference = run.measured("simulated-cnn", "inference")
    assert reference_cell(inference).spec.label == "inference tensorflow/graph float32 cpu batch 32"
    no_tensorflow = [c for c in inference if c.spec.backend != "tensorflow"]
    assert reference_cell(no_tensorflow).spec.label == "inference jax/jit float32 cpu batch 32"
    assert reference_cell(c for c in inference if c.spec.method == "predict") is None
    assert reference_cell(c for c in inference if c.spec.precision == "bfloat16") is None


def test_answers_that_change_in_their_place_are_judged_again() -> None:
    check = QualityCheck(CNN, answers([1, 2, 3, 4], [1, 2, 3, 4]))
    mine = answers([1, 2, 3, 4], [1, 2, 3, 4])
    assert check.of(mine).agreement == 1.0
    mine["predictions"][0] = 0
    assert check.of(mine).agreement == 0.75


def test_equal_bytes_in_another_shape_are_other_answers() -> None:
    labels = np.array([[0, 1, 1], [0, 1, 1]], np.int32)
    check = QualityCheck(BERT, {"predictions": labels})
    assert check.of({"predictions": labels, "labels": labels}).agreement == 1.0
    flat = check.of({"predictions": labels.reshape(3, 2), "labels": labels.reshape(3, 2)})
    assert flat.agreement is None


def test_what_is_read_only_is_hashed_again_once_another_array_lies_in_its_place() -> None:
    check = QualityCheck(CNN, answers([1, 2, 3, 4], [1, 2, 3, 4]))
    for wrong in range(5):
        predictions = np.array([0] * wrong + [1, 2, 3, 4][wrong:])
        predictions.setflags(write=False)
        quality = check.of({"predictions": predictions, "labels": np.array([1, 2, 3, 4])})
        assert quality.agreement == 1 - wrong / 4
        del predictions  # the next one may get its address

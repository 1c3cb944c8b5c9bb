"""Gates on the winner of a recommendation: its own answers, and the next way where it alone fails one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kcost.api import recommend_gates
from kcost.api.recommend_data import Scored
from kcost.api.recommend_gates import (
    CARD_FILE,
    Assessed,
    Winner,
    card_of_another,
    chosen_under_gates,
    refuse_gates_without_data,
    split_of,
)
from kcost.core.answer import Answer
from kcost.core.artifact import Model
from kcost.core.entities import UNSEEN_LABELS
from kcost.core.errors import InputError
from kcost.core.plan import Precision
from kcost.cost.traffic import constant
from kcost.recommend.candidates import Candidate, Listed
from kcost.recommend.drop import DropBound
from kcost.recommend.rescoring import Answered
from kcost.risk.gates import Gates, Verdict
from tests.unit.recommend.ways import way as ranked_way
from tests.unit.risk.reports import report

LIMITS = Gates(min_score=0.9, max_memory_mib=10)


def way(precision: Precision) -> Candidate:
    return Candidate(
        backend="torch", method="eager", precision=precision, device="cpu", threads=0, batches=(8,), effort="first"
    )


NO_DROP = DropBound(value=0.0, bound=0.01, changed=0, count=100, basis="labels")
NOT_FLOAT32 = ("torch/eager bfloat16", "torch/eager int8")
LISTED = Listed(candidates=(way("bfloat16"), way("int8"), way("float32")), left_out=())


def priced_without(refused: Mapping[str, str]) -> Any:
    """A ranking of the ways as they are listed, without some; each has one cell."""
    names = [c.name for c in LISTED.candidates if c.name not in refused]
    ranked = [ranked_way(n, 100.0, 1.0, drop=None if "float32" in n else NO_DROP) for n in names]
    spec = SimpleNamespace(
        backend="torch", method="eager", device="cpu", threads=0, batch=8, phase="inference", model="m", cell_id="c"
    )
    cells = [
        SimpleNamespace(spec=SimpleNamespace(**{**vars(spec), "precision": c.precision})) for c in LISTED.candidates
    ]
    run = SimpleNamespace(measured=lambda phase: cells)
    return SimpleNamespace(priced=SimpleNamespace(ranked=ranked) if ranked else None, run=run)


def gated(monkeypatch: pytest.MonkeyPatch, failing: Mapping[str, str], known: Assessed) -> Any:
    def verdicts_on(winner: Any, *_: object) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:
        gate = failing.get(winner.candidate.name)
        return (Verdict(gate=gate or "min_score", limit=0.9, answer="fail" if gate else "pass"),), ()

    monkeypatch.setattr(recommend_gates, "verdicts_on", verdicts_on)
    model, scored = Model(name="m", keras_file=Path("m.keras"), sha256="", artifact=None), Scored(None, True, "d", ())
    return chosen_under_gates(
        priced_without,
        LISTED,
        {},
        known,
        model,
        scored,
        Path("out"),
        LIMITS,
        "gates.toml",
        lambda _: None,
        constant(200),
    )


def test_a_way_that_fails_where_the_model_does_not_is_refused_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Assessed(report("min_score = 0.5"), None, ())
    result = gated(monkeypatch, {"torch/eager bfloat16": "min_score"}, known)
    assert list(result.refused) == ["torch/eager bfloat16"]
    assert "fails min_score" in result.refused["torch/eager bfloat16"]
    assert result.priced.priced.ranked[0].name == "torch/eager int8"
    assert [v.answer for v in result.verdicts] == ["pass"]


def test_time_and_dollars_are_judged_on_what_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_a_step(winner: Any, *_: object) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:
        return tuple(Verdict(gate=gate, limit=1.0, answer="pass") for gate in ("min_score", "max_p99_ms")), ()

    monkeypatch.setattr(recommend_gates, "verdicts_on", of_a_step)
    model, known = Model(name="m", keras_file=Path("m.keras"), sha256="", artifact=None), Assessed(None, "", ())
    limits = Gates(min_score=0.9, max_p99_ms=1.0)  # a request of a ranked way takes 40 ms
    judged = chosen_under_gates(
        priced_without, LISTED, {}, known, model, Scored(None, True, "d", ()), Path("out"), limits, "gates.toml",
        lambda _: None, constant(200),
    )  # fmt: skip
    assert {v.gate: v.answer for v in judged.verdicts} == {"max_p99_ms": "fail", "min_score": "pass"}
    assert judged.refused == {}


def test_what_the_model_itself_fails_refuses_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Assessed(report("min_score = 0.999"), None, ())
    result = gated(monkeypatch, {"torch/eager bfloat16": "min_score"}, known)
    assert (result.refused, [v.answer for v in result.verdicts]) == ({}, ["fail"])


def test_float32_is_never_refused_and_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Assessed(report("min_score = 0.5"), None, ())
    result = gated(monkeypatch, {c.name: "min_score" for c in LISTED.candidates}, known)
    assert list(result.refused) == ["torch/eager bfloat16", "torch/eager int8"]
    assert result.priced.priced.ranked[0].name == "torch/eager float32"


def test_a_limit_on_what_a_cell_takes_refuses_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    result = gated(monkeypatch, {"torch/eager bfloat16": "max_memory_mib"}, Assessed(report(), None, ()))
    assert (result.refused, [v.answer for v in result.verdicts]) == ({}, ["fail"])


def test_a_card_of_another_model_than_the_one_that_runs_is_told(tmp_path: Path) -> None:
    known = Assessed(report(), None, ())
    int8, float32 = priced_without({"torch/eager bfloat16": "so"}), priced_without(dict.fromkeys(NOT_FLOAT32, "so"))
    assert card_of_another(int8, LISTED, {}, known, tmp_path) == ()  # there is no card
    (tmp_path / CARD_FILE).write_text("# m")
    (notice,) = card_of_another(int8, LISTED, {}, known, tmp_path)
    assert notice.endswith("as it is, in float32; what runs is torch/eager int8.")
    assert card_of_another(float32, LISTED, {}, known, tmp_path) == ()


@pytest.mark.parametrize("version", [None, "a version"])
@pytest.mark.parametrize("is_exact", [True, False])
def test_a_winner_is_the_model_as_it_is_without_version_and_in_float32(is_exact: bool, version: Any) -> None:
    winner = Winner(way("float32"), "c", "m", version, is_exact)
    assert winner.is_model_as_it_is == (is_exact and version is None)


def test_answers_of_a_cell_are_read_as_stored_predictions_are() -> None:
    answer = Answer(output="y", kind="multiclass", logits=True, because="a test")
    arrays = {"scored_outputs": np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), "labels": np.array([0, 0, -1])}
    answers = split_of(Answered(answer, arrays, ("a", "b")), np.array([3, 7, 9]), ())
    assert answers.predicted.tolist() == [0, 1]
    assert answers.right.tolist() == [True, False]
    assert answers.confidence == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))], rel=1e-5)
    assert (answers.rows.tolist(), answers.examples.tolist()) == ([0, 1], [3, 7, 9])


def test_answers_of_a_tagger_count_entities_and_words_that_were_cut_off() -> None:
    answer = Answer(output="y", kind="tags", logits=True, because="a test")
    names = ("O", "B-PER", "I-PER")
    logits = np.full((2, 3, 3), -5.0)
    logits[0, 0, 1] = logits[0, 1, 0] = logits[1, 0, 0] = 5.0  # PER and O; O
    labels = np.array([[1, 0, -1], [1, -1, -1]])
    unseen = np.array([[-1, -1, 1], [-1, -1, -1]])  # a third word of the first sentence, PER, has no position
    arrays = {"scored_outputs": logits, "labels": labels, UNSEEN_LABELS: unseen}
    answers = split_of(Answered(answer, arrays, names), np.array([0, 5]), ("PER",))
    assert answers.entity_counts is not None
    assert answers.entity_counts.tolist() == [[[1, 0, 1]], [[0, 0, 1]]]
    assert answers.rows.tolist() == [0, 0, 1]


@pytest.mark.parametrize("file", [None, Path("cells.npz")])
def test_gates_without_a_data_set_are_refused_at_once(file: Path | None) -> None:
    model = Model(name="m", keras_file=Path("m.keras"), sha256="", artifact=None)
    with pytest.raises(InputError, match="a data set with labels"):
        refuse_gates_without_data(model, Scored(file, True, None, ()), "gates.toml")
    refuse_gates_without_data(model, Scored(file, True, None, ()), None)
    refuse_gates_without_data(model, Scored(file, True, "digits", ()), "gates.toml")

"""Cheaper versions of the model as candidates: made where they may win, refused by what they lost, priced beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import kcost
from kcost.api.recommend_data import Scored
from kcost.api.recommend_variants import made_variants, maker, making_seconds, variants_of, work_of
from kcost.core import schema
from kcost.core.artifact import Artifact, Model, RunCost, Step, open_model
from kcost.core.errors import InputError, WorkerError
from kcost.core.plan import BACKENDS, Backend, Method
from kcost.core.process import chosen_backend
from kcost.core.score_drop import accuracy_drop
from kcost.cost.assumptions import Assumptions
from kcost.cost.pricebook import PriceBook
from kcost.cost.traffic import constant
from kcost.recommend.arms import most_at_once
from kcost.recommend.bounds import Work
from kcost.recommend.candidates import MAKING_S, Candidate, Machine, list_candidates
from kcost.recommend.drop import drop_of
from kcost.recommend.measuring import Measuring
from kcost.recommend.one_plan import plan_of
from kcost.recommend.spent import Spent
from kcost.recommend.terms import Limits, Terms
from kcost.recommend.variants import VARIANTS, MadeVariant, Variant

PRUNED = VARIANTS[0]


def way(method: Method, **changes: Any) -> Candidate:
    backend: Backend = "fake"
    return Candidate(
        backend=backend, method=method, precision="float32", device="cpu", threads=0, batches=(8,),
        **{"effort": "first", "model": "big", **changes},
    )  # fmt: skip


CANDIDATES = (
    way("predict"),
    way("eager"),
    way("eager", variant=PRUNED.name, model="big-pruned", effort="cheap", after="fake/eager float32"),
)


def lost(wrong: int, count: int = 400) -> MadeVariant:
    """A version that answers so many of the examples wrongly that the model answered rightly."""
    before, after = np.ones(count, int), np.ones(count, int)
    after[:wrong] = 0
    return MadeVariant(
        variant=PRUNED.name, of_sha256="0", model="big-pruned", folder="big-pruned.keras",
        score=accuracy_drop(before, after), flops_per_example=0.0, weight_bytes=0,
    )  # fmt: skip


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Measuring, Spent, list[float]]]:
    """Measures a model that takes 4 ms and, where it is made, a version of it that takes 1 ms."""
    monkeypatch.setattr("kcost.cost.verdict.disturbances", lambda cell, environment: ())
    (tmp_path / "big.keras").write_text(json.dumps({"step_s": 0.004}))
    limits, book = Limits(p99_ms=100, max_drop=0.02), PriceBook.read()
    assumed = Assumptions(work_hours=80)  # so that plain Keras and its like are told apart at once
    terms = Terms(constant(100_000), assumed, limits, book, "aws", "us-east-1", None, 0)
    granted_s: list[float] = []

    def measure(wrong: int | None, **changes: Any) -> tuple[Measuring, Spent, list[float]]:
        def make(variant: Variant, timeout_s: float) -> MadeVariant:
            granted_s.append(timeout_s)
            if wrong is None:
                raise InputError("There is nothing to prune.", "a model without layers")
            (tmp_path / "big-pruned.keras").write_text(json.dumps({"step_s": 0.001}))
            return lost(wrong)

        plan = plan_of(tmp_path / "big.keras", CANDIDATES, data=None, seed=0, settings={"round_s": 0.01})
        measuring = Measuring(
            CANDIDATES, plan, terms, tmp_path / "run", work=Work(0.0), seconds=600, make=make, **changes
        )
        return measuring, measuring.spend(), granted_s

    return measure


def test_a_version_that_keeps_its_score_is_measured_beside_the_model(measured: Any) -> None:
    measuring, spent, granted_s = measured(wrong=0)
    standings = measuring.standings
    assert set(standings) == {c.name for c in CANDIDATES}
    assert standings["pruned, fake/eager float32"].high_usd < standings["fake/eager float32"].low_usd
    assert not spent.failed
    assert len(granted_s) == 1
    assert granted_s == [180]  # three times what was guessed, and at most half of the time that is left


def test_one_that_lost_too_much_is_refused_before_a_step_of_it_is_timed(measured: Any, tmp_path: Path) -> None:
    measuring, spent, _ = measured(wrong=20)
    assert set(measuring.standings) == {"fake/predict float32", "fake/eager float32"}
    reason = spent.failed["pruned, fake/eager float32"]
    assert reason.startswith("score may drop by up to 6.81% (bound of 95%, 400 examples)")
    assert "the limit is 2.00%" in reason
    assert not any("big-pruned" in path.read_text() for path in (tmp_path / "run").rglob("*.json"))


def test_one_on_the_limit_says_how_many_labels_would_decide(measured: Any) -> None:
    _, spent, _ = measured(wrong=5)
    assert spent.failed["pruned, fake/eager float32"].startswith("can't tell: ")
    assert "more labels would decide" in spent.failed["pruned, fake/eager float32"]


def test_one_that_cannot_be_made_says_why_and_the_answer_stands(measured: Any) -> None:
    measuring, spent, granted_s = measured(wrong=None)
    assert "nothing to prune" in spent.failed["pruned, fake/eager float32"]
    assert len(granted_s) == 1
    assert "fake/eager float32" in measuring.standings


def test_one_that_was_made_before_is_taken_as_it_is(measured: Any, tmp_path: Path) -> None:
    (tmp_path / "big-pruned.keras").write_text(json.dumps({"step_s": 0.001}))
    measuring, _, granted_s = measured(wrong=0, made={PRUNED.name: lost(0)})
    assert not granted_s
    assert "pruned, fake/eager float32" in measuring.standings


def test_slow_ways_are_got_ready_at_the_same_time_where_there_are_cores_and_memory(tmp_path: Path) -> None:
    file = tmp_path / "big.keras"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 30)

    def at_once(cores: int, gib: int) -> int:
        return most_at_once(cores, gib << 30, [file])

    assert [at_once(2, 40), at_once(1, 40), at_once(2, 35), at_once(2, 8)] == [2, 1, 1, 1]


def test_a_model_with_training_data_has_its_versions_among_the_ways() -> None:
    machine = Machine(backends=BACKENDS, runtimes=("onnx", "litert"), cores=2)
    listing = list_candidates(machine, calibration=True, model="mine", variants=VARIANTS)
    by_name = {c.name: c for c in listing.candidates}
    pruned = by_name["pruned, torch/onnx float32"]
    assert (pruned.after, pruned.effort, pruned.model) == ("torch/onnx float32", "convert", "mine-pruned")
    int8 = by_name["int8 layers, tensorflow/graph float32"]
    assert (int8.after, int8.effort, int8.model) == (None, "cheap", "mine-int8")
    assert not any("int8 layers, torch/onnx" in name or "predict" in name for name in by_name if "," in name)
    assert {c.model for c in listing.candidates if c.variant is None} == {"mine"}
    assert [c.name for c in listing.candidates if c.is_plain] == ["tensorflow/predict float32"]


@given(st.integers(20, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n // 4), st.integers(0, n // 4))))
def test_the_changed_examples_are_read_back_from_the_bound(case: tuple[int, int, int]) -> None:
    count, wrong, mended = case
    before, after = np.ones(count, int), np.ones(count, int)
    after[:wrong] = 0
    before[count - mended :] = 0
    drop = drop_of(accuracy_drop(before, after))
    if drop.bound < 1:
        assert drop.changed == wrong + mended
    assert drop.value == pytest.approx((wrong - mended) / count)


def model_in(folder: Path, steps: tuple[Step, ...] = ()) -> Model:
    """An artifact as far as versions ask for it."""
    about = Artifact(
        name="big", task="image-classification", family="cnn", model_sha256="0", parameters=1, inputs=(), outputs=(),
        created_at="now", steps=steps,
    )  # fmt: skip
    return Model(name="big", keras_file=folder / "model.keras", sha256="0", artifact=about)


def test_versions_are_those_of_the_very_file_of_the_model(tmp_path: Path) -> None:
    version = lost(0).model_copy(update={"folder": "variants/pruned"})
    schema.write(tmp_path / "variants" / "pruned.json", version)
    model = model_in(tmp_path)
    assert made_variants(model, tmp_path) == {}  # its artifact is gone
    (tmp_path / "variants" / "pruned").mkdir()
    assert made_variants(model, tmp_path) == {"pruned": version}
    assert made_variants(model.model_copy(update={"sha256": "1"}), tmp_path) == {}


@pytest.mark.parametrize(
    ("scored", "reason"),
    [
        (Scored(Path("x.npz"), True, None, ()), "--data holds what cells are fed"),
        (Scored(None, True, None, ()), "no labelled training data"),
    ],
)
def test_without_training_data_there_is_no_version_and_it_says_why(scored: Scored, reason: str, tmp_path: Path) -> None:
    assert variants_of(model_in(tmp_path), scored)[0] == ()
    assert reason in variants_of(model_in(tmp_path), scored)[1]
    assert variants_of(model_in(tmp_path), Scored(None, True, "digits", ())) == (VARIANTS, "")


def test_what_an_epoch_took_says_what_making_a_version_takes(tmp_path: Path) -> None:
    cost = RunCost(wall_s=40.0, energy_wh=None, energy_basis="", usd=None, usd_basis="", labelled_examples=1)
    step = Step(kind="train", backend="jax", backend_version="1", settings={"epochs": 20}, cost=cost)
    assert making_seconds(model_in(tmp_path, (step,))) == 26.0
    assert making_seconds(model_in(tmp_path)) == MAKING_S


@pytest.mark.slow
def test_real_versions_of_a_trained_model(tmp_path: Path) -> None:
    folder = tmp_path / "digits-cnn"
    kcost.train("cnn", data="digits", out=folder, epochs=2, name="digits-cnn")
    model = open_model(folder)
    make = maker(model, Scored(None, True, None, ()), tmp_path / "out", chosen_backend(), 0)
    made = {variant.name: make(variant, 300.0) for variant in VARIANTS}
    whole = work_of(model.keras_file)
    assert 0 < made["pruned"].flops_per_example < whole.flops_per_example
    assert made["pruned"].weight_bytes < whole.weight_bytes
    assert all(v.score.count > 256 and v.drop.bound >= v.drop.value for v in made.values())
    assert open_model(tmp_path / "out" / made["int8 layers"].folder).name == "digits-cnn-int8"
    assert made_variants(model, tmp_path / "out") == made
    with pytest.raises(WorkerError, match=r"within 0\.01 s"):
        make(VARIANTS[0], 0.01)

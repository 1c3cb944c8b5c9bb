"""The worker's jobs, called in this process."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kcost import data
from kcost.bench.runner import measure
from kcost.bench.store import RunStore
from kcost.core.artifact import open_model
from kcost.core.chosen_rows import chosen_rows
from kcost.core.entities import UNSEEN_LABELS
from kcost.core.errors import DataError, InputError, StorageError
from kcost.core.ood_scores import read_ood_scores
from kcost.core.plan import Plan
from kcost.core.predictions import read_predictions
from kcost.core.request import (
    ATTACKED,
    CLEAN,
    AttackRequest,
    CorruptRequest,
    EvaluateRequest,
    ExamplesRequest,
    OodRequest,
    PredictRequest,
    TrainRequest,
)
from kcost.core.result import Run
from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import conclude, prices_for
from kcost.data.corruptions import conditions_for
from kcost.risk.out_of_distribution import ood_detection
from kcost.risk.robustness import robustness
from kcost.risk.scores import main_score
from kcost.worker import corrupted, evaluate, examples, out_of_distribution, predict, robustness as attack, train


def request(out: Path, **changes: Any) -> TrainRequest:
    price = {"usd_per_hour": 0.1, "usd_basis": "a test"}
    settings = {"family": "cnn", "data": "digits", "out": out, "name": "m", "epochs": 3, "limit": 200}
    return TrainRequest.model_validate({**settings, **price, **changes})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "digits"
    train.run(request(out))
    return out


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its inputs are too short for many sentences."""
    out = tmp_path_factory.mktemp("train") / "tagger"
    train.run(request(out, family="bert", data="ner-mini", max_length=12, batch_size=16, learning_rate=2e-3, epochs=6))
    return out


def test_training_writes_an_artifact_that_says_how_it_was_made(digits: Path, backend: str) -> None:
    model = open_model(digits)
    assert model.artifact is not None
    assert (model.artifact.task, model.artifact.family) == ("image-classification", "cnn")
    step = model.artifact.steps[0]
    assert (step.kind, step.backend, step.settings["epochs"]) == ("train", backend, 3)
    score = model.artifact.scores[0]
    assert (score.name, score.split, score.count) == ("accuracy", "test", 200)
    assert score.low < score.value < score.high
    with np.load(digits / "samples.npz") as samples:
        assert samples["images"].shape == (200, 8, 8, 1)


def test_examples_are_written_as_the_model_takes_them(tagger: Path, digits: Path, tmp_path: Path) -> None:
    """Those that the artifact carries, and others, drawn; a bare file says its own scale of pixels."""
    file = tmp_path / "x.npz"
    every = examples.run(ExamplesRequest(model=tagger, count=10_000, seed=0, file=file))
    assert every.written == every.total
    with np.load(tagger / "samples.npz") as own, np.load(file) as written:
        assert set(own.files) == set(written.files) >= {"token_ids", "labels", UNSEEN_LABELS}
        assert len(own["labels"]) == every.total
        for name in ("token_ids", "labels"):  # a limit of training puts the same sentences into another order
            assert sorted(map(tuple, own[name])) == sorted(map(tuple, written[name]))
    few = examples.run(ExamplesRequest(model=tagger, count=20, seed=3, file=tmp_path / "few.npz"))
    assert (few.written, few.unit, few.pixels) == (20, "sentences", None)
    with np.load(file) as written, np.load(tmp_path / "few.npz") as drawn:
        rows_drawn = chosen_rows(every.total, 20, 3)
        width = drawn["labels"].shape[1]
        assert np.array_equal(drawn["labels"], written["labels"][rows_drawn, :width])
    inputs = keras.Input((8, 8, 1))
    outputs = layers.Dense(10, activation="softmax")(layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
    keras.Model(inputs, outputs).save(tmp_path / "bare.keras")
    scaled = examples.run(ExamplesRequest(model=tmp_path / "bare.keras", data="digits", count=30, seed=0, file=file))
    assert scaled.pixels is not None
    assert "255" in scaled.pixels
    with np.load(file) as written:
        (pixels,) = (written[n] for n in written.files if n != "labels")
        assert pixels.max() == 255


def test_a_tagger_carries_its_vocabulary_and_real_samples(tagger: Path) -> None:
    model = open_model(tagger)
    assert model.artifact is not None
    assert model.artifact.dataset is not None
    assert model.artifact.dataset.synthetic
    assert model.artifact.label_names[0] == "O"
    assert (tagger / "vocab.txt").read_text().startswith("[PAD]\n")
    with np.load(tagger / "samples.npz") as samples:
        assert set(samples.files) == {"token_ids", "segment_ids", "padding_mask", "labels", "unseen_labels"}
        assert len(samples["unseen_labels"]) == len(samples["labels"])
        assert samples["labels"].max() < len(model.artifact.label_names)
    assert model.artifact.scores[0].name == "entity_f1"


@pytest.mark.parametrize("which", ["digits", "tagger"])
def test_evaluating_gives_the_scores_of_the_artifact(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    stored = json.loads((folder / "artifact.json").read_text())["scores"]
    score = evaluate.run(EvaluateRequest(model=folder, limit=200)).scores[0]
    assert score.value == pytest.approx(stored[0]["value"], abs=1e-6)
    assert score.count == stored[0]["count"]


def test_the_same_seed_gives_the_same_numbers(digits: Path, tmp_path: Path) -> None:
    again = train.run(request(tmp_path / "again"))
    other = train.run(request(tmp_path / "other", seed=1))
    stored = open_model(digits).artifact
    assert stored is not None
    assert again.artifact.scores[0].value == stored.scores[0].value
    assert list(again.history) == json.loads((digits / "history.json").read_text())
    assert again.history != other.history


PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "thing", *map(str, range(60)))


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import keras_nlp

    folder = tmp_path_factory.mktemp("preset")
    encoder = keras_nlp.models.BertBackbone(len(PIECES), 2, 2, 8, 16, max_sequence_length=16)
    encoder.save_to_preset(str(folder))
    keras_nlp.models.BertTokenizer(vocabulary=PIECES, lowercase=True).save_to_preset(str(folder))
    return folder


@pytest.mark.slow
def test_labelled_texts_are_learnt_from_a_keras_preset(preset: Path, tmp_path: Path) -> None:
    rows = [f"{'good' if i % 2 else 'bad'} thing {i},{'yes' if i % 2 else 'no'}" for i in range(60)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows, rows[0]]))
    out = tmp_path / "out"
    settings = {"freeze_layers": 1, "schedule": "linear", "learning_rate": 1e-3, "max_length": 16, "epochs": 1}
    train.run(request(out, family="bert", data=str(tmp_path / "texts.csv"), init=preset, **settings))
    artifact = open_model(out).artifact
    assert artifact is not None
    assert (artifact.task, artifact.label_names) == ("sequence-classification", ("no", "yes"))
    assert artifact.steps[0].changed[0].endswith("embeddings_layer_norm, transformer_layer_0")
    assert (artifact.steps[0].settings["dropout"], artifact.steps[0].settings["init"]) == (0.1, str(preset))
    assert (out / "vocab.txt").read_text().split("\n")[:-1] == list(PIECES)
    assert artifact.report is not None
    assert (artifact.scores[0].name, artifact.scores[0].unit) == ("accuracy", "texts")
    assert np.array(artifact.report.confusion).sum() == artifact.scores[0].count
    cost = artifact.steps[0].cost
    assert cost is not None
    assert artifact.dataset is not None
    splits = artifact.dataset.splits
    assert cost.labelled_examples == splits["train"].count + splits["validation"].count
    assert (cost.wall_s > 0, cost.usd == pytest.approx(cost.wall_s / 3600 * 0.1)) == (True, True)
    assert cost.parts_s.keys() == {"reading", "starting", "steps", "evaluating", "saving"}
    assert all(seconds >= 0 for seconds in cost.parts_s.values())
    assert min(cost.parts_s[part] for part in ("reading", "steps", "evaluating", "saving")) > 0
    assert sum(cost.parts_s.values()) <= cost.wall_s
    assert cost.energy_wh is None or cost.energy_wh > 0
    assert cost.energy_basis
    again = evaluate.run(EvaluateRequest(model=out, limit=200))
    assert again.scores[0].value == pytest.approx(artifact.scores[0].value, abs=1e-6)
    assert again.dataset.splits["test"].sha256 == splits["test"].sha256


def test_a_folder_for_each_class_of_images_is_learnt(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for label, low in (("dark", 0), ("light", 128)):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(low, low + 128, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{i}.png")
    settings = {"epochs": 8, "learning_rate": 1e-2, "batch_size": 8}
    artifact = train.run(request(tmp_path / "out", data=str(tmp_path / "pictures"), **settings)).artifact
    assert (artifact.label_names, artifact.inputs[0].shape) == (("dark", "light"), (None, 12, 12, 3))
    assert artifact.scores[0].value > 0.9


def test_a_folder_that_cannot_be_made_is_refused_before_training(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StorageError, match="kcost needs to write to /proc/kcost-model"):
        train.run(request(Path("/proc/kcost-model")))
    assert "epoch 1" not in capfd.readouterr().err


def test_an_existing_folder_is_refused_before_training(digits: Path) -> None:
    with pytest.raises(StorageError, match="never overwrites"):
        train.run(request(digits))


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Lower --learning-rate"):
        train.run(request(tmp_path / "bad", family="bert", data="ner-mini", learning_rate=1e30, max_length=48))
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("which", ["digits", "tagger"])
def test_stored_predictions_score_as_evaluate_does(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, backend: str
) -> None:
    model = request.getfixturevalue(which)
    file = tmp_path / "p.npz"
    predict.run(PredictRequest(model=model, limit=120, batch_size=32, train_examples=64, file=file))
    stored = read_predictions(file)
    assert stored.header.backend == backend
    assert stored.header.model_sha256 == open_model(model).sha256
    assert len(stored.splits["train"]) == 64
    (expected,) = evaluate.run(EvaluateRequest(model=model, limit=120)).scores
    assert main_score(stored.splits["test"], "examples").value == pytest.approx(expected.value)
    test = stored.splits["test"]
    assert np.array_equal(test.predicted, test.log_probabilities.argmax(-1))
    assert np.exp(test.log_probabilities.astype(np.float64)).sum(-1) == pytest.approx(1.0, abs=1e-3)
    again = tmp_path / "again.npz"
    predict.run(PredictRequest(model=model, limit=120, batch_size=32, train_examples=64, file=again))
    assert read_predictions(again).sha256 == stored.sha256


def test_a_model_without_classes_has_no_risk(tmp_path: Path) -> None:
    inputs = layers.Input((3,), name="x")
    keras.Model(inputs, layers.Dense(1, name="y")(inputs)).save(tmp_path / "m.keras")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.random((50, 3)), y=rng.random(50))
    to_predict = PredictRequest(model=tmp_path / "m.keras", data=str(tmp_path / "d.npz"), file=tmp_path / "p.npz")
    with pytest.raises(InputError, match="probability of each class"):
        predict.run(to_predict)
    assert not (tmp_path / "p.npz").exists()


def test_data_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="learns from tagged sentences"):
        train.run(request(tmp_path / "out", family="bert"))


def test_a_model_is_not_scored_on_data_of_another_task(digits: Path) -> None:
    with pytest.raises(InputError, match="of its own task"):
        evaluate.run(EvaluateRequest(model=digits, data="ner-mini"))


def test_a_bare_file_is_scored_on_data_that_are_named(digits: Path) -> None:
    with pytest.raises(InputError, match="Give --data"):
        evaluate.run(EvaluateRequest(model=digits / "model.keras"))
    scores = evaluate.run(EvaluateRequest(model=digits / "model.keras", data="digits", limit=200)).scores
    assert scores[0].count == 200


METHODS = {"tensorflow": "graph", "jax": "jit", "torch": "eager"}


def measured(out: Path, backend: str, model: Path, **changes: Any) -> Run:
    """A short run of float32 cells: `predict`, and a forward pass."""
    plan = {
        "models": [str(model)],
        "backends": [backend],
        "phases": ["inference"],
        "precisions": ["float32"],
        "methods": ["predict", METHODS[backend]],
        "threads": [1],
        "settings": {"rounds": 1, "round_s": 0.01, "warmup_s": 0.01, "warmup_max_s": 0.1},
    }
    return measure(Plan.parse({**plan, **changes}), out)


def stored(out: Path, run: Run) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of each cell, by its label."""
    arrays = {c.spec.label: RunStore(out).read_outputs(c) for c in run.measured()}
    return {label: given for label, given in arrays.items() if given is not None}


def test_entities_that_truncation_lost_are_missed_in_a_ranking_as_in_evaluate(
    tagger: Path, backend: str, tmp_path: Path
) -> None:
    evaluation = evaluate.run(EvaluateRequest(model=tagger, limit=200))
    (expected,) = evaluation.scores
    assert evaluation.report is not None
    assert evaluation.report.truncated > 200
    assert expected.value > 0.1
    with np.load(tagger / "samples.npz") as samples:
        assert (samples["unseen_labels"] > 0).any(), "words of entities are lost"
    run = measured(tmp_path / "run", backend, tagger, batches=[1, 32], methods=[METHODS[backend]])
    cells = stored(tmp_path / "run", run)
    assert len(cells) == 2
    assert {arrays["predictions"].shape[0] for arrays in cells.values()} == {200}
    assert len({arrays["labels"].tobytes() for arrays in cells.values()}) == 1
    verdict = conclude(run, prices_for(run, PriceBook.read()), RunStore(tmp_path / "run").read_outputs)
    ranked = [c.quality.scores[0] for r in verdict.rankings for c in r.cells]
    assert len(ranked) == 2
    for score in ranked:
        assert (score.name, score.count, score.unit) == ("entity_f1", expected.count, "entities")
        assert score.value == pytest.approx(expected.value, abs=1e-6)


def test_made_up_inputs_are_the_same_at_every_batch_size(backend: str, tmp_path: Path) -> None:
    x = keras.Input((6,), name="x")
    keras.Model(x, layers.Dense(5, activation="softmax")(x)).save(tmp_path / "m.keras")
    run = measured(tmp_path / "run", backend, tmp_path / "m.keras", batches=[1, 32, 256])
    cells = list(stored(tmp_path / "run", run).values())
    assert len(cells) == 6
    assert len(set(cells[0]["predictions"].tolist())) > 1
    for arrays in cells:
        assert arrays["predictions"].tolist() == cells[0]["predictions"].tolist()
        np.testing.assert_allclose(arrays["outputs"], cells[0]["outputs"], atol=1e-6)


@pytest.mark.parametrize("which", ["digits", "tagger"])
def test_answers_under_changes_are_stored_a_split_each_the_same_every_time(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(which)
    file, plain = tmp_path / "c.npz", tmp_path / "p.npz"
    settings = {"model": model, "limit": 120, "batch_size": 32}
    corrupted.run(CorruptRequest(**settings, examples=60, file=file))
    stored = read_predictions(file)
    conditions = conditions_for(data.load("digits" if which == "digits" else "ner-mini", limit=120))
    assert set(stored.splits) == {CLEAN, *conditions, *ATTACKED}
    assert stored.header.notes == ()
    assert {len(split) for split in stored.splits.values()} == {60}
    predict.run(PredictRequest(**settings, train_examples=64, file=plain))
    whole = read_predictions(plain)
    assert stored.header.dataset.splits == whole.header.dataset.splits
    tried = robustness(stored, CLEAN, frozenset(ATTACKED), file.name)
    assert tried is not None
    drops = {c.name: c.drop.value for c in tried.conditions}
    assert max(drops.values()) > 0.1, drops
    assert drops["PGD 5%"] >= drops["FGSM 2%"] - 0.02
    corrupted.run(CorruptRequest(**settings, examples=60, file=plain))
    assert read_predictions(plain).sha256 == stored.sha256


def test_what_cannot_be_attacked_still_has_its_changes(tmp_path: Path) -> None:
    inputs = layers.Input((3,), name="x")
    keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="y")(inputs)).save(tmp_path / "m.keras")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.random((90, 3)).astype("float32"), y=rng.integers(0, 2, 90))
    file = tmp_path / "c.npz"
    corrupted.run(CorruptRequest(model=tmp_path / "m.keras", data=str(tmp_path / "d.npz"), file=file))
    stored = read_predictions(file)
    assert set(stored.splits) == {CLEAN, "noise 10%", "noise 50%"}
    assert "not attacked: An attack is on" in stored.header.notes[0]


def test_images_that_are_no_digits_are_told_by_confidence_and_by_energy(digits: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (60, 8, 8)).astype(np.uint8)  # nearly black: nothing in them is for one class
    np.savez(tmp_path / "dark.npz", x=x, y=rng.integers(0, 7, 60))
    file, plain = tmp_path / "s.npz", tmp_path / "p.npz"
    other = str(tmp_path / "dark.npz")
    out_of_distribution.run(OodRequest(model=digits, other=other, limit=120, batch_size=32, file=file))
    stored = read_ood_scores(file)
    assert stored.header.no_energy_because is None
    predict.run(PredictRequest(model=digits, limit=120, batch_size=32, train_examples=64, file=plain))
    assert stored.own.confidence == pytest.approx(read_predictions(plain).splits["test"].confidence, abs=1e-5)
    detections = {d.by: d.auroc.value for d in ood_detection(stored, file.name).detections}
    assert set(detections) == {"confidence", "energy"}
    assert detections["confidence"] > 0.7
    same = tmp_path / "same.npz"
    out_of_distribution.run(OodRequest(model=digits, other="digits", limit=120, batch_size=32, file=same))
    (by_confidence, _) = ood_detection(read_ood_scores(same), same.name).detections
    assert by_confidence.auroc.value == 0.5, "of the very same examples"


def test_sentences_have_a_score_each_and_other_kinds_of_data_are_refused(tagger: Path, tmp_path: Path) -> None:
    (tmp_path / "other.conll").write_text("".join(f"zzq{i} O\nxx{i} B-ZZ\n\n" for i in range(60)))
    file = tmp_path / "s.npz"
    wanted = {"model": tagger, "limit": 60, "batch_size": 32, "file": file}
    out_of_distribution.run(OodRequest(**wanted, other=str(tmp_path / "other.conll")))
    stored = read_ood_scores(file)
    assert stored.own.energy is not None
    assert len(stored.own.confidence) == len(stored.own.energy) == 60
    assert np.isfinite(stored.own.energy).all()
    with pytest.raises(InputError, match="Other data are of the kind"):
        out_of_distribution.run(OodRequest(**wanted, other="digits"))


def test_arrays_are_told_from_others_by_what_a_users_own_model_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (90, 3)).astype("float32")
    for name, numbers in {"own": x, "faint": 0.01 * x}.items():
        np.savez(tmp_path / f"{name}.npz", x=numbers, y=rng.integers(0, 3, 90) if name == "own" else np.arange(90) % 3)
    file = tmp_path / "s.npz"
    wanted = {"data": str(tmp_path / "own.npz"), "other": str(tmp_path / "faint.npz"), "file": file}
    keras.utils.set_random_seed(0)
    inputs = layers.Input((3,), name="x")
    keras.Model(inputs, layers.Dense(3, activation="softmax", name="y")(inputs)).save(tmp_path / "three.keras")
    out_of_distribution.run(OodRequest(model=tmp_path / "three.keras", **wanted))
    detections = {d.by: d.auroc.value for d in ood_detection(read_ood_scores(file), file.name).detections}
    assert detections["confidence"] > 0.9, "faint numbers give no class much more than a third"
    assert detections["energy"] > 0.6
    with pytest.raises(InputError, match="Other data are of the kind"):
        out_of_distribution.run(OodRequest(model=tmp_path / "three.keras", **{**wanted, "other": "digits"}))


def test_a_yes_or_no_has_confidence_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("own", "other"):
        np.savez(tmp_path / f"{name}.npz", x=rng.normal(0, 1, (60, 3)).astype("float32"), y=np.arange(60) % 2)
    inputs = layers.Input((3,), name="x")
    keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="y")(inputs)).save(tmp_path / "m.keras")
    file = tmp_path / "s.npz"
    wanted = {"data": str(tmp_path / "own.npz"), "other": str(tmp_path / "other.npz"), "file": file}
    out_of_distribution.run(OodRequest(model=tmp_path / "m.keras", **wanted))
    stored = read_ood_scores(file)
    assert stored.own.energy is None
    assert "a sure no" in str(stored.header.no_energy_because)


@pytest.mark.parametrize("job", ["evaluate", "predict", "corrupt", "ood", "attack"])
@pytest.mark.parametrize("which", ["digits", "tagger"])
def test_what_takes_minutes_on_a_big_model_counts_its_examples(
    which: str,
    job: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("kcost.core.progress.LINE_EVERY_S", -1)
    wanted: dict[str, Any] = {"model": request.getfixturevalue(which), "limit": 90, "batch_size": 32}
    data_name, file = {"digits": "digits", "tagger": "ner-mini"}[which], tmp_path / "x.npz"
    capsys.readouterr()  # what its training told, where this test is the first
    if job == "evaluate":
        evaluate.run(EvaluateRequest(**wanted))
        examples_told = 90
    elif job == "attack":
        examples_told = 90 * len(attack.run(AttackRequest(**wanted, epsilons=(0.1,))).results)
    elif job == "ood":
        out_of_distribution.run(OodRequest(**wanted, other=data_name, file=file))
        stored = read_ood_scores(file)
        examples_told = len(stored.own.confidence) + len(stored.other.confidence)
    else:
        if job == "predict":
            predict.run(PredictRequest(**wanted, train_examples=1000, file=file))
        else:
            corrupted.run(CorruptRequest(**wanted, examples=40, file=file))
        examples_told = sum(len(split.examples) for split in read_predictions(file).splits.values())
    lines = capsys.readouterr().out.splitlines()
    counts = [re.fullmatch(r" *\d+% .*: ([\d,]+) of ([\d,]+) (?:examples|sentences) \(.*\)", line) for line in lines]
    assert None not in counts, lines
    counts_told = [tuple(int(number.replace(",", "")) for number in c.groups()) for c in counts if c is not None]
    assert len(counts_told) > 1
    assert counts_told == sorted(set(counts_told)), "each batch is told once, and the count goes up"
    assert counts_told[-1] == (examples_told, examples_told), "progress ends at its end"

"""Each bad input gets one clear message, the right exit code and no traceback."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.cli.commands import check, kcost, kcost_process


def test_a_backend_that_does_not_exist(tmp_path: Path) -> None:
    finished = kcost("train", "cnn", "--data", "digits", "--out", tmp_path / "a", KERAS_BACKEND="mxnet")
    check(finished, 3, "one of tensorflow, jax, torch", "Received: 'mxnet'")


def test_a_backend_that_is_not_installed(tmp_path: Path, model: Path) -> None:
    """A sitecustomize that hides torch, as an environment without it has it."""
    (tmp_path / "sitecustomize.py").write_text("from kcost.worker.isolate import hide; hide(['torch'])")
    finished = kcost_process("bench", model, "--backends", "torch", "--out", tmp_path / "run", PYTHONPATH=str(tmp_path))
    check(finished, 3, "pip install 'kcost[torch]'")
    assert not (tmp_path / "run").exists()


def test_an_unknown_device(tmp_path: Path, model: Path) -> None:
    finished = kcost("bench", model, "--devices", "npu", "--out", tmp_path / "run")
    check(finished, 2, "devices.0: Input should be 'cpu', 'gpu' or 'tpu'")


def test_a_device_that_is_not_there(tmp_path: Path, model: Path) -> None:
    finished = kcost(
        "bench", model, "--backends", "fake", "--devices", "gpu", "--phases", "inference", "--out", tmp_path / "r"
    )
    check(finished, 3, "No cell could be measured", "cpu: 1, gpu: 0, tpu: 0")


def test_a_truncated_keras_file(tmp_path: Path) -> None:
    whole = tmp_path / "whole.keras"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("config.json", json.dumps({"module": "keras", "class_name": "Sequential", "config": {}}))
        archive.writestr("model.weights.h5", b"0" * 1000)
    (tmp_path / "cut.keras").write_bytes(whole.read_bytes()[:700])
    finished = kcost("bench", tmp_path / "cut.keras", "--backends", "jax", "--out", tmp_path / "run")
    check(finished, 2, "cut.keras", "Received:")


@pytest.mark.parametrize(
    ("layer", "messages"),
    [
        (
            {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "sneaky"}},
            ("'sneaky' is a Lambda", "safe mode"),
        ),
        (
            {"module": "my_code", "class_name": "Mine", "registered_name": "my>Mine", "config": {"name": "own"}},
            ("of the class 'Mine' from the package 'my'", "kcost --classes MODULE"),
        ),
    ],
)
def test_a_keras_file_with_code_in_it(tmp_path: Path, layer: dict[str, object], messages: tuple[str, ...]) -> None:
    path = tmp_path / "code.keras"
    with zipfile.ZipFile(path, "w") as archive:
        config = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("model.weights.h5", b"0")
    finished = kcost("evaluate", path, "--data", "digits")
    check(finished, 2, *messages)


def test_a_plan_with_an_unknown_key_or_an_empty_axis(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('models = ["a.keras"]\nbatches = []\ncolour = "blue"\n')
    finished = kcost("bench", plan, "--out", tmp_path / "run")
    check(finished, 2, "colour: Extra inputs are not permitted", "batches: Tuple should have at least 1 item")


def test_a_plan_and_axes_together(tmp_path: Path) -> None:
    finished = kcost("bench", tmp_path / "plan.toml", "--batches", "4", "--out", tmp_path / "run")
    check(finished, 2, "A plan file names its own axes.", "batches")


def test_a_price_row_without_a_source(tmp_path: Path) -> None:
    book = tmp_path / "prices.csv"
    header = "provider,instance,region,vcpus,memory_gib,accelerator,accelerator_count,on_demand_usd_per_hour,"
    book.write_text(header + "spot_usd_per_hour,source,as_of\naws,c7i.large,us-east-1,2,4,,0,0.09,,,2026-01-01\n")
    finished = kcost("prices", "check", book)
    assert finished.returncode == 2
    assert "source" in finished.stdout
    assert "Traceback" not in finished.stderr


def test_a_run_folder_of_a_newer_schema(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"schema": 99}))
    for command in ("cost", "report"):
        check(kcost(command, tmp_path), 2, "schema 99", "pip install --upgrade kcost")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    check(kcost("cost", tmp_path), 2, "run.json")


def test_a_read_only_folder(tmp_path: Path, model: Path) -> None:
    """/proc can be written to by nobody, root included."""
    finished = kcost("bench", model, "--backends", "fake", "--out", "/proc/kcost-run")
    check(finished, 2, "kcost needs to write to", "/proc/kcost-run")


def test_an_unknown_data_set(tmp_path: Path) -> None:
    finished = kcost("train", "cnn", "--data", "nothing-of-the-kind", "--out", tmp_path / "a")
    check(finished, 2, "digits", "nothing-of-the-kind")


def test_an_option_outside_its_range(tmp_path: Path) -> None:
    finished = kcost("train", "cnn", "--data", "digits", "--epochs", "0", "--out", tmp_path / "a")
    check(finished, 2, "epochs: Input should be greater than or equal to 1")


@pytest.mark.parametrize(
    ("family", "options", "messages"),
    [
        ("cnn", ("--seed", "-1"), ("seed: Input should be greater than or equal to 0",)),
        ("cnn", ("--seed", str(2**32)), ("seed: Input should be less than 4294967296",)),
        ("cnn", ("--max-length", "16"), ("A cnn reads no text.", "Leave --max-length out.")),
        ("bert", ("--init", ".", "--vocabulary-size", "500"), ("has its own vocabulary", "--vocabulary-size")),
        ("cnn", ("--freeze", "half"), ("freeze: Input should be 'none', 'embeddings' or 'backbone'",)),
        ("cnn", ("--learning-rate", "-1"), ("learning_rate: Input should be greater than 0",)),
        ("cnn", ("--limit", "some"), ("--limit", "valid integer")),
    ],
)
def test_a_bad_option_of_training(
    tmp_path: Path, family: str, options: tuple[str, ...], messages: tuple[str, ...]
) -> None:
    """Found out before a worker is started."""
    check(kcost("train", family, "--data", "digits", "--out", tmp_path / "a", *options), 2, *messages)


@pytest.mark.parametrize(
    ("name", "content", "options", "messages"),
    [
        ("a.conll", "Ada B-PER\nLovelace\n", (), ("a.conll, line 2: 'Lovelace'", "Add the tag")),
        ("a.conll", "Ada B-PER\nsat O\nRome I-LOC\n", ("--no-repair",), ("a.conll, line 3: I-LOC", "--no-repair")),
        ("a.jsonl", '{"text": "Ada", "spans": []}\n{"text": "Ada"\n', (), ("a.jsonl, line 2, column 15",)),
        ("a.csv", "text,label\nwell, this,c\n", (), ("a.csv, line 2: 3 columns", "Quote texts")),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: str, options: tuple[str, ...], messages: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(content)
    finished = kcost("train", "bert", "--data", tmp_path / name, *options, "--out", tmp_path / "out")
    check(finished, 2, *messages)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_folder_that_is_not_there(tmp_path: Path) -> None:
    finished = kcost("train", "bert", "--data", "ner-mini", "--init", tmp_path / "nowhere", "--out", tmp_path / "a")
    check(finished, 2, "nowhere, which is no folder", "config.json")


def test_an_unknown_family_and_size(tmp_path: Path) -> None:
    check(kcost("train", "rnn", "--data", "digits", "--out", tmp_path / "a"), 2, "Input should be 'cnn' or 'bert'")
    finished = kcost("train", "cnn", "--data", "digits", "--size", "huge", "--out", tmp_path / "a")
    check(finished, 2, "huge", "seed, small")


def test_wrong_usage() -> None:
    finished = kcost("train", "cnn")
    assert finished.returncode == 2
    assert "--data" in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.keras", "--qps", 200, "--p99-ms", 50), "nowhere.keras, which is not there"),
        (("{model}", "--p99-ms", 50, "--backends", "fake"), "Traffic is one of"),
        (("{model}", "--qps", 200), "--p99-ms 50"),
        (("--watch", "nowhere"), "verdict.json"),
    ],
)
def test_a_recommendation_that_cannot_be_made(
    tmp_path: Path, model: Path, arguments: tuple[object, ...], message: str
) -> None:
    given = [str(a).format(model=model) for a in arguments]
    finished = kcost("recommend", *given, *(() if "--watch" in given else ("--out", tmp_path / "out")))
    assert finished.returncode == 2, finished.stderr
    assert message in " ".join(finished.stderr.replace("\u2502", " ").split())
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""

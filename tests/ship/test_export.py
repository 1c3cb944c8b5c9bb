"""Exporting models made by each backend, and everything that must stop an export."""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost.core import process, schema
from kcost.core.artifact import Model, open_model, sha256_of
from kcost.core.conversion import (
    ConversionCheck,
    ConversionCheckAnswer,
    ConversionCheckRequest,
    ConvertAnswer,
    ConvertedTensor,
    ConvertRequest,
)
from kcost.core.errors import ArtifactError, GateError, InputError, StorageError, UnavailableError
from kcost.core.jobs import CHECK_CONVERSION, CONVERT, Job
from kcost.core.plan import BACKENDS
from kcost.runtimes.saved_model import SavedModelSession
from kcost.ship import convert as convert_module, export as export_module
from kcost.ship.export import export
from kcost.ship.export_report import ExportReport
from kcost.ship.server_files import SERVING_VERSION, listed
from tests.ship.artifacts import artifact_of
from tests.ship.conftest import Exported, RunJob

KINDS = [(backend, kind) for backend in BACKENDS for kind in ("cnn", "bert")]


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_of(p) for p in folder.rglob("*") if p.is_file()}


def artifact_folder(folder: Path, keras_file: Path, arrays: dict[str, np.ndarray]) -> Model:
    artifact_of(folder, keras_file, "with-samples", task="token-classification", family="bert")
    np.savez(folder / "samples.npz", **arrays)
    return open_model(folder)


@pytest.mark.parametrize(("backend", "kind"), KINDS)
def test_it_gives_the_outputs_of_the_backend_that_made_the_model(
    exported: dict[tuple[str, str], Exported], backend: str, kind: str
) -> None:
    made = exported[backend, kind]
    with np.load(made.model.with_suffix(".npz")) as stored, SavedModelSession(made.version) as session:
        outputs = session.run({name: stored[name] for name in session.signature.inputs})
        expected = stored["outputs"]
    assert list(outputs) == ["probabilities" if kind == "cnn" else "logits"]
    assert expected.std() > 0.01
    np.testing.assert_allclose(next(iter(outputs.values())), expected, atol=1e-4)


@pytest.mark.parametrize(("backend", "kind"), KINDS)
def test_the_report_says_what_was_checked(exported: dict[tuple[str, str], Exported], backend: str, kind: str) -> None:
    made = exported[backend, kind]
    report = made.report
    assert ExportReport.model_validate_json((made.version / "export.json").read_text()) == report
    assert report.model_sha256 == sha256_of(made.model)
    names = {"images"} if kind == "cnn" else {"token_ids", "segment_ids", "padding_mask"}
    assert {i.name for i in report.inputs} == names
    assert {i.shape for i in report.inputs} == ({(None, 12, 12, 1)} if kind == "cnn" else {(None, None)})
    assert [c.batch for c in report.checks] == [1, 3, 8]
    lengths = [c.free_axes for c in report.checks]
    assert lengths == [()] * 3 if kind == "cnn" else len(set(lengths)) == 3
    assert all(0 <= c.max_abs_difference <= 1e-4 for c in report.checks)
    assert {k: v for k, v in tree(made.version).items() if k != "export.json"} == report.files


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_folder_is_one_that_tensorflow_serving_serves(
    exported: dict[tuple[str, str], Exported], backend: str
) -> None:
    made = exported[backend, "cnn"]
    files = ["Dockerfile", "batching.config", "docker-compose.yaml", "kubernetes.yaml", "models.config"]
    assert sorted(p.name for p in made.out.iterdir()) == [
        *files,
        "monitoring",
        "monitoring.config",
        "my-bert",
        "my-cnn",
    ]
    assert [p.name for p in (made.out / "my-cnn").iterdir()] == ["3"]
    assert {"saved_model.pb", "variables", "export.json"} <= {p.name for p in made.version.iterdir()}
    assert listed((made.out / "models.config").read_text()) == {"my-bert", "my-cnn"}
    compose = (made.out / "docker-compose.yaml").read_text()
    assert f"image: tensorflow/serving:{SERVING_VERSION}\n" in compose
    assert re.search(r'"127\.0\.0\.1:8500:8500".*"127\.0\.0\.1:8501:8501"', compose, re.DOTALL)
    assert "--model_config_file=/models/models.config" in compose


@pytest.mark.parametrize(("backend", "kind"), KINDS)
def test_each_weight_is_stored_once(exported: dict[tuple[str, str], Exported], backend: str, kind: str) -> None:
    made = exported[backend, kind]
    size = (made.version / "variables" / "variables.data-00000-of-00001").stat().st_size
    bookkeeping = 8192  # names and structure of the checkpoint, in the same file
    assert made.report.weights_bytes <= size < made.report.weights_bytes + bookkeeping
    assert made.report.weights_bytes > bookkeeping


def test_several_inputs_and_outputs_get_names_that_tensorflow_allows(models: Path, tmp_path: Path) -> None:
    report = export(open_model(models / "tensorflow" / "several.keras"), tmp_path, "several", 1, log=tmp_path / "log")
    assert {(i.name, i.shape, i.dtype) for i in report.inputs} == {
        ("tensor_2_images", (None, 8, 8, 3), "float32"),
        ("counts_per_day", (None, None), "int64"),
        ("tensor_lambda", (None, 3), "float32"),
        ("tensor_self", (None, 3), "float32"),
    }
    assert {o.name for o in report.outputs} == {"images", "sum"}


def test_a_bfloat16_model_and_free_image_axes(models: Path, tmp_path: Path, warm: RunJob) -> None:
    report = export(open_model(models / "tensorflow" / "bfloat16.keras"), tmp_path, "low", 1)
    assert [(o.name, o.dtype) for o in report.outputs] == [("low", "bfloat16")]
    report = export(open_model(models / "tensorflow" / "wide.keras"), tmp_path, "wide", 1)
    assert [c.free_axes for c in report.checks] == [(64,), (32,), (128,)]  # a quarter is too small for a filter of 20
    assert listed((tmp_path / "models.config").read_text()) == {"low", "wide"}


def test_convolutions_with_groups_run_without_xla(models: Path, tmp_path: Path, warm: RunJob) -> None:
    report = export(open_model(models / "tensorflow" / "grouped.keras"), tmp_path, "grouped", 1)
    with SavedModelSession(tmp_path / "grouped" / "1") as session:
        assert session.xla_operations == ()
    assert all(check.max_abs_difference < 1e-5 for check in report.checks)


def test_real_samples_are_used_where_there_are_some(models: Path, tmp_path: Path, warm: RunJob) -> None:
    with np.load(models / "jax" / "bert.npz") as stored:
        arrays = {name: stored[name] for name in ("token_ids", "segment_ids", "padding_mask")}
    model = artifact_folder(tmp_path / "a", models / "jax" / "bert.keras", {**arrays, "labels": np.zeros((5, 12))})
    report = export(model, tmp_path / "out", "tagger", 1)
    assert [(c.batch, c.free_axes, c.source) for c in report.checks] == [
        (1, (12,), "samples"),
        (3, (6,), "samples"),
        (8, (3,), "samples"),
    ]
    assert report.model == "with-samples"


def test_samples_that_do_not_fit_are_refused(models: Path, tmp_path: Path, warm: RunJob) -> None:
    model = artifact_folder(tmp_path / "a", models / "jax" / "bert.keras", {"token_ids": np.zeros((2, 4), np.int32)})
    with pytest.raises(InputError, match=r"without padding_mask .*segment_ids "):
        export(model, tmp_path / "out", "tagger", 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["shifted", "nan", "longer"])
def test_other_outputs_stop_the_export_and_leave_nothing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: RunJob, fault: str
) -> None:
    def tampering(job: Job[Any, Any], *arguments: object, **options: object) -> object:
        answer = warm(job, *arguments, **options)
        if job is CONVERT:
            probe = answer.probes[1].file
            with np.load(probe) as stored:
                arrays = dict(stored)
            outputs = arrays["output/probabilities"]
            arrays["output/probabilities"] = {
                "shifted": outputs + np.float32(2e-4),
                "nan": np.where(outputs == outputs.max(), np.nan, outputs),
                "longer": np.concatenate([outputs, outputs]),
            }[fault]
            np.savez(probe, **arrays)
        return answer

    monkeypatch.setattr(convert_module, "run_job", tampering)
    (tmp_path / "out").mkdir()
    with pytest.raises(GateError, match=r"probabilities.* batch of 3"):
        export(open_model(models / "torch" / "cnn.keras"), tmp_path / "out", "digits", 1)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_graph_that_needs_xla_is_refused(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = models / "tensorflow" / "xla"
    specs = (ConvertedTensor(name="x", model_name="x", shape=(None,), dtype="int32"),)
    request = ConversionCheckRequest(
        path=folder, runtime="saved_model", precision="float32", inputs=specs, outputs=specs, probes=()
    )
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_auto_jit=2")
    with pytest.raises(GateError, match="jit_compile=True"):
        process.run_job(CHECK_CONVERSION, "fake", request, log=tmp_path / "log")
    request = request.model_copy(update={"path": models / "tensorflow" / "plain"})
    with pytest.raises(GateError, match="has the inputs of the model"):
        process.run_job(CHECK_CONVERSION, "fake", request, log=tmp_path / "log")


def test_a_version_is_never_overwritten(exported: dict[tuple[str, str], Exported]) -> None:
    made = exported["jax", "cnn"]
    before = tree(made.out)
    with pytest.raises(StorageError, match="Export it as version 4"):
        export(open_model(made.model), made.out, "my-cnn", 3)
    assert tree(made.out) == before


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "é", "a\n"])
def test_a_name_is_letters_digits_and_two_signs(models: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="name of a served model"):
        export(open_model(models / "jax" / "cnn.keras"), tmp_path / "out", name, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("version", [0, -1, 1 << 63, True, 1.0, "1"])
def test_a_version_is_a_positive_integer(models: Path, tmp_path: Path, version: int) -> None:
    with pytest.raises(InputError, match="positive integer"):
        export(open_model(models / "jax" / "cnn.keras"), tmp_path / "out", "digits", version)


def test_a_folder_below_a_file_is_refused(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        export(open_model(models / "jax" / "cnn.keras"), tmp_path / "file" / "out", "digits", 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(models: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    with pytest.raises(StorageError, match="may not write there"):
        export(open_model(models / "jax" / "cnn.keras"), tmp_path / "out", "digits", 1)


def without_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions that write an empty file, and checks that find nothing wrong."""
    written = ConvertAnswer(
        inputs=(),
        outputs=(),
        parameters=0,
        weights_bytes=0,
        real_samples=False,
        seconds=0.0,
        versions={"keras": "3.15", "tensorflow": "2.21"},
        probes=(),
    )
    check = ConversionCheck(batch=1, free_axes=(), relative_error=0.0, max_abs_difference=0.0)
    checked = ConversionCheckAnswer(checks=(check,), runtime_version="2.21", notes=())
    answers = {CONVERT: written, CHECK_CONVERSION: checked}

    def run_job(job: Job[Any, Any], backend: str, request: Any, **_: object) -> object:
        if job is CONVERT:
            (request.path / "saved_model.pb" if request.runtime == "saved_model" else request.path).write_bytes(b"")
        return answers[job]

    monkeypatch.setattr(convert_module, "run_job", run_job)


def test_an_export_tells_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_jobs(monkeypatch)
    (tmp_path / "m.keras").write_bytes(b"a model")
    told_steps: list[tuple[int, int, str]] = []
    export(
        *(open_model(tmp_path / "m.keras"), tmp_path / "out", "digits", 1),
        to={"onnx": "int8"},
        on_progress=lambda *progress: told_steps.append(progress),
    )
    assert told_steps == [
        (0, 4, "converting m for saved_model in float32, step 1 of 4"),
        (1, 4, "checking m for saved_model in float32, step 2 of 4"),
        (2, 4, "converting m for onnx in int8, step 3 of 4"),
        (3, 4, "checking m for onnx in int8, step 4 of 4"),
        (4, 4, f"done: {tmp_path / 'out' / 'digits' / '1'}"),
    ]


def test_a_full_disk_is_named_and_leaves_nothing(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise StorageError("kcost needs to write.", "No space left on device")

    without_jobs(monkeypatch)
    monkeypatch.setattr(schema, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        export(open_model(models / "jax" / "cnn.keras"), tmp_path / "new" / "out", "digits", 1)
    assert not (tmp_path / "new").exists()


def test_models_that_cannot_be_exported(models: Path, tmp_path: Path, warm: RunJob) -> None:
    whole = (models / "tensorflow" / "cnn.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    for file, message in (
        (tmp_path / "cut.keras", "not a whole zip archive"),
        (models / "tensorflow" / "lambda.keras", "'doubled' is a Lambda"),
        (models / "tensorflow" / "fixed.keras", "fixed batch size of 2"),
        (models / "tensorflow" / "name.keras", "'größe' is not a valid scope name"),
    ):
        with pytest.raises(ArtifactError, match=message):
            export(open_model(file), tmp_path / "out", "digits", 1)
        assert not (tmp_path / "out").exists()


def test_what_a_killed_export_left_is_removed_and_its_model_listed_later(
    exported: dict[tuple[str, str], Exported], tmp_path: Path, warm: RunJob
) -> None:
    made = exported["torch", "cnn"]
    out = tmp_path / "out"
    shutil.copytree(made.version, out / "killed-late" / "1")  # published, but models.config was not written
    (out / "digits" / ".1.abcdefgh").mkdir(parents=True)
    (out / "digits" / ".1.abcdefgh" / "saved_model.pb").write_bytes(b"half")
    export(open_model(made.model), out, "digits", 1)
    assert [p.name for p in (out / "digits").iterdir()] == ["1"]
    assert listed((out / "models.config").read_text()) == {"killed-late", "digits"}


def test_an_interrupted_export_leaves_nothing(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(job: Job[Any, Any], backend: str, request: ConvertRequest, **_: object) -> object:
        (request.path / "saved_model.pb").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(convert_module, "run_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(open_model(models / "jax" / "cnn.keras"), tmp_path / "out", "digits", 1)
    assert not (tmp_path / "out").exists()


def test_without_tensorflow(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "installed", lambda backend: backend != "tensorflow")
    with pytest.raises(UnavailableError, match=re.escape("pip install 'kcost[tensorflow]'")) as raised:
        export(open_model(models / "jax" / "cnn.keras"), tmp_path / "out", "digits", 1)
    assert raised.value.exit_code == 3


def test_a_server_older_than_the_exporter_is_warned_of() -> None:
    assert export_module._warnings(SERVING_VERSION) == ()
    assert export_module._warnings("2.9.1") == ()
    assert "2.99.0" in export_module._warnings("2.99.0")[0]


def test_the_report_is_readable_json(exported: dict[tuple[str, str], Exported]) -> None:
    document = json.loads((exported["jax", "bert"].version / "export.json").read_text())
    assert document["schema"] == 1
    assert document["serving_image"] == f"tensorflow/serving:{SERVING_VERSION}"


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StorageError, match="such as a local disk"), export_module._locked(tmp_path / "out", "m"):
        pass
    assert not (tmp_path / "out").exists()

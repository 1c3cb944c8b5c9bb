"""Exporting quantized models with encoder blocks.

`python -m tests.ship.test_export_optimized FOLDER` makes the models, in a process that has TensorFlow.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost.core.artifact import open_model
from kcost.core.errors import GateError, UnavailableError
from kcost.core.jobs import CONVERT, Job
from kcost.core.process import installed, run_job, worker_environment
from kcost.runtimes import saved_model
from kcost.runtimes.saved_model import SavedModelSession
from kcost.ship import convert as convert_module
from kcost.ship.export import export
from kcost.ship.export_report import ExportReport
from tests.ship.artifacts import tagger_of
from tests.ship.conftest import RunJob

MODES = ("float32", "bfloat16", "dynamic", "static")
RANDOM_LENGTH, VOCABULARY = 12, 40


def make(folder: Path) -> None:
    """The models, inputs and the outputs that Keras gives for them."""
    from kcost.worker.isolate import OTHERS, hide

    hide(OTHERS["tensorflow"])
    import keras
    import keras_nlp

    from kcost.optimize.quantization import quantize

    random = np.random.default_rng(0)
    shape = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "intermediate_dim": 64, "max_sequence_length": 32}
    encoder = keras_nlp.models.BertBackbone(vocabulary_size=VOCABULARY, **shape)
    logits = keras.layers.Dense(5, name="logits")(encoder.output["sequence_output"])
    model = keras.Model(encoder.input, logits)
    for weight in model.weights:
        weight.assign(weight + random.normal(0, 0.1, weight.shape))
    ids = random.integers(0, VOCABULARY, (6, RANDOM_LENGTH)).astype(np.int32)
    mask = (np.arange(RANDOM_LENGTH) < random.integers(4, RANDOM_LENGTH + 1, (6, 1))).astype(np.int32)
    inputs = {"token_ids": ids * mask, "segment_ids": np.zeros_like(ids), "padding_mask": mask}
    for mode in MODES:
        made = model
        if mode != "float32":
            made, _ = quantize(model, mode, calibration=inputs if mode == "static" else None)  # type: ignore[arg-type]
        made.save(folder / f"{mode}.keras")
        outputs = keras.ops.convert_to_numpy(made(inputs, training=False))
        block_bytes = sum(
            int(np.prod(weight.shape)) * (1 if weight.dtype == "int8" else 4)
            for layer in made.layers
            for weight in layer.weights
            if type(layer).__name__ == "EncoderBlock"
        )
        np.savez(folder / f"{mode}.npz", outputs=outputs, block_bytes=block_bytes, **inputs)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def optimized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not installed("tensorflow"):
        pytest.skip("tensorflow is not installed; install kcost[tensorflow]")
    folder = tmp_path_factory.mktemp("optimized")
    done = subprocess.run(
        [sys.executable, "-m", "tests.ship.test_export_optimized", str(folder)],
        env=worker_environment("tensorflow", 1, str(tmp_path_factory.mktemp("keras"))),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def reports(
    optimized: Path, warm_jobs: RunJob, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, bool], tuple[ExportReport, Path]]:
    """The exports, by mode and whether they are portable, with their folders."""
    out = tmp_path_factory.mktemp("exports")
    exports = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_module, "run_job", warm_jobs)
        for mode in MODES:
            for portable in (False, True):
                name = f"{mode}-{portable}"
                report = export(open_model(optimized / f"{mode}.keras"), out, name, 1, portable=portable)
                exports[mode, portable] = report, out / name / "1"
    return exports


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_it_answers_as_keras_does(
    optimized: Path, reports: dict[tuple[str, bool], tuple[ExportReport, Path]], mode: str, portable: bool
) -> None:
    _, folder = reports[mode, portable]
    with np.load(optimized / f"{mode}.npz") as stored, SavedModelSession(folder) as session:
        logits = session.run({name: stored[name] for name in session.signature.inputs})["logits"]
        expected = stored["outputs"]
    error = np.sqrt(np.mean((logits - expected) ** 2)) / expected.std()
    # A few roundings to int8 fall the other way; each moves an activation by 1/127 of its range.
    assert error < {"float32": 1e-5, "bfloat16": 1e-2}.get(mode, 5e-2)


@pytest.mark.parametrize("mode", MODES)
def test_only_an_export_that_is_not_portable_has_internal_operations(
    reports: dict[tuple[str, bool], tuple[ExportReport, Path]], mode: str
) -> None:
    report = reports[mode, False][0]
    portable = reports[mode, True][0]
    assert portable.internal_operations == ()
    assert not [w for w in portable.warnings if "refuses to load" in w or "VNNI" in w]
    if any("plain, slower form" in w for w in report.warnings):
        pytest.skip(report.warnings[-1])
    fused = ("_MklFusedBatchMatMulV2", "_MklLayerNorm")
    expected = {"float32": (), "bfloat16": fused}.get(mode, (*fused, "_QuantizedMatMul"))
    assert report.internal_operations == expected
    assert len([w for w in report.warnings if "refuses to load" in w]) == (mode != "float32")
    assert len([w for w in report.warnings if "VNNI" in w and "_QuantizedMatMul" in w]) == (
        mode in ("dynamic", "static")
    )


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_rows_may_lie_end_to_end_where_its_encoder_layers_are_blocks(
    optimized: Path, reports: dict[tuple[str, bool], tuple[ExportReport, Path]], mode: str, portable: bool
) -> None:
    report, folder = reports[mode, portable]
    names = [s.signature for s in report.signatures]
    if any("plain, slower form" in w for w in report.warnings) or mode == "float32":
        assert names == [], "Keras's own encoder layers, or blocks in their plain form"
        return
    assert names == ["serving_packed"]
    with np.load(optimized / f"{mode}.npz") as stored, SavedModelSession(folder, signature=None) as session:
        for name in ("serving_default", "serving_packed"):
            session.bind(name)
        rows = {name: stored[name] for name in ("token_ids", "segment_ids", "padding_mask")}
        expected = session.run_signature("serving_default", rows)["logits"]
        count = len(expected)
        lengths = {"row_lengths": np.full(count, RANDOM_LENGTH, np.int32)}
        flat = {name: array.reshape(-1) for name, array in rows.items()}
        logits = session.run_signature("serving_packed", flat | lengths)["logits"]
    error = np.sqrt(np.mean((logits.reshape(expected.shape) - expected) ** 2)) / expected.std()
    assert error < {"bfloat16": 1e-2}.get(mode, 5e-2)


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_a_machine_without_int8_instructions_refuses_what_was_exported_on_one_that_has_them(
    reports: dict[tuple[str, bool], tuple[ExportReport, Path]], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers would be wrong. What is portable runs anywhere."""
    report, folder = reports[mode, False]
    if any("plain, slower form" in w for w in report.warnings):
        pytest.skip(report.warnings[-1])
    monkeypatch.setattr(saved_model, "no_int8_cpu", lambda: "the CPU has neither VNNI nor AMX")
    with pytest.raises(
        UnavailableError, match=r"cut off at 16 bits(.|\n)*_QuantizedMatMul; the CPU has(.|\n)*--portable"
    ):
        SavedModelSession(folder)
    SavedModelSession(reports[mode, True][1]).close()
    monkeypatch.setattr(saved_model.platform, "machine", lambda: "aarch64")
    SavedModelSession(folder).close()


@pytest.mark.parametrize("mode", [m for m in MODES if m != "float32"])
def test_weights_of_blocks_are_constants_and_stored_once(
    optimized: Path, reports: dict[tuple[str, bool], tuple[ExportReport, Path]], mode: str
) -> None:
    report, folder = reports[mode, False]
    if any("plain, slower form" in w for w in report.warnings):
        pytest.skip(report.warnings[-1])
    with np.load(optimized / f"{mode}.npz") as stored:
        block_bytes = int(stored["block_bytes"])
    bookkeeping = 8192
    size = (folder / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert block_bytes > bookkeeping
    assert size < report.weights_bytes - block_bytes / 2 + bookkeeping  # bfloat16 is counted as float32 here
    assert size < report.weights_bytes / 2


def test_a_signature_of_texts_holds_no_block_of_its_own(
    optimized: Path, reports: dict[tuple[str, bool], tuple[ExportReport, Path]], tmp_path: Path, warm: RunJob
) -> None:
    """It calls the function of `serving_default`, whose graph holds the weights of the blocks."""
    plain, folder = reports["dynamic", False]
    tagger = tagger_of(tmp_path / "tagger", optimized / "dynamic.keras")
    report = export(tagger, tmp_path / "out", "tagger", 1)
    packed = ["serving_packed"] if "serving_packed" in {s.signature for s in plain.signatures} else []
    assert [s.signature for s in report.signatures] == ["serving_text", *packed]
    operation = (plain.internal_operations or ("BatchMatMulV2",))[-1].encode()
    graphs = [(f / "saved_model.pb").read_bytes() for f in (folder, tmp_path / "out" / "tagger" / "1")]
    counts = [graph.count(operation) for graph in graphs]
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("fault", ["another scale", "another place", "nan"])
def test_outputs_of_another_model_stop_the_export(
    optimized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: RunJob, fault: str
) -> None:
    def tampering(job: Job[Any, Any], *arguments: object, **options: object) -> object:
        answer = warm(job, *arguments, **options)
        if job is CONVERT:
            probe = answer.probes[1].file
            with np.load(probe) as stored:
                arrays = dict(stored)
            outputs = arrays["output/logits"]
            arrays["output/logits"] = {
                "another scale": outputs * np.float32(1.3),
                "another place": np.roll(outputs, 1, axis=1),
                "nan": np.where(outputs == outputs.max(), np.nan, outputs),
            }[fault]
            np.savez(probe, **arrays)
        return answer

    monkeypatch.setattr(convert_module, "run_job", tampering)
    with pytest.raises(GateError, match=r"logits.* batch of 3"):
        export(open_model(optimized / "static.keras"), tmp_path / "out", "tagger", 1)
    assert not (tmp_path / "out").exists()


def test_a_machine_without_onednn_writes_plain_blocks_and_says_so(
    optimized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    shutil.copy(optimized / "dynamic.keras", tmp_path)
    monkeypatch.setattr(convert_module, "run_job", run_job)
    report = export(open_model(tmp_path / "dynamic.keras"), tmp_path / "out", "tagger", 1, log=tmp_path / "log")
    assert report.internal_operations == ()
    assert any("2 fused layers are in their plain" in w and "TF_ENABLE_ONEDNN_OPTS" in w for w in report.warnings)


if __name__ == "__main__":
    make(Path(sys.argv[1]))

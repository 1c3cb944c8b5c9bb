"""Converted models in their runtimes, against what Keras said of the same inputs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost.core.artifact import open_model
from kcost.core.conversion import (
    CONVERTED_IN,
    PRECISIONS,
    RUNTIMES,
    TOLERANCES,
    Conversion,
    ConversionCheckRequest,
    ConversionProbe,
    Runtime,
    RuntimePrecision,
    read_conversion,
    require_precision,
)
from kcost.core.errors import ArtifactError, GateError, InputError, StorageError, UnavailableError
from kcost.core.jobs import MEASURE, Job
from kcost.core.measuring import (
    PrepareAnswer,
    PrepareRequest,
    ProfileAnswer,
    ProfileRequest,
    RoundAnswer,
    RoundRequest,
    StartAnswer,
    StartRequest,
)
from kcost.core.plan import Backend, CellSpec, Settings
from kcost.core.process import Worker
from kcost.core.profile import Profile, top
from kcost.core.request import MeasureRequest
from kcost.core.schema import Record
from kcost.runtimes.base import LoadedFile, open_file, runtime_version
from kcost.serving.batching import has_rows
from kcost.serving.version_files import SUFFIXES, version_files
from kcost.ship import convert as convert_module
from kcost.ship.convert import converted
from kcost.ship.export import export
from kcost.worker.convert import check as check_conversion
from kcost.worker.serve import ONE_SCALE, PLATFORMS, ServedConversion
from tests.serving.conftest import RunningServer
from tests.ship.conftest import RunJob

CASES: list[tuple[str, Runtime, RuntimePrecision]] = [
    *(("cnn", runtime, "float32") for runtime in RUNTIMES),
    *(("bert", runtime, "float32") for runtime in RUNTIMES),
    ("cnn", "litert", "int8"),
    ("cnn", "onnx", "int8"),
    ("cnn", "openvino", "int8"),
    ("bert", "saved_model", "bfloat16"),
    ("bert", "litert", "int8_dynamic"),
    ("bert", "onnx", "int8_dynamic"),
    ("bert", "openvino", "bfloat16"),
]
Converter = Callable[[str, Runtime, RuntimePrecision], Path]


@pytest.fixture(scope="module")
def convert_once(models: Path, warm_jobs: RunJob, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Converter]:
    """The folder of a conversion, made once."""
    missing = [package for package in ("ai_edge_litert", "onnxruntime", "openvino") if find_spec(package) is None]
    if missing:
        pytest.skip(f"these packages are not installed: {missing}; install kcost[litert,onnx,openvino]")
    cache = tmp_path_factory.mktemp("converted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_module, "run_job", warm_jobs)
        yield lambda kind, runtime, precision: converted(
            open_model(models / "tensorflow" / f"{kind}.keras"), runtime, precision, cache
        )


def opened(folder: Path) -> tuple[Conversion, LoadedFile]:
    about = read_conversion(folder)
    return about, open_file(about.runtime, folder / about.file, threads=1, precision=about.precision)


def keras_answers(models: Path, kind: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    with np.load(models / "tensorflow" / f"{kind}.npz") as stored:
        arrays = dict(stored)
    return {name: a for name, a in arrays.items() if name != "outputs"}, arrays["outputs"]


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual.astype(np.float32) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("kind", "runtime", "precision"), CASES)
def test_a_converted_model_answers_as_keras_does(
    convert_once: Converter, models: Path, kind: str, runtime: Runtime, precision: RuntimePrecision
) -> None:
    try:
        about, loaded = opened(convert_once(kind, runtime, precision))
    except UnavailableError as error:
        if (runtime, precision) != ("openvino", "bfloat16"):  # which only some CPUs have
            raise
        pytest.skip(str(error))
    inputs, expected = keras_answers(models, kind)
    named = {tensor.name: inputs[tensor.model_name] for tensor in about.inputs}
    for rows in (len(expected), 3, 1):  # the whole, an odd batch, and one row
        outputs = loaded.run({name: array[:rows] for name, array in named.items()})
        assert [y.shape for y in outputs] == [expected[:rows].shape]
        error = relative_error(outputs[0], expected[:rows])
        assert error <= TOLERANCES[precision]
        # What claims to be of low precision is: float32 comes closer by orders of magnitude.
        assert (error > 1e-4) == (precision != "float32")
    assert 0 <= about.relative_error <= TOLERANCES[precision]
    assert about.file_bytes > 0
    assert not about.real_samples
    loaded.close()
    loaded.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_free_lengths_stay_free(convert_once: Converter, models: Path, runtime: Runtime) -> None:
    about, loaded = opened(convert_once("bert", runtime, "float32"))
    inputs, expected = keras_answers(models, "bert")
    # A row without padding, followed by padding, says the same of its own tokens.
    row = int(inputs["padding_mask"].sum(1).argmin())
    length = int(inputs["padding_mask"][row].sum())
    cut = {t.name: inputs[t.model_name][row : row + 1, :length] for t in about.inputs}
    assert relative_error(loaded.run(cut)[0], expected[row : row + 1, :length]) < 1e-4


def test_a_transformer_in_int8(convert_once: Converter) -> None:
    """On inputs like those that gave the scales; these were made up, unlike the test's own, which are padded."""
    about, loaded = opened(convert_once("bert", "openvino", "int8"))
    assert 1e-4 < about.relative_error <= TOLERANCES["int8"]
    with np.load(convert_once("bert", "openvino", "int8") / "samples.npz") as stored:
        shape = stored["token_ids"][:3].shape
        outputs = loaded.run({t.name: stored[t.model_name][:3] for t in about.inputs})
    assert outputs[0].shape == (*shape, 5)


def test_int8_files_are_smaller(convert_once: Converter) -> None:
    for runtime in ("litert", "onnx", "openvino"):
        sizes = [
            read_conversion(convert_once("cnn", runtime, precision)).file_bytes  # type: ignore[arg-type]
            for precision in ("float32", "int8")
        ]
        assert sizes[1] < sizes[0]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_inputs_that_do_not_fit(convert_once: Converter, runtime: Runtime) -> None:
    _, loaded = opened(convert_once("cnn", runtime, "float32"))
    with pytest.raises(InputError, match="has the shape"):
        loaded.run({"images": np.zeros((2, 5, 5, 1), np.float32)})
    with pytest.raises(InputError, match="takes the inputs images"):
        loaded.run({"pictures": np.zeros((2, 12, 12, 1), np.float32)})
    with pytest.raises(InputError, match="is of dtype float32"):
        loaded.run({"images": np.zeros((2, 12, 12, 1), np.complex64)})


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_file(convert_once: Converter, tmp_path: Path, runtime: Runtime, damage: str) -> None:
    folder = convert_once("cnn", runtime, "float32")
    name = read_conversion(folder).file
    source = folder / name
    if source.is_dir():
        (tmp_path / name).mkdir()
        source, target = source / "saved_model.pb", tmp_path / name / "saved_model.pb"
    else:
        target = tmp_path / name
    content = source.read_bytes()
    target.write_bytes(content[: len(content) // 2] if damage == "cut" else b"no model of any kind")
    with pytest.raises(ArtifactError, match=str(tmp_path / name)):
        open_file(runtime, tmp_path / name, threads=1, precision="float32")
    with pytest.raises(ArtifactError, match="not there"):
        open_file(runtime, tmp_path / "nothing", threads=1, precision="float32")


@pytest.mark.parametrize(
    ("runtime", "package"), [("litert", "ai_edge_litert"), ("onnx", "onnxruntime"), ("openvino", "openvino")]
)
def test_a_missing_runtime_names_its_extra(monkeypatch: pytest.MonkeyPatch, runtime: Runtime, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=rf"kcost\[{runtime}\]"):
        runtime_version(runtime)


def test_precisions_that_a_runtime_lacks() -> None:
    for runtime in RUNTIMES:
        for precision in TOLERANCES:
            if precision in PRECISIONS[runtime]:
                require_precision(runtime, precision)
            else:
                with pytest.raises(UnavailableError, match=f"{precision}: .+"):
                    require_precision(runtime, precision)


def test_nothing_is_overwritten_and_nothing_half_is_left(convert_once: Converter, models: Path, tmp_path: Path) -> None:
    model = open_model(models / "tensorflow" / "cnn.keras")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="already"):
        convert_module.convert(model, "onnx", "float32", tmp_path)
    refused = open_model(models / "tensorflow" / "fixed.keras")
    with pytest.raises(ArtifactError, match="fixed batch size"):
        convert_module.convert(refused, "onnx", "float32", tmp_path / "fixed")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_conversion_that_says_something_else_is_refused(
    convert_once: Converter, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = convert_module.run_job

    def dishonest(job: Job[Any, Any], backend: Backend, request: Record, **options: Any) -> Any:
        if isinstance(request, ConversionCheckRequest):
            for probe in request.probes:
                with np.load(probe.file) as stored:
                    arrays = dict(stored)
                name = f"output/{request.outputs[0].name}"
                arrays[name] = arrays[name][..., ::-1]
                np.savez(probe.file, allow_pickle=False, **arrays)
        return honest(job, backend, request, **options)

    monkeypatch.setattr(convert_module, "run_job", dishonest)
    with pytest.raises(GateError, match="the largest difference is"):
        convert_module.convert(open_model(models / "tensorflow" / "cnn.keras"), "onnx", "float32", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("change", "off", "kept"), [(None, 0.003, False), (0.002, 0.003, True), (0.002, 0.1, False)])
def test_a_model_that_rounds_may_be_off_by_what_its_rounding_makes(
    convert_once: Converter, tmp_path: Path, change: float | None, off: float, kept: bool
) -> None:
    """`change` and `off` are parts of the output's root mean square."""
    folder = convert_once("cnn", "onnx", "float32")
    loaded = open_file("onnx", folder / "model.onnx", threads=1, precision="float32")
    inputs = {spec.name: np.ones((2, *spec.shape[1:]), np.float32) for spec in loaded.inputs}
    (output,) = loaded.run(inputs)
    (name,) = loaded.outputs
    arrays = {**{f"input/{k}": v for k, v in inputs.items()}, f"output/{name}": output * (1 + off)}
    if change is not None:
        arrays[f"change/{name}"] = np.float64(change * np.sqrt(np.mean(np.square(output))))
    np.savez(tmp_path / "probe.npz", **arrays)
    about = read_conversion(folder)
    request = ConversionCheckRequest(
        path=folder / "model.onnx",
        runtime="onnx",
        precision="float32",
        inputs=about.inputs,
        outputs=about.outputs,
        probes=(ConversionProbe(file=tmp_path / "probe.npz", batch=2, free_axes=(), source="random"),),
    )
    if kept:
        assert check_conversion.run(request).checks[0].relative_error == pytest.approx(off, rel=0.02)
    else:
        with pytest.raises(GateError, match="gives the outputs of the model"):
            check_conversion.run(request)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("shape", (None, 28, 28, 3), r"float32 \(any, 28, 28, 3\)"), ("dtype", "int32", "expected .* int32")],
)
def test_a_file_with_other_inputs_is_refused(convert_once: Converter, field: str, value: object, reason: str) -> None:
    about = read_conversion(folder := convert_once("cnn", "litert", "float32"))
    request = ConversionCheckRequest(
        path=folder / about.file,
        runtime="litert",
        precision="float32",
        inputs=tuple(i.model_copy(update={field: value}) for i in about.inputs),
        outputs=about.outputs,
        probes=(),
    )
    with pytest.raises(GateError, match=reason):
        check_conversion.run(request)


def test_a_folder_without_a_conversion(tmp_path: Path, convert_once: Converter) -> None:
    with pytest.raises(ArtifactError, match=r"conversion\.json"):
        read_conversion(tmp_path)
    index = convert_once("cnn", "onnx", "float32") / "conversion.json"
    (tmp_path / "conversion.json").write_bytes(index.read_bytes())
    with pytest.raises(ArtifactError, match=r"without model\.onnx"):
        read_conversion(tmp_path)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_measuring_loop_runs_a_runtime(convert_once: Converter, tmp_path: Path, runtime: Runtime) -> None:
    """The worker of Keras backends, with a runtime in their place, prepares a cell and gives it a turn."""
    folder = convert_once("cnn", runtime, "float32")
    spec = CellSpec(
        model="cnn",
        model_sha256="0" * 64,
        backend=CONVERTED_IN[runtime],
        device="cpu",
        precision="float32",
        batch=4,
        phase="inference",
        method=runtime,
        threads=1,
    )
    request = MeasureRequest(
        spec=spec,
        settings=Settings(rounds=1, round_s=0.01, warmup_s=0.01, warmup_max_s=0.02),
        keras_file=folder,
        samples_file=folder / "samples.npz",
        outputs_file=tmp_path / "outputs.npz",
    )
    with (tmp_path / "log").open("wb") as log, Worker(MEASURE, "fake", threads=1, device="cpu", log=log) as worker:
        started = worker.ask(StartRequest(runtime=runtime))
        prepared = worker.ask(PrepareRequest(request=request))
        turn = worker.ask(RoundRequest(cell_id=spec.cell_id, round_s=0.01))
        profiled = worker.ask(ProfileRequest(cell_id=spec.cell_id))
    assert isinstance(started, StartAnswer)
    assert started.import_s > 0
    assert isinstance(prepared, PrepareAnswer)
    assert prepared.preparation.backend_version == runtime_version(runtime)
    assert isinstance(turn, RoundAnswer)
    assert turn.step_ns
    assert isinstance(profiled, ProfileAnswer)
    _check_profile(profiled.profile, runtime)
    with np.load(tmp_path / "outputs.npz") as stored:
        assert stored["outputs"].shape == (32, 10)


def _check_profile(profile: Profile, runtime: Runtime) -> None:
    """Two runtimes have a profiler that Python reaches; the others say that they have none."""
    assert profile.work is not None
    assert profile.work.flops is None
    assert runtime in profile.work.flops_source
    assert profile.peak is None
    if runtime not in ("onnx", "openvino"):
        assert profile.status == "unsupported"
        assert "profiler of the runtime" in str(profile.reason)
        return
    assert profile.trace is not None, profile.reason
    rows = top(profile.trace)
    assert any("Conv" in row.name or row.name in ("Gemm", "FullyConnected") for row in rows), rows
    assert sum(row.share for row in rows) <= 1 + 1e-9  # shares that add up to 1 are rounded each
    assert all(row.largest for row in rows)


@pytest.mark.parametrize(
    "runtime",
    [pytest.param("litert", marks=pytest.mark.slow), "onnx", pytest.param("openvino", marks=pytest.mark.slow)],
)
def test_a_converted_model_is_served_as_its_saved_model_is(
    convert_once: Converter, models: Path, runtime: Runtime, tmp_path: Path
) -> None:
    inputs, expected = keras_answers(models, "cnn")
    ((name, images),) = inputs.items()
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / runtime).symlink_to(convert_once("cnn", runtime, "float32"))
    (tmp_path / "m" / "2").mkdir()
    (tmp_path / "m" / "2" / f"model{SUFFIXES[runtime]}").write_bytes(b"a file that says nothing")
    (tmp_path / "models.config").write_text(
        'model_config_list { config { name: "m" base_path: "/models/m" model_version_policy { all { } } } }'
    )
    server = RunningServer(tmp_path, "--backend", runtime)
    try:
        answer = server.post("/v1/models/m:predict", {"instances": images.tolist()})
        assert answer.status == 200, answer.body
        assert np.allclose(np.array(answer.json["predictions"]), expected, atol=1e-4)
        for wrong in (images[0].tolist(), images.reshape(len(images), -1).tolist(), [["x"]]):
            assert server.post("/v1/models/m:predict", {"inputs": wrong}).status == 400
        signature = server.get("/v1/models/m/metadata").json["metadata"]["signature_def"]["signature_def"]
        taken = signature["serving_default"]["inputs"][name]
        assert (taken["dtype"], [d["size"] for d in taken["tensor_shape"]["dim"]]) == (
            "DT_FLOAT",
            ["-1", *map(str, images.shape[1:])],
        )
        assert server.get("/v2/models/m").json["platform"] == PLATFORMS[runtime]
        states = {v["version"]: v for v in server.get("/v1/models/m").json["model_version_status"]}
        assert states["1"]["state"] == "AVAILABLE"
        assert "says its signature" in states["2"]["status"]["error_message"]
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        assert server.post("/v1/models/m:predict", {"instances": images[:1].tolist()}).status == 200
    finally:
        code, errors = server.stop()
    assert code == 0, errors
    assert "Traceback" not in errors


def test_scales_that_are_taken_over_a_batch_keep_requests_apart(convert_once: Converter) -> None:
    try:
        served = ServedConversion("onnx", convert_once("bert", "onnx", "int8_dynamic"), 1)
    except UnavailableError as error:
        pytest.skip(str(error))
    (signature,) = served.model.signatures
    served.close()
    assert signature.alone_because == ONE_SCALE
    assert not has_rows(signature)


def test_an_index_that_says_something_else_than_its_file_is_refused(convert_once: Converter, tmp_path: Path) -> None:
    shutil.copytree(convert_once("cnn", "onnx", "float32"), tmp_path / "onnx")
    index = tmp_path / "onnx" / "conversion.json"
    index.write_text(index.read_text().replace('"name": "images"', '"name": "pictures"'))
    with pytest.raises(ArtifactError, match="what the file beside it takes and gives"):
        ServedConversion("onnx", tmp_path / "onnx", 1)
    with pytest.raises(ArtifactError, match="--backend onnx"):
        ServedConversion("litert", tmp_path / "onnx", 1)


def test_an_export_has_other_runtimes_beside_it(models: Path, warm: RunJob, tmp_path: Path) -> None:
    del warm
    model = open_model(models / "tensorflow" / "cnn.keras")
    report = export(model, tmp_path / "out", "m", 1, to={"litert": "float32"})
    (beside,) = report.beside
    assert (beside.runtime, beside.precision, beside.file) == ("litert", "float32", "litert/model.tflite")
    assert beside.relative_error < 1e-4
    assert "litert/conversion.json" in report.files
    files = version_files(tmp_path / "out" / "m" / "1", "litert")
    assert files is not None
    assert read_conversion(files.folder).file_bytes == beside.file_bytes
    with pytest.raises(UnavailableError, match="litert computes in"):
        export(model, tmp_path / "out", "m", 2, to={"litert": "bfloat16"})
    assert not (tmp_path / "out" / "m" / "2").exists()

"""Converts a model to what another runtime opens, and keeps it only if it still says the same; the parent's side."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from kcost.core import schema
from kcost.core.artifact import SAMPLES_FILE, Model, new_folder, sha256_of
from kcost.core.conversion import (
    CONVERTED_IN,
    FILE_NAMES,
    INDEX_FILE,
    Conversion,
    ConversionCheckAnswer,
    ConversionCheckRequest,
    ConvertAnswer,
    ConvertRequest,
    OutputTemperature,
    Runtime,
    RuntimePrecision,
    ServingRequest,
    read_conversion,
    require_precision,
)
from kcost.core.jobs import CHECK_CONVERSION, CONVERT
from kcost.core.process import require, run_job


def convert(
    model: Model,
    runtime: Runtime,
    precision: RuntimePrecision,
    out: Path,
    *,
    temperature: OutputTemperature | None = None,
    log: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Conversion:
    """Converts a model into the folder `out`, which appears whole or not at all.

    Args:
        model: functional or Sequential, with a free batch axis and dense inputs.
        runtime: saved_model, litert, onnx or openvino.
        precision: one that PRECISIONS names for the runtime. int8 takes its scales from the artifact's real samples.
        out: a folder that is new or empty.
        temperature: that probabilities are put at before; None leaves them.
        log: takes what the two processes print; None keeps it until they end well.
        tell: told of each of the two steps as it begins.

    Raises:
        UnavailableError: the runtime has no such precision, or something it needs is not installed.
        ArtifactError: the model cannot be loaded, or has operations that the converter does not know.
        GateError: the converted file gives other outputs.
        StorageError: `out` holds something already, or cannot be written to.
    """
    require_precision(runtime, precision)
    require(CONVERTED_IN[runtime])
    with new_folder(Path(out)) as draft:
        path = draft.absolute() / FILE_NAMES[runtime]
        made, checked = write_checked(
            *(model, runtime, precision, path),
            temperature=temperature,
            made_samples_file=path.parent / SAMPLES_FILE,
            log=log,
            tell=tell,
        )
        conversion = Conversion(
            runtime=runtime,
            precision=precision,
            file=path.name,
            model=model.name,
            model_sha256=model.sha256,
            parameters=made.parameters,
            inputs=made.inputs,
            outputs=made.outputs,
            real_samples=made.real_samples,
            checks=checked.checks,
            file_bytes=_bytes_of(path),
            seconds=made.seconds,
            versions={**made.versions, runtime: checked.runtime_version},
            notes=checked.notes,
        )
        schema.write(draft / INDEX_FILE, conversion)
    return conversion


def write_checked(
    model: Model,
    runtime: Runtime,
    precision: RuntimePrecision,
    path: Path,
    *,
    portable: bool = False,
    temperature: OutputTemperature | None = None,
    made_samples_file: Path | None = None,
    serving: ServingRequest | None = None,
    log: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[ConvertAnswer, ConversionCheckAnswer]:
    """Writes a model for a runtime, and holds it against the model: the one road that exports and conversions take.

    One process, of the backend that CONVERTED_IN names, loads the model and writes the file. Another, without Keras,
    opens the file and compares its outputs with the model's.

    Args:
        path: absolute, of the file or folder to write; what it lies in exists. After an error it is not to be used.
        temperature: that probabilities are put at before the file is written and checked; None leaves them.
        made_samples_file: keeps made-up inputs of a model without samples.
        serving: what a SavedModel for a server carries beside; None for one that no server is given.
        tell: told of each of the two steps as it begins.

    Raises as `convert` does.
    """
    # On the CPU whatever the machine has: a graph that was followed on a GPU would name it.
    samples = model.samples_file
    with tempfile.TemporaryDirectory(prefix="kcost-convert-") as probes:
        request = ConvertRequest(
            keras_file=model.keras_file.absolute(),
            runtime=runtime,
            precision=precision,
            path=path,
            samples_file=None if samples is None else samples.absolute(),
            made_samples_file=made_samples_file,
            probes=Path(probes),
            portable=portable,
            serving=serving,
            temperature=temperature,
        )
        tell(f"converting {model.name} for {runtime} in {precision}")
        made = run_job(CONVERT, CONVERTED_IN[runtime], request, device="cpu", log=log)
        check = ConversionCheckRequest(
            path=path,
            runtime=runtime,
            precision=precision,
            inputs=made.inputs,
            outputs=made.outputs,
            probes=made.probes,
            serving=serving,
            served=made.serving,
        )
        tell(f"checking {model.name} for {runtime} in {precision}")
        return made, run_job(CHECK_CONVERSION, "fake", check, device="cpu", log=log)


def converted(
    model: Model, runtime: Runtime, precision: RuntimePrecision, cache: Path, *, log: Path | None = None
) -> Path:
    """The folder below `cache` with the conversion of this very model, made where it is not there yet.

    Raises as `convert` does, and SchemaError where what is there is damaged.
    """
    # What int8 is calibrated on is part of a conversion.
    data = "" if model.data_file is None else f"-{sha256_of(model.data_file)[:16]}"
    folder = Path(cache) / f"{model.sha256[:16]}-{runtime}-{precision}{data}"
    if (folder / INDEX_FILE).is_file():
        read_conversion(folder)  # a damaged one is told, not made again over it
        return folder
    convert(model, runtime, precision, folder, log=log)
    return folder


def _bytes_of(path: Path) -> int:
    """Of a file, with OpenVINO's weights beside it, or of everything in a folder."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.stem}.*")
    return sum(file.stat().st_size for file in files if file.is_file())

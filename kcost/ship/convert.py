"""Converts a model to what another runtime opens, and keeps it only if it still says the same; the parent's side."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

from kcost.core import schema
from kcost.core.artifact import Model, new_folder, sha256_of
from kcost.core.conversion import (
    CONVERTED_IN,
    INDEX_FILE,
    Conversion,
    ConversionCheckRequest,
    ConvertRequest,
    Runtime,
    RuntimePrecision,
    read_conversion,
    require_precision,
)
from kcost.core.jobs import CHECK_CONVERSION, CONVERT, Answer, Job, Request
from kcost.core.plan import Backend
from kcost.core.process import Worker, require


def convert(
    model: Model,
    runtime: Runtime,
    precision: RuntimePrecision,
    out: Path,
    *,
    log: IO[bytes] | None = None,
    timeout_s: float | None = None,
) -> Conversion:
    """Converts a model into the folder `out`, which appears whole or not at all.

    One process, of the backend that CONVERTED_IN names, loads the model and converts it. Another, without Keras, opens
    the file and compares its outputs with the model's.

    Args:
        model: functional or Sequential, with a free batch axis and dense inputs.
        runtime: saved_model, litert, onnx or openvino.
        precision: one that PRECISIONS names for the runtime. int8 takes its scales from the artifact's real samples.
        out: a folder that is new or empty.
        log: takes what the two processes print; None passes it on to standard error.
        timeout_s: longest wait for each of them; None waits for ever.

    Raises:
        UnavailableError: the runtime has no such precision, or something it needs is not installed.
        ArtifactError: the model cannot be loaded, or has operations that the converter does not know.
        GateError: the converted file gives other outputs.
        StorageError: `out` holds something already, or cannot be written to.
    """
    require_precision(runtime, precision)
    backend = require(CONVERTED_IN[runtime])
    with new_folder(Path(out)) as draft, tempfile.TemporaryDirectory(prefix="kcost-convert-") as probes:
        samples = model.samples_file
        request = ConvertRequest(
            keras_file=model.keras_file.absolute(),
            model=model.name,
            model_sha256=model.sha256,
            runtime=runtime,
            precision=precision,
            samples_file=None if samples is None else samples.absolute(),
            folder=draft.absolute(),
            probes=Path(probes),
        )
        made = _ask(CONVERT, backend, request, log, timeout_s)
        path = draft.absolute() / made.file
        check = ConversionCheckRequest(
            path=path,
            runtime=runtime,
            precision=precision,
            inputs=made.inputs,
            outputs=made.outputs,
            probes=made.probes,
            rounded=made.rounded,
        )
        checked = _ask(CHECK_CONVERSION, "fake", check, log, timeout_s)
        conversion = Conversion(
            runtime=runtime,
            precision=precision,
            file=made.file,
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


def converted(
    model: Model,
    runtime: Runtime,
    precision: RuntimePrecision,
    cache: Path,
    *,
    log: IO[bytes] | None = None,
    timeout_s: float | None = None,
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
    convert(model, runtime, precision, folder, log=log, timeout_s=timeout_s)
    return folder


def _ask(
    job: Job[Request, Answer], backend: Backend, request: Request, log: IO[bytes] | None, timeout_s: float | None
) -> Answer:
    # On the CPU whatever the machine has: a graph that was followed on a GPU would name it.
    with Worker(job, backend, device="cpu", log=log) as worker:
        return worker.ask(request, timeout_s)


def _bytes_of(path: Path) -> int:
    """Of a file, with OpenVINO's weights beside it, or of everything in a folder."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.stem}.*")
    return sum(file.stat().st_size for file in files if file.is_file())

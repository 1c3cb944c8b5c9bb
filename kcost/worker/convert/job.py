"""Converts a `.keras` file to what a runtime opens, and keeps the outputs of the Keras model to check the result by."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from kcost.backends import driver
from kcost.backends.base import as_host_array
from kcost.core.conversion import (
    SAMPLES_FILE,
    ConversionProbe,
    ConvertAnswer,
    ConvertedTensor,
    ConvertRequest,
    require_precision,
)
from kcost.core.signature import signature_of_structure
from kcost.models.loading import load_keras_file
from kcost.models.probing import Probe
from kcost.worker import export
from kcost.worker.inputs import MADE_SAMPLES, make_samples, read_samples

BATCHES = (1, 3, 8)
"""Batch sizes of the probes: a runtime that fixed an axis is found out."""

SEED = 0


def run(request: ConvertRequest) -> ConvertAnswer:
    """Converts as the request says, in a process of the runtime's backend.

    Writes the converted file, and samples.npz where the request names no samples, into `folder`; into `probes` one npz
    a probe.

    Raises:
        ArtifactError: the model cannot be loaded, or cannot be converted; the reason is the converter's.
        UnavailableError: the runtime has no such precision, or a package of the converter is missing.
    """
    require_precision(request.runtime, request.precision)
    backend = driver(os.environ["KERAS_BACKEND"])
    model = export.functional_model(load_keras_file(request.keras_file), request.keras_file)
    signature = export.model_inputs(model, request.keras_file)
    if request.samples_file is None:
        samples = make_samples(model, MADE_SAMPLES, SEED)
        np.savez(request.folder / SAMPLES_FILE, allow_pickle=False, **samples.inputs)
    else:
        samples = read_samples(request.samples_file, signature_of_structure(model.input))
    real = None if request.samples_file is None else samples.inputs
    given = export.probes_of(model, request.keras_file, real, BATCHES)
    probes = tuple(
        _written(request.probes, batch, probe, signature) for batch, probe in zip(BATCHES, given, strict=True)
    )
    inputs = tuple(ConvertedTensor(**i._asdict()) for i in signature)
    import keras

    outputs = tuple(
        ConvertedTensor(name=name, model_name=y.name, shape=(None, *y.shape[1:]), dtype=str(y.dtype))
        for name, y in zip(export.output_names(model), keras.tree.flatten(model.output), strict=True)
    )
    start = time.perf_counter()
    if request.runtime in ("saved_model", "litert"):
        from kcost.worker.convert.in_tensorflow import convert
    else:
        from kcost.worker.convert.in_torch import convert
    file, versions = convert(request, model, samples)
    return ConvertAnswer(
        file=file,
        inputs=inputs,
        outputs=outputs,
        parameters=model.count_params(),
        rounded=export.is_rounded(model),
        real_samples=request.samples_file is not None,
        seconds=time.perf_counter() - start,
        versions={"keras": keras.__version__, backend.name: backend.version(), **versions},
        probes=probes,
    )


def _written(folder: Path, batch: int, probe: Probe, signature: list[export.ModelInput]) -> ConversionProbe:
    """Writes a probe, by the names in the converted file, and tells of it."""
    inputs = {i.name: probe.inputs[i.model_name] for i in signature}
    arrays = {f"input/{name}": array for name, array in inputs.items()}
    arrays |= {f"output/{n}": as_host_array(y) for n, y in enumerate(probe.outputs)}
    file = folder / f"batch{batch}.npz"
    np.savez(file, allow_pickle=False, **arrays)
    return ConversionProbe(file=file, batch=batch, free_axes=export.free_axes(signature, inputs))

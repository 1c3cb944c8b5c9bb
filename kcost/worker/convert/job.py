"""Converts a `.keras` file to what a runtime opens, and keeps the outputs of the Keras model to check the result by."""

from __future__ import annotations

import os
import time

import numpy as np

from kcost.backends import driver
from kcost.core.conversion import (
    ConvertAnswer,
    ConvertedTensor,
    ConvertRequest,
    ServingAnswer,
    require_precision,
)
from kcost.core.cpu_instructions import INT8_OPERATIONS
from kcost.core.signature import signature_of_structure
from kcost.models.loading import load_keras_file
from kcost.worker.convert.endpoint import functional_model, model_inputs, output_names
from kcost.worker.convert.probes import write_probes
from kcost.worker.convert.saved_model import itemsize, operations, plain_blocks
from kcost.worker.inputs import MADE_SAMPLES, MADE_SEED, make_samples, read_samples


def run(request: ConvertRequest) -> ConvertAnswer:
    """Converts as the request says, in a process of the runtime's backend.

    Writes the converted file, a probe for each batch size, and, where the request names no samples and a file for
    made-up ones, those.

    Raises:
        ArtifactError: the model cannot be loaded, or cannot be converted; the reason is the converter's.
        InputError: the samples do not fit the model.
        StorageError: the file cannot be written.
        UnavailableError: the runtime has no such precision, or a package of the converter is missing.
    """
    require_precision(request.runtime, request.precision)
    import keras

    backend = driver(os.environ["KERAS_BACKEND"])
    model = functional_model(load_keras_file(request.keras_file), request.keras_file)
    if request.temperature is not None:
        from kcost.models.calibrated import at_temperature

        model = at_temperature(model, request.temperature)
    inputs = model_inputs(model, request.keras_file)
    names = output_names(model)
    if request.samples_file is None:
        real, samples = None, make_samples(model, MADE_SAMPLES, MADE_SEED)
        if request.made_samples_file is not None:
            np.savez(request.made_samples_file, allow_pickle=False, **samples.inputs)
    else:
        samples = read_samples(request.samples_file, signature_of_structure(model.input))
        real = samples.inputs
    probes = write_probes(model, request.keras_file, real, inputs, names, request.probes)
    start = time.perf_counter()
    versions: dict[str, str] = {}
    serving = ServingAnswer()
    if request.serving is not None:
        from kcost.worker.convert.in_tensorflow import convert_for_server

        serving = convert_for_server(request, request.serving, model, inputs, names, samples)
    elif request.runtime in ("saved_model", "litert"):
        from kcost.worker.convert.in_tensorflow import convert

        versions = convert(request, model, samples)
    else:
        from kcost.worker.convert.in_torch import convert as convert_in_torch

        versions = convert_in_torch(request, model, samples)
    seconds = time.perf_counter() - start
    is_saved_model = request.runtime == "saved_model"
    used = operations(request.path) if is_saved_model else frozenset[str]()
    return ConvertAnswer(
        inputs=tuple(ConvertedTensor(**i._asdict()) for i in inputs),
        outputs=tuple(
            ConvertedTensor(
                name=name,
                model_name=y.name,
                shape=(None, *y.shape[1:]),
                dtype=keras.backend.standardize_dtype(y.dtype),
            )
            for name, y in zip(names, keras.tree.flatten(model.output), strict=True)
        ),
        parameters=model.count_params(),
        weights_bytes=sum(int(np.prod(w.shape)) * itemsize(w.dtype) for w in model.weights),
        real_samples=real is not None,
        seconds=seconds,
        versions={"keras": keras.__version__, backend.name: backend.version(), **versions},
        probes=probes,
        internal_operations=tuple(sorted(name for name in used if name.startswith(("_", "QuantizedConv2D")))),
        int8_operations=tuple(sorted(used & INT8_OPERATIONS)),
        plain_blocks=tuple(plain_blocks(model)) if is_saved_model else (),
        serving=serving,
    )

"""Converts a `.keras` file to what a runtime opens, and keeps the outputs of the Keras model to check the result by."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kcost.backends import driver
from kcost.backends.base import Inputs
from kcost.core.conversion import SAMPLES_FILE, ConvertedTensor, ConvertRequest, require_precision
from kcost.core.errors import ArtifactError, UnavailableError
from kcost.models.loading import load_keras_file
from kcost.worker import export
from kcost.worker.inputs import Samples, make_samples, read_samples

PROBES = ((1, 1), (3, 2), (8, 4))
"""Batch size, and what free axes are divided by, of each probe: a runtime that fixed an axis is found out."""

WHOLE_PROBES = tuple((batch, 1) for batch, _ in PROBES)
"""The same for models that take no shorter inputs."""

DIVISORS = (1, 2, 4, 8, 16, 32)
"""What the free axes of made-up samples are divided by, in turn."""

MADE_SAMPLES = 64
SEED = 0


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Converts as a ConvertRequest says, in a process of the runtime's backend.

    Writes the converted file, and samples.npz where the request names no samples, into `folder`; into `probes` one npz
    a probe with arrays `input/NAME`, by the names in the converted file, and `output/NUMBER`, in the model's order.

    Returns:
        `file`, `inputs`, `outputs`, `parameters`, `real_samples`, `seconds`, `versions` as Conversion has them, and
        `probes` (file, batch, free_axes); `rounded`: whether the model rounds what it computes, at any precision.

    Raises:
        ArtifactError: the model cannot be loaded, or cannot be converted; the reason is the converter's.
        UnavailableError: the runtime has no such precision, or a package of the converter is missing.
    """
    asked = ConvertRequest.model_validate(request)
    require_precision(asked.runtime, asked.precision)
    backend = driver(os.environ["KERAS_BACKEND"])
    model = export.functional_model(load_keras_file(asked.keras_file), asked.keras_file)
    signature = export.model_inputs(model, asked.keras_file)
    forward = backend.compile_forward(model, "graph" if backend.name == "tensorflow" else "eager")
    if asked.samples_file is None:
        samples = _made_samples(asked.keras_file, model, lambda x: backend.to_host(forward(x)), signature)
        np.savez(asked.folder / SAMPLES_FILE, allow_pickle=False, **samples.inputs)
    else:
        samples = read_samples(asked.samples_file, {i.model_name: (i.shape, i.dtype) for i in signature})
    probes = _probes(asked, lambda x: backend.to_host(forward(x)), samples, signature)
    inputs = [
        ConvertedTensor(name=i.name, model_name=i.model_name, shape=i.shape, dtype=i.dtype).model_dump()
        for i in signature
    ]
    import keras

    outputs = [
        ConvertedTensor(name=name, model_name=y.name, shape=(None, *y.shape[1:]), dtype=str(y.dtype)).model_dump()
        for name, y in zip(export.output_names(model), keras.tree.flatten(model.output), strict=True)
    ]
    start = time.perf_counter()
    if asked.runtime in ("saved_model", "litert"):
        from kcost.worker.convert_tensorflow import convert
    else:
        from kcost.worker.convert_torch import convert
    file, versions = convert(asked, model, samples)
    return {
        "file": file,
        "inputs": inputs,
        "outputs": outputs,
        "parameters": model.count_params(),
        "rounded": export.is_rounded(model),
        "real_samples": asked.samples_file is not None,
        "seconds": time.perf_counter() - start,
        "versions": {"keras": keras.__version__, backend.name: backend.version(), **versions},
        "probes": probes,
    }


def _made_samples(
    keras_file: Path, model: Any, forward: Callable[[Inputs], list[np.ndarray]], signature: list[export.ModelInput]
) -> Samples:
    """Random inputs; free axes are halved until the model takes them, as an encoder has so many positions only."""
    made = make_samples(model, MADE_SAMPLES, SEED)
    for divisor in DIVISORS:
        samples = Samples(_cut(made.inputs, signature, divisor), None)
        try:
            forward(samples.rows(0, 1).inputs)
        except MemoryError:
            raise
        except Exception as error:  # each framework has its own for a shape that does not fit
            refusal = error
            continue
        return samples
    raise _takes_no_inputs(keras_file, refusal)


def _takes_no_inputs(keras_file: Path, refusal: Exception | None) -> ArtifactError:
    return ArtifactError(
        "A model is checked after its conversion, on inputs that it takes.",
        received=f"{keras_file}, which refused them: {export.first_reason(refusal)}",
        remedy="Convert an artifact folder, whose samples.npz holds real inputs, instead of a bare .keras file.",
    )


def _probes(
    asked: ConvertRequest,
    forward: Callable[[Inputs], list[np.ndarray]],
    samples: Samples,
    signature: list[export.ModelInput],
) -> list[dict[str, Any]]:
    refusal: Exception | None = None
    for shapes in (PROBES, WHOLE_PROBES):
        told = []
        try:
            for batch, divisor in shapes:
                inputs = _cut(samples.rows(0, batch).inputs, signature, divisor)
                arrays = {f"input/{i.name}": inputs[i.model_name] for i in signature}
                arrays |= {f"output/{n}": y for n, y in enumerate(forward(inputs))}
                file = asked.probes / f"batch{batch}.npz"
                np.savez(file, allow_pickle=False, **arrays)
                free_axes = export.free_axes(signature, {i.name: inputs[i.model_name] for i in signature})
                told.append({"file": str(file), "batch": batch, "free_axes": free_axes})
        except MemoryError:
            raise
        except Exception as error:  # each framework has its own for a shape that does not fit
            refusal = error
            continue
        return told
    raise _takes_no_inputs(asked.keras_file, refusal) from refusal


def _cut(inputs: Inputs, signature: list[export.ModelInput], divisor: int) -> Inputs:
    """The inputs of the model in its dtypes, with free axes other than the batch cut short."""
    cut: Inputs = {}
    for i in signature:
        rows = inputs[i.model_name]
        parts = [
            slice(None if size is not None else max(1, length // divisor))
            for size, length in zip(i.shape[1:], rows.shape[1:], strict=True)
        ]
        cut[i.model_name] = np.ascontiguousarray(rows[(slice(None), *parts)].astype(i.dtype))
    return cut


def calibration_batches(samples: Samples, names: list[str], rows: int, batch: int) -> Iterator[Inputs]:
    """Inputs by the model's names, `batch` rows at a time, `rows` in all or as many as there are."""
    for start in range(0, min(rows, len(samples)), batch):
        taken = samples.rows(start, min(batch, len(samples) - start)).inputs
        yield {name: taken[name] for name in names}


def need(module: str, extra: str) -> None:
    """Raises UnavailableError where a package of a converter is not installed. Imports nothing."""
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise UnavailableError(
            f"This conversion needs the package {module}.",
            received="an environment without it",
            remedy=f"Install it: pip install 'kcost[{extra}]'",
        )


def refused(path: Path, runtime: str, error: BaseException) -> ArtifactError:
    """The error for a model that a converter does not take, with the converter's reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ArtifactError(
        f"The converter to {runtime} knows each operation of the model.",
        received=f"{path}: {type(error).__name__}: {(lines[0] if lines else 'no reason given')[:300]}",
        remedy="Measure the model on its Keras backends, or change the layer that the reason names.",
    )

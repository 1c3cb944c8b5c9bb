"""Checks a converted file in a process without Keras: the runtime opens it, and it says what the model says."""

from __future__ import annotations

import numpy as np

from kcost.core.conversion import (
    ROUNDED_TOLERANCE,
    TOLERANCES,
    ConversionCheck,
    ConversionCheckAnswer,
    ConversionCheckRequest,
    ConversionProbe,
)
from kcost.core.errors import ArtifactError, GateError
from kcost.runtimes.base import LoadedFile, open_file, runtime_version


def run(request: ConversionCheckRequest) -> ConversionCheckAnswer:
    """Opens the file and compares its outputs with those of the Keras model, probe by probe.

    Raises:
        GateError: the file takes other inputs than the model, or gives other outputs.
        ArtifactError: the runtime does not open the file, or does not run it.
        UnavailableError: the runtime is not installed.
    """
    loaded = open_file(request.runtime, request.path, threads=0, precision=request.precision)
    _compare_names("inputs", {i.name for i in request.inputs}, {spec.name for spec in loaded.inputs})
    names = [output.name for output in request.outputs]
    _compare_names("outputs", set(names), set(loaded.outputs))
    return ConversionCheckAnswer(
        checks=tuple(_check(loaded, probe, names, request) for probe in request.probes),
        runtime_version=runtime_version(request.runtime),
        notes=tuple(loaded.notes),
    )


def _compare_names(kind: str, wanted: set[str], found: set[str]) -> None:
    if wanted != found:
        raise GateError(
            f"A converted file has the {kind} of the model.",
            received=f"{', '.join(sorted(found))}; expected {', '.join(sorted(wanted))}",
            remedy="Nothing was kept. Please report the model: its conversion is wrong.",
        )


def _check(
    loaded: LoadedFile, probe: ConversionProbe, names: list[str], request: ConversionCheckRequest
) -> ConversionCheck:
    with np.load(probe.file, allow_pickle=False) as stored:
        inputs = {spec.name: stored[f"input/{spec.name}"] for spec in loaded.inputs}
        wanted = [stored[f"output/{number}"] for number in range(len(names))]
    by_name = dict(zip(loaded.outputs, loaded.run(inputs), strict=True))
    found = [by_name[name] for name in names]
    for name, one, expected in zip(names, found, wanted, strict=True):
        if one.shape != expected.shape:
            raise ArtifactError(
                "A converted file gives outputs of the model's shapes.",
                received=f"{name!r} of shape {one.shape}, {expected.shape} for the model",
                remedy="Nothing was kept. Please report the model: its conversion is wrong.",
            )
    one, expected = (np.concatenate([y.ravel().astype(np.float64) for y in side]) for side in (found, wanted))
    norm = float(np.linalg.norm(expected))
    error = float(np.linalg.norm(one - expected)) / (norm or 1.0)
    tolerance = max(TOLERANCES[request.precision], ROUNDED_TOLERANCE if request.rounded else 0.0)
    kind = "that rounds what it computes" if request.rounded else f"in {request.precision}"
    if not error <= tolerance:  # a NaN is never within the tolerance
        raise GateError(
            f"A model {kind} keeps its outputs within a relative error of {tolerance:g}.",
            received=f"{request.runtime}: {error:.3g} for a batch of {probe.batch}",
            remedy="Nothing was kept. Take another precision of this runtime, or another runtime.",
        )
    return ConversionCheck(
        batch=probe.batch,
        free_axes=probe.free_axes,
        relative_error=error,
        max_abs_difference=float(np.abs(one - expected).max(initial=0.0)),
    )

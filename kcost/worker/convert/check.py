"""Checks a converted file in a process without Keras: the runtime opens it, and it says what the model says.

A SavedModel is checked in a process that has no XLA either, as TensorFlow Serving has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcost.core.answer_scores import not_finite
from kcost.core.artifact import TensorSpec
from kcost.core.conversion import (
    TOLERANCES,
    ConversionCheck,
    ConversionCheckAnswer,
    ConversionCheckRequest,
    ConversionProbe,
)
from kcost.core.errors import GateError
from kcost.runtimes.base import LoadedFile, open_file, runtime_version
from kcost.worker.convert.check_serving import check_serving

LAST_PLACES = {"bfloat16": 2e-2, "float16": 2e-3}
"""Largest difference of a number of an output, by its dtype: a few units in the last place around 1."""

LAST_PLACES_FLOAT32 = 1e-4
"""The same for every other dtype. Outputs beyond 1 may differ by as much of their own size."""

SMALLEST = 1e-7
"""A difference, in the root mean square, that is the rounding of float32 around 1: of outputs that cancel to about
nothing, it may be all there is."""

CHANGE_FACTOR = 3.0
"""Outputs of a model that rounds to int8 or bfloat16 may differ, in the root mean square, by this many times what a
change of its weights by one part in 512 makes. A rounding that falls the other way moves an activation by a whole step
(1/127 of its range), which makes others fall the other way: two right ways of computing such a model are about that far
apart. A wrong scale, bias or mask is much further off."""

LARGEST_CHANGE = TOLERANCES["bfloat16"]
"""The same, in parts of the outputs' own root mean square, whatever a change of the weights makes. The BTC tagger in
static int8 gave 0.0027 between two graphs of the same operations."""

_REMEDY = "Nothing was kept. Please report the model: a file that says something else than its model is a bug."


def run(request: ConversionCheckRequest) -> ConversionCheckAnswer:
    """Opens the file and compares its outputs with those of the Keras model, probe by probe.

    Raises:
        GateError: the file needs XLA, takes other inputs than the model, or gives other outputs.
        ArtifactError: the runtime does not open the file, or does not run it.
        UnavailableError: the runtime is not installed.
    """
    loaded = open_file(request.runtime, request.path, threads=0, precision=request.precision)
    try:
        if loaded.xla_operations:
            raise GateError(
                "An exported model runs without XLA, which TensorFlow Serving does not carry.",
                received=f"a graph with {', '.join(loaded.xla_operations)}",
                remedy="Nothing was kept. Replace the layer that compiles with XLA.",
            )
        _compare_tensors("inputs", [_described(i) for i in request.inputs], [_described(i) for i in loaded.inputs])
        _compare_tensors("outputs", [o.name for o in request.outputs], list(loaded.outputs))
        checks = tuple(_check(loaded, probe, request) for probe in request.probes)
        notes = tuple(loaded.notes)
    finally:
        loaded.close()
    serving = None
    if request.serving is not None:
        rounding = max(_rounding_of(probe, request) for probe in request.probes)
        serving = check_serving(request.path, request.serving, request.served, request.inputs[0], rounding)
    return ConversionCheckAnswer(
        checks=checks, runtime_version=runtime_version(request.runtime), notes=notes, serving=serving
    )


def _described(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} ({', '.join('any' if size is None else str(size) for size in spec.shape)})"


def _compare_tensors(kind: str, wanted: Sequence[str], received: Sequence[str]) -> None:
    if sorted(wanted) != sorted(received):
        raise GateError(
            f"A converted file has the {kind} of the model.",
            received=f"{', '.join(sorted(received))}; expected {', '.join(sorted(wanted))}",
            remedy=_REMEDY,
        )


def _rounding_of(probe: ConversionProbe, request: ConversionCheckRequest) -> float:
    """By how much two right ways of computing a model may differ in a probe, root mean square; 0 where none rounds."""
    with np.load(probe.file, allow_pickle=False) as stored:
        names = [o.name for o in request.outputs if f"change/{o.name}" in stored]
        sizes = {name: _root_mean_square(stored[f"output/{name}"].astype(np.float64)) for name in names}
        return max((_by_rounding(float(stored[f"change/{n}"]), sizes[n]) for n in names), default=0.0)


def _by_rounding(change: float, size: float) -> float:
    return min(CHANGE_FACTOR * change, LARGEST_CHANGE * size)


def _check(loaded: LoadedFile, probe: ConversionProbe, request: ConversionCheckRequest) -> ConversionCheck:
    with np.load(probe.file, allow_pickle=False) as stored:
        inputs = {spec.name: stored[f"input/{spec.name}"] for spec in loaded.inputs}
        expected = {output.name: stored[f"output/{output.name}"] for output in request.outputs}
        changes = {name: float(stored[key]) for name in expected if (key := f"change/{name}") in stored}
    received = dict(zip(loaded.outputs, loaded.run(inputs), strict=True))
    errors, differences = [0.0], [0.0]
    for output in request.outputs:
        wanted, answer = expected[output.name], received[output.name]
        reason, error, difference = _judged(output, wanted, answer, changes.get(output.name), request)
        if reason is not None:
            raise GateError(
                "A converted model gives the outputs of the model that it was made from.",
                received=f"{request.runtime} in {request.precision}: {output.name!r} of shape {answer.shape}, "
                f"for a batch of {probe.batch} ({probe.source}): {reason}",
                remedy=_REMEDY if request.precision == "float32" else "Nothing was kept. Take another precision.",
            )
        errors.append(error)
        differences.append(difference)
    return ConversionCheck(
        batch=probe.batch,
        free_axes=probe.free_axes,
        source=probe.source,
        relative_error=max(errors),
        max_abs_difference=max(differences),
    )


def _judged(
    output: TensorSpec, expected: np.ndarray, answer: np.ndarray, change: float | None, request: ConversionCheckRequest
) -> tuple[str | None, float, float]:
    """What is wrong with an output, or None; its relative error, and its largest difference.

    Args:
        change: of the model's outputs with its weights, root mean square; None of a model that does not round.
    """
    if (bad := not_finite([output.name], [expected])) is not None:
        return f"the model itself gives {bad}: look for weights that are not finite", 0.0, 0.0
    if answer.shape != expected.shape:
        return f"the shape {expected.shape} was expected", 0.0, 0.0
    if request.precision == "float32" and str(answer.dtype) != output.dtype:
        return f"it is {answer.dtype}, {output.dtype} in the model", 0.0, 0.0
    wide = expected.astype(np.float64)
    difference = np.abs(answer.astype(np.float64) - wide)
    if (count := int(np.isnan(difference).sum())) > 0:
        return f"{count} of {difference.size} values are not numbers", 0.0, 0.0
    largest = float(difference.max(initial=0.0))
    off, size = _root_mean_square(difference), _root_mean_square(wide)
    error = off / (size or 1.0)
    reason = None
    last_places = LAST_PLACES.get(output.dtype, LAST_PLACES_FLOAT32)
    by_rounding = 0.0 if change is None else _by_rounding(change, size)
    if request.precision != "float32":
        allowed = max(TOLERANCES[request.precision], by_rounding / (size or 1.0))
        if error > allowed:
            reason = f"the relative error is {error:.3g}, at most {allowed:.3g}"
    elif change is not None:
        allowed = last_places + by_rounding
        if off > allowed:
            reason = f"the root mean square of the difference is {off:.3g}, at most {allowed:.3g}"
    elif (difference > last_places * np.maximum(1.0, np.abs(wide))).any():
        reason = f"the largest difference is {largest:.3g}, at most {last_places:g}, or that part of a number beyond 1"
    elif output.dtype not in LAST_PLACES and error > TOLERANCES["float32"] and off > SMALLEST:
        reason = f"the relative error is {error:.3g}, at most {TOLERANCES['float32']:g}"
    return reason, error, largest


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0

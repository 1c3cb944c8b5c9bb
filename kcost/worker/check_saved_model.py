"""Checks an exported SavedModel in a process that has neither Keras nor XLA, as TensorFlow Serving has neither."""

from __future__ import annotations

import os

import numpy as np

from kcost.core.answer_scores import not_finite
from kcost.core.artifact import TensorSpec
from kcost.core.errors import GateError
from kcost.core.export import Check, ExportProbe, SavedModelCheckAnswer, SavedModelCheckRequest
from kcost.runtimes.meta_graph import Tensor
from kcost.runtimes.saved_model import SavedModelSession, library_version

TOLERANCES = {"bfloat16": 2e-2, "float16": 2e-3}
"""Largest difference allowed, by the dtype of an output: a few units in the last place around 1."""

TOLERANCE = 1e-4
"""The same for every other dtype. Outputs beyond 1 may differ by as much of their own size."""

CHANGE_FACTOR = 3.0
"""Outputs of a model that rounds to int8 or bfloat16 may differ, in the root mean square, by this many times what a
change of its weights by one part in 512 makes. A rounding that falls the other way moves an activation by a whole step
(1/127 of its range), which makes others fall the other way: two right ways of computing such a model are about that far
apart. A wrong scale, bias or mask is much further off."""

LARGEST_CHANGE = 0.25
"""The same, in parts of the outputs' own root mean square, however much a change of the weights makes."""

_REMEDY = "Nothing was exported. Please report the model: an export that changes what a model says is a bug."


def run(request: SavedModelCheckRequest) -> SavedModelCheckAnswer:
    """Loads the SavedModel and compares its outputs with those that the model gave, probe by probe.

    Raises:
        GateError: the SavedModel needs XLA, has another signature, or gives other outputs.
        ArtifactError: it cannot be loaded.
    """
    os.environ.pop("TF_XLA_FLAGS", None)  # it would overrule the session's settings; this process is the check's own
    with SavedModelSession(request.folder) as session:
        if session.xla_operations:
            raise GateError(
                "An exported model runs without XLA, which TensorFlow Serving does not carry.",
                received=f"a graph with {', '.join(session.xla_operations)}",
                remedy="Nothing was exported. Replace the layer that compiles with XLA.",
            )
        _compare_signature("inputs", request.inputs, session.signature.inputs)
        _compare_signature("outputs", request.outputs, session.signature.outputs)
        checks = tuple(_compare(session, probe) for probe in request.probes)
    return SavedModelCheckAnswer(checks=checks, library_version=library_version())


def _compare_signature(kind: str, wanted: tuple[TensorSpec, ...], tensors: dict[str, Tensor]) -> None:
    """Names and dtypes of all, and shapes of inputs; an output's shape may say less than the model knew."""
    expected = {w.name: (w.dtype, w.shape if kind == "inputs" else None) for w in wanted}
    found = {name: (t.dtype, t.shape if kind == "inputs" else None) for name, t in tensors.items()}
    if found != expected:
        raise GateError(
            f"An exported model has the {kind} of the model that it was made from.",
            received=f"{found}, expected {expected}",
            remedy=_REMEDY,
        )


def _compare(session: SavedModelSession, probe: ExportProbe) -> Check:
    with np.load(probe.file, allow_pickle=False) as stored:
        inputs = {name: stored[f"input/{name}"] for name in session.signature.inputs}
        wanted = {name: stored[f"output/{name}"] for name in session.signature.outputs}
        changes = {name: float(stored[key]) for name in wanted if (key := f"change/{name}") in stored}
    found = session.run(inputs)
    largest = 0.0
    for name, expected in wanted.items():
        if (bad := not_finite([name], [expected])) is not None:
            raise GateError(
                "A model answers with finite numbers.",
                received=f"{bad}, for a batch of {probe.batch} ({probe.source}), before it was exported",
                remedy="Nothing was exported. Look for weights that are not finite: the training may have diverged.",
            )
        tolerance = TOLERANCES.get(session.signature.outputs[name].dtype, TOLERANCE)
        difference, allowed = _differences(found[name], expected, tolerance)
        if name in changes:
            tolerance += min(CHANGE_FACTOR * changes[name], LARGEST_CHANGE * _root_mean_square(expected))
            within = bool(_root_mean_square(difference) <= tolerance)
        else:
            within = bool(np.all(difference <= allowed))
        if not within:  # a NaN is never within the tolerance
            raise GateError(
                f"An exported model gives the outputs of the model that it was made from, within {tolerance:g}.",
                received=f"{name!r} of shape {found[name].shape}, for a batch of {probe.batch} ({probe.source}): "
                f"{_describe(found[name], expected, difference)}",
                remedy=_REMEDY,
            )
        largest = max(largest, float(difference.max(initial=0.0)))
    return Check(batch=probe.batch, free_axes=probe.free_axes, source=probe.source, max_abs_difference=largest)


def _root_mean_square(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def _differences(found: np.ndarray, expected: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The absolute differences, and how large each may be."""
    if found.shape != expected.shape:
        return np.array(np.inf), np.array(tolerance)
    wide = expected.astype(np.float64)
    return np.abs(found.astype(np.float64) - wide), tolerance * np.maximum(1.0, np.abs(wide))


def _describe(found: np.ndarray, expected: np.ndarray, difference: np.ndarray) -> str:
    if found.shape != expected.shape:
        return f"the shape {expected.shape} was expected"
    if np.isnan(difference).any():
        return f"{int(np.isnan(difference).sum())} of {difference.size} values are not numbers"
    return f"the largest difference is {float(difference.max()):.3g}"

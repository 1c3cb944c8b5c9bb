"""What a model says on a few inputs before it is converted: what the converted file is held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from kcost.backends.base import Inputs
from kcost.core.conversion import ConversionProbe
from kcost.core.errors import ArtifactError, KcostError, in_a_line
from kcost.core.signature import signature_of_structure
from kcost.models.probing import Probe, cut, probes, recipe_of
from kcost.models.watched_forward import WatchedForward
from kcost.worker.convert.endpoint import ModelInput, free_axes

if TYPE_CHECKING:
    import keras

BATCHES = (1, 3, 8)
"""Batch sizes of the probes: a file that fixed an axis is found out. Free axes other than the batch change with it."""

SEED = 0

ROUNDED = ("int8", "uint8", "bfloat16", "float16")
"""Dtypes of weights that tell a model that rounds what it computes."""


def _is_rounded(model: keras.Model) -> bool:
    """Whether a model rounds what it computes to int8 or 16 bits."""
    return any(weight.dtype in ROUNDED for weight in model.weights)


def write_probes(
    model: keras.Model,
    keras_file: Path,
    samples: Inputs | None,
    inputs: Sequence[ModelInput],
    output_names: Sequence[str],
    folder: Path,
) -> tuple[ConversionProbe, ...]:
    """Writes a probe for each of BATCHES into a folder: of real samples where there are some, else of made-up inputs.

    Raises:
        ArtifactError: the model does not take the samples.
        UnavailableError: no samples, and the model refuses made-up inputs of each length.
    """
    made = _probes(model, keras_file, samples)
    changes = _changes(model, made) if _is_rounded(model) else [[] for _ in made]
    source: Literal["samples", "random"] = "random" if samples is None else "samples"
    written = []
    for batch, probe, change in zip(BATCHES, made, changes, strict=True):
        arrays = {i.name: probe.inputs[i.model_name] for i in inputs}
        file = folder / f"batch{batch}.npz"
        np.savez(
            file,
            allow_pickle=False,
            **{f"input/{name}": array for name, array in arrays.items()},
            **{f"output/{name}": y for name, y in zip(output_names, probe.outputs, strict=True)},
            **{f"change/{name}": np.float64(c) for name, c in zip(output_names, change, strict=False)},
        )
        written.append(ConversionProbe(file=file, batch=batch, free_axes=free_axes(inputs, arrays), source=source))
    return tuple(written)


def _probes(model: keras.Model, keras_file: Path, samples: Inputs | None) -> list[Probe]:
    signature = signature_of_structure(model.input)
    forward = WatchedForward(model)
    if samples is None:
        recipe = recipe_of(model)
        return probes(forward, signature, lambda rows, scale: recipe.scaled(scale).make(rows, SEED), BATCHES)
    try:
        return probes(forward, signature, lambda rows, scale: cut(samples, signature, rows, scale), BATCHES)
    except (MemoryError, KcostError):
        raise
    except Exception as error:  # each framework has its own for a shape that does not fit
        raise ArtifactError(
            "A model is checked after its export or conversion, on inputs that it takes.",
            received=f"{keras_file}, which refused its real samples: {in_a_line(error)}",
            remedy="Make the artifact again, or give its .keras file alone.",
        ) from error


def _changes(model: keras.Model, made: Sequence[Probe]) -> list[list[float]]:
    """For each probe, the root mean square of what outputs change when each float32 weight does by up to 1/512 of it.

    That is what rounding to bfloat16 changes. In a model that rounds to int8, a last bit that differs somewhere makes
    whole steps further on, so that two right ways of computing it differ by as much as this.
    """
    random = np.random.default_rng(SEED)
    weights = [w for w in model.weights if w.dtype == "float32"]
    before = [np.array(w) for w in weights]
    forward = WatchedForward(model)
    try:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value * (1 + random.uniform(-1, 1, value.shape).astype(np.float32) / 512))
        outputs = [forward(probe.inputs) for probe in made]
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)
    return [
        [_root_mean_square(new.astype(np.float64) - old) for new, old in zip(ys, probe.outputs, strict=True)]
        for probe, ys in zip(made, outputs, strict=True)
    ]


def _root_mean_square(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference))))

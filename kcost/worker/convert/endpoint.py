"""The inputs and outputs of a model by the names that they have in a converted file."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kcost.core.errors import ArtifactError
from kcost.core.signature import signature_of_structure

if TYPE_CHECKING:
    import keras


class ModelInput(NamedTuple):
    """One input of the model."""

    name: str  # in the signature
    model_name: str  # in the model, and in samples.npz
    shape: tuple[int | None, ...]
    dtype: str
    key: str | None  # in the dictionary that the model takes, if it takes one


def functional_model(model: keras.Model, path: Path) -> keras.Model:
    """The model as a functional one, which knows its inputs and outputs."""
    import keras

    if isinstance(model, keras.Sequential) and model.built and model.inputs:
        return keras.Model(model.inputs, model.outputs, name=model.name)
    # `output_names` is what tells a functional model; its class is not part of Keras's public API.
    if not getattr(model, "output_names", None):
        raise ArtifactError(
            "A functional or Sequential model that was built can be exported or converted.",
            received=f"{path}, which holds a {type(model).__name__} without inputs of a known shape",
            remedy="Give a Sequential model a keras.Input, wrap another: keras.Model(x, model(x)). Then save it again.",
        )
    return model


def model_inputs(model: keras.Model, path: Path) -> list[ModelInput]:
    """The inputs in the order of the flattened input structure."""
    import keras

    tensors = keras.tree.flatten(model.input)
    for tensor in tensors:
        refused = None
        if tensor.sparse or tensor.ragged:
            refused = "a sparse or ragged input"
        elif tensor.dtype == "string":
            refused = "an input of text"
        elif tensor.shape[0] is not None:
            refused = f"a fixed batch size of {tensor.shape[0]}"
        if refused:
            raise ArtifactError(
                "An exported model takes dense numbers with a free batch axis.",
                received=f"{path}: {tensor.name!r} is {refused}",
                remedy="Build the model with a dense keras.Input without batch_size, and save it again.",
            )
    signature = signature_of_structure(model.input)
    # TensorFlow makes each input a parameter of a Python function, so these names are taken.
    taken = {*keyword.kwlist, "self"}
    names = _endpoint_names([f"tensor_{t.name}" if t.name in taken else t.name for t in tensors])
    return [
        ModelInput(name, t.name, tuple(t.shape), keras.backend.standardize_dtype(t.dtype), signature[t.name].key)
        for name, t in zip(names, tensors, strict=True)
    ]


def output_names(model: keras.Model) -> list[str]:
    """Names of the flattened outputs: the key in a dictionary of outputs, else the layer that gives it."""
    import keras

    paths = [path for path, _ in keras.tree.flatten_with_path(model.output)]
    keys = [[part for part in path if isinstance(part, str)] for path in paths]
    return _endpoint_names([k[-1] if k else layer for k, layer in zip(keys, model.output_names, strict=True)])


def _endpoint_names(names: Sequence[str]) -> list[str]:
    """The names as TensorFlow allows them in a signature: unique, of letters, digits and underscores."""
    endpoint_names: list[str] = []
    for name in names:
        clean = re.sub(r"\W", "_", name, flags=re.ASCII)
        clean = clean if clean[:1].isalpha() else f"tensor_{clean.lstrip('_')}"
        count = 1
        unique = clean
        while unique in endpoint_names:
            unique = f"{clean}_{count}"
            count += 1
        endpoint_names.append(unique)
    return endpoint_names


def free_axes(inputs: Sequence[ModelInput], arrays: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """The different lengths of the free axes other than the batch, in order."""
    lengths = {
        length
        for i in inputs
        for size, length in zip(i.shape[1:], arrays[i.name].shape[1:], strict=True)
        if size is None
    }
    return tuple(sorted(lengths))

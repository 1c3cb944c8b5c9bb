"""What a model takes, and the one rule by which arrays with names are given to its inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from kcost.core.errors import InputError


class InputSpec(NamedTuple):
    """One input of a model."""

    shape: tuple[int | None, ...]
    """The batch axis first; None where an axis is free."""
    dtype: str
    key: str | None = None
    """What the model's dictionary of inputs calls it; None where the inputs are no dictionary."""

    @property
    def free_axes(self) -> tuple[int, ...]:
        """The free axes other than the batch."""
        return tuple(axis for axis, size in enumerate(self.shape) if axis and size is None)

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join('any' if size is None else str(size) for size in self.shape)})"


Signature = Mapping[str, InputSpec]
"""Of a model: the name of each input, as its `keras.Input` has it, in the order of the flattened inputs."""


def input_structure(model: Any) -> Any:
    """What `signature_of_structure` takes, of a Keras model; None of one that names no inputs."""
    inputs = getattr(model, "inputs", None)
    structure = getattr(model, "input", None)
    if not inputs:
        return structure
    # Of a Sequential model, `input` is missing or that of the model that it was put into.
    if structure is None or set(signature_of_structure(structure)) != {tensor.name for tensor in inputs}:
        return inputs[0] if len(inputs) == 1 else list(inputs)
    return structure


def signature_of_structure(structure: Any) -> dict[str, InputSpec]:
    """The signature of a model whose `input` is a tensor with name, shape and dtype, or lists and dictionaries of them.

    A dictionary is read in the order of its keys, as Keras flattens it.
    """
    return {
        tensor.name: InputSpec(tuple(tensor.shape), str(tensor.dtype), key) for key, tensor in _leaves(structure, None)
    }


def _leaves(node: Any, key: str | None) -> Iterator[tuple[str | None, Any]]:
    if isinstance(node, Mapping):
        for name in sorted(node):
            yield from _leaves(node[name], str(name))
    elif isinstance(node, list | tuple):
        for part in node:
            yield from _leaves(part, None)
    else:
        yield key, node


def in_structure(structure: Any, arrays: Mapping[str, Any]) -> Any:
    """The arrays in the place of the tensors that they are for.

    Args:
        structure: as `signature_of_structure` takes it.
        arrays: by the names of the inputs, or all by the keys of the dictionary; one alone is for an only input.

    Raises:
        InputError: an input has no array.
    """
    signature = signature_of_structure(structure)
    if len(signature) == len(arrays) == 1:
        ways = [dict(zip(signature, arrays, strict=True))]
    else:
        ways = _named_ways(arrays, signature)
    if not ways:
        raise _other_names(arrays, signature, "", "Give an array for each input of the model, by its name.")
    return _filled(structure, {name: arrays[given] for name, given in ways[0].items()})


def _filled(node: Any, arrays: Mapping[str, Any]) -> Any:
    if isinstance(node, Mapping):
        return {key: _filled(part, arrays) for key, part in node.items()}
    if isinstance(node, list | tuple):
        return [_filled(part, arrays) for part in node]
    return arrays[node.name]


def match_inputs(
    arrays: Mapping[str, np.ndarray], signature: Signature, *, source: str, remedy: str
) -> dict[str, np.ndarray]:
    """The array of each input, by the input's name and in its dtype.

    Arrays are matched by the names of the inputs, or by the keys of the dictionary that the model takes. Where no array
    bears such a name, there are as many as inputs, and they are matched by order if they have numpy's own names (arr_0,
    arr_1, ...), else in the one way in which shapes and kinds of numbers fit. Arrays that named inputs leave over are
    passed over.

    Numbers become those of the input's dtype where nothing but precision may be lost: uint8 becomes float32, and so
    does float64; no float becomes a whole number, and no whole number one that the dtype cannot hold.

    Args:
        arrays: with the batch axis first.
        signature: of the model.
        source: where the arrays are from, for messages.
        remedy: what to do, for messages.

    Raises:
        InputError: an input has no array, or one that does not fit; or there is more than one way.
    """
    ways = _named_ways(arrays, signature)
    if not ways and len(arrays) == len(signature):
        ways = _unnamed_ways(arrays, signature)
    if not ways:
        raise _other_names(arrays, signature, source, remedy)
    fitting = [way for way in ways if all(_fits(arrays[given], signature[name]) for name, given in way.items())]
    if len(fitting) > 1:
        described = "; or ".join(", ".join(f"{given} for {name}" for name, given in way.items()) for way in fitting[:2])
        raise InputError(
            "Each array is for one input of the model.",
            received=f"{source}, whose arrays fit in more than one way: {described}",
            remedy=f"Name the arrays as the inputs are named: {', '.join(signature)}. {remedy}",
        )
    way = (fitting or ways)[0]
    matched = {}
    for name, given in way.items():
        if not _fits(arrays[given], signature[name]):
            called = name if given == name else f"{given} for {name}"
            raise InputError(
                "An array has the shape of its input, but for the number of rows, and its kind of numbers.",
                received=f"{source}: {called} {arrays[given].dtype} {arrays[given].shape}, "
                f"where the model wants {name} {signature[name]}",
                remedy=remedy,
            )
        cast = _cast(arrays[given], signature[name].dtype)
        assert cast is not None  # it fits
        matched[name] = cast
    return matched


def _named_ways(given: Collection[str], signature: Signature) -> list[dict[str, str]]:
    """Input name -> array name: by the inputs' own names, and by the keys of the dictionary, where all are there."""
    own = {name: name for name in signature}
    keys = {name: spec.key or name for name, spec in signature.items()}
    complete = [way for way in (own, keys) if all(name in given for name in way.values())]
    return complete[:1] if own == keys else complete


def _unnamed_ways(arrays: Mapping[str, np.ndarray], signature: Signature) -> list[dict[str, str]]:
    """The same for as many arrays as inputs, none of which has the name of one: by order, or as they fit."""
    known = {*signature, *(spec.key for spec in signature.values())}
    if known & set(arrays):
        return []
    if len(signature) == 1:
        return [dict(zip(signature, arrays, strict=True))]
    numbered = [f"arr_{number}" for number in range(len(arrays))]
    if set(numbered) == set(arrays):
        return [dict(zip(signature, numbered, strict=True))]
    fits = {n: [given for given, array in arrays.items() if _fits(array, spec)] for n, spec in signature.items()}
    ways: list[dict[str, str]] = []

    def choose(names: list[str], way: dict[str, str]) -> None:
        if len(ways) > 1:
            return
        if not names:
            ways.append(way)
            return
        for given in fits[names[0]]:
            if given not in way.values():
                choose(names[1:], {**way, names[0]: given})

    choose(sorted(signature, key=lambda name: len(fits[name])), {})
    return [{name: way[name] for name in signature} for way in ways]


def _other_names(given: Collection[str], signature: Signature, source: str, remedy: str) -> InputError:
    missing = [
        f"{name} {spec}" + (f" (or {spec.key})" if spec.key not in (None, name) else "")
        for name, spec in signature.items()
        if name not in given and spec.key not in given
    ]
    inputs = ", ".join(signature)
    without = f"and without {', '.join(missing)}" if missing else f"where the inputs are {inputs}"
    return InputError(
        "There is an array for each input of the model, by its name.",
        received=f"{source + ' ' if source else ''}with {', '.join(sorted(given)) or 'none'}, {without}",
        remedy=remedy,
    )


def _fits(array: np.ndarray, spec: InputSpec) -> bool:
    return (
        array.ndim == len(spec.shape)
        and all(w in (None, s) for w, s in zip(spec.shape[1:], array.shape[1:], strict=True))
        and _cast(array, spec.dtype) is not None
    )


def _cast(array: np.ndarray, dtype: str) -> np.ndarray | None:
    """The array in the dtype of an input; None where more than precision would be lost."""
    kind = array.dtype.kind
    if dtype == "string":
        return array if kind in "US" else None
    # numpy has no bfloat16: an input of that dtype takes float32 and casts by itself.
    wanted = np.dtype("float32" if dtype == "bfloat16" else dtype)
    if wanted.kind in "biu" and kind in "biu":
        least, most = (0, 1) if wanted.kind == "b" else (np.iinfo(wanted).min, np.iinfo(wanted).max)
        within = array.size == 0 or (int(array.min()) >= least and int(array.max()) <= most)
    else:
        within = kind in "biufc" and np.can_cast(array.dtype, wanted, "same_kind")
    return array.astype(wanted, copy=False) if within else None

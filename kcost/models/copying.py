"""Copies of layers and models: made again from what Keras itself saves of them.

That is the config, and each layer's own state as `save_own_variables` and `save_assets` give it. Assigning variables
one by one would miss what a layer derives from them when it is loaded (the mean of a Normalization), what it keeps in
files (the vocabulary of a StringLookup) and the seeds of random layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import ml_dtypes  # Keras's own small floats
import numpy as np
from keras.saving import deserialize_keras_object, serialize_keras_object

from kcost.core.errors import in_a_line
from kcost.models.keras_private import (
    initializers_replaced,
    is_random,
    is_saveable,
    is_unseeded,
    layers_of,
    own_seed_generators,
    own_variables,
    saved_attributes,
)

Pair = tuple[str, keras.layers.Layer, keras.layers.Layer]
"""Path, layer, and its copy."""

Config = dict[str, Any]


class StateError(Exception):
    """What a layer keeps could not be brought into another one.

    Args:
        path: of the layer, `/` between levels.
        reason: what is wrong, in a line.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"the layer {path!r}: {reason}")


def copy_of_layer(layer: Any, change: Callable[[Config], Config] = lambda config: config) -> Any:
    """A built layer or model made again from its config, with its state; uncompiled, sharing nothing.

    Args:
        layer: built; it is not changed.
        change: gives the config that the copy is made from; weights keep their shapes.

    Raises:
        StateError: the config doesn't describe the layer, or its state doesn't fit the copy.
    """
    with without_initializers() as unset:
        copied = from_config(layer, change)
        carry_state(layer, copied)
        refuse_unset(unset, copied)
    return copied


def from_config(layer: Any, change: Callable[[Config], Config] = lambda config: config) -> Any:
    """A layer or model made again from its config, without its state. Its own classes need not be registered.

    Raises:
        StateError: the config doesn't describe it.
    """
    own = [type(part) for part in layers_of(layer) if not _is_of_keras(type(part).__module__)]
    classes = {kind.__name__: kind for kind in own}
    classes |= {_unique_name(kind.__module__, kind.__name__): kind for kind in own}
    with layers_that_raise() as raised:
        try:
            with _uncompiled(layer):
                config = serialize_keras_object(layer)
            return deserialize_keras_object(_unique_names(change(config), classes), custom_objects=classes)
        except MemoryError:
            raise
        except Exception as error:  # whatever a layer of somebody's own raises
            raise StateError(raised[0] if raised else layer.name, in_a_line(error)) from error


def _unique_names(node: Any, classes: Mapping[str, type]) -> Any:
    """A config in which a class of somebody's own, and one of Keras's with the same name, are told apart.

    Keras looks up a class that is not registered by its bare name: `Add` is a layer, an operation, and perhaps a class
    of the user's.
    """
    if isinstance(node, list | tuple):
        return type(node)(_unique_names(value, classes) for value in node)
    if not isinstance(node, dict):
        return node
    node = {key: _unique_names(value, classes) for key, value in node.items()}
    module, name = node.get("module"), node.get("class_name")
    if isinstance(module, str) and isinstance(name, str) and node.get("registered_name") == name:
        if _is_of_keras(module):
            node["registered_name"] = None
        elif (unique := _unique_name(module, name)) in classes:
            node["registered_name"] = unique
    return node


def _unique_name(module: str, name: str) -> str:
    return f"{module}>{name}"


def _is_of_keras(module: str) -> bool:
    return module.partition(".")[0] == "keras"


@contextmanager
def layers_that_raise() -> Iterator[list[str]]:
    """Writes down the paths of layers whose calls raise, on values or while a graph is made; inner ones come first."""
    raised: list[str] = []
    kind = keras.layers.Layer
    usual = kind.__call__

    def called(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        try:
            return usual(layer, *args, **kwargs)
        except Exception:
            raised.append(layer.path or layer.name)
            raise

    kind.__call__ = called
    try:
        yield raised
    finally:
        kind.__call__ = usual


@contextmanager
def _uncompiled(layer: keras.layers.Layer) -> Iterator[None]:
    """Configs without loss and optimizer, which need not have one."""
    models = [part for part in layers_of(layer) if isinstance(part, keras.Model)]
    try:
        for model in models:
            model.get_compile_config = dict  # shadows the method of the class; no setting at all
        yield
    finally:
        for model in models:
            vars(model).pop("get_compile_config", None)


def carry_state(old: keras.layers.Layer, new: keras.layers.Layer, path: str | None = None) -> list[Pair]:
    """Brings what Keras would save of a layer, and of all that it holds, into a layer of the same structure.

    Low-rank updates are merged, as in a file. Numbers may change their precision, never their kind.

    Returns:
        Each layer of `old` with its counterpart, outer ones first.

    Raises:
        StateError: state is of other shapes, or there is none for a variable of `new`.
    """
    walk = _Walk(_carry_own)
    walk.visit(old, new, path or old.name)
    walk.refuse_left(new)
    return walk.pairs


def pairs_of(old: keras.layers.Layer, new: keras.layers.Layer) -> list[Pair]:
    """Each layer that one of two alike models holds, and its counterpart in the other; outer ones first."""
    walk = _Walk(lambda old, new, path: None)
    walk.visit(old, new, "")
    return walk.pairs


class _Walk:
    """Through two layers at once, as Keras walks one when it saves it."""

    def __init__(self, act: Callable[[Any, Any, str], None]) -> None:
        self.act = act
        self.pairs: list[Pair] = []
        self.seen: set[tuple[int, int]] = set()
        self.filled: set[int] = set()

    def visit(self, old: Any, new: Any, path: str) -> None:
        if (id(old), id(new)) in self.seen:
            return
        self.seen.add((id(old), id(new)))
        self.filled.add(id(new))
        if isinstance(old, keras.layers.Layer) and isinstance(new, keras.layers.Layer):
            self.pairs.append((path, old, new))
        try:
            self.act(old, new, path)
        except (StateError, MemoryError):
            raise
        except Exception as error:  # whatever a layer of somebody's own raises
            raise StateError(path, in_a_line(error)) from error
        theirs = saved_attributes(new)
        for name, child in saved_attributes(old).items():
            self.below(child, theirs.get(name), path)

    def below(self, old: Any, new: Any, path: str) -> None:
        """What an attribute holds, or a place in a list or dict."""
        if is_saveable(old):
            if is_saveable(new):
                self.visit(old, new, _inner(path, old))
        elif isinstance(old, list | tuple | dict) and isinstance(new, list | tuple | dict):
            if (id(old), id(new)) in self.seen:
                return
            self.seen.add((id(old), id(new)))
            ours, theirs = (list(x.values()) if isinstance(x, dict) else list(x) for x in (old, new))
            for a, b in zip(ours, theirs, strict=False):  # other lengths: `refuse_left` tells if a layer was missed
                self.below(a, b, path)

    def refuse_left(self, new: keras.layers.Layer) -> None:
        for layer in layers_of(new):
            if id(layer) not in self.filled and own_variables(layer):
                raise StateError(layer.path or layer.name, "it has no counterpart in the model it is copied from")


def _inner(path: str, child: Any) -> str:
    if not isinstance(child, keras.layers.Layer):
        return path
    return f"{path}/{child.name}" if path else str(child.name)


def _carry_own(old: Any, new: Any, path: str) -> None:
    if hasattr(old, "save_own_variables") and hasattr(new, "load_own_variables"):
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        before = {id(v): str(v.dtype) for v in own_variables(new)} if isinstance(new, keras.layers.Layer) else {}
        new.load_own_variables({name: _on_host(value) for name, value in store.items()})
        if isinstance(new, keras.layers.Layer) and isinstance(old, keras.layers.Layer):
            _refuse_other_kinds(old, new, before, path)
    for ours, theirs in zip(own_seed_generators(old), own_seed_generators(new), strict=True):
        theirs.state.assign(ours.state)  # Keras saves no seeds; a copy draws what the original would
    if hasattr(old, "save_assets") and hasattr(new, "load_assets"):
        with tempfile.TemporaryDirectory(prefix="kcost-assets-") as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _refuse_other_kinds(old: Any, new: Any, before: Mapping[int, str], path: str) -> None:
    """A wrapper may make its state of the kind of an inner kernel: floats do not go into integers."""
    ours, theirs = own_variables(old), own_variables(new)
    if len(ours) != len(theirs):
        return  # merged updates, say: the layer's own loading has judged it
    for a, b in zip(ours, theirs, strict=True):
        if keras.backend.is_float_dtype(a.dtype) != keras.backend.is_float_dtype(before.get(id(b), b.dtype)):
            raise StateError(path, f"its variable {a.name!r} of {a.dtype} would become {b.dtype}")


def _on_host(value: Any) -> Any:
    """A copy of a variable or tensor as numpy, as a file would hold it."""
    if isinstance(value, keras.Variable) or keras.ops.is_tensor(value):
        return np.array(keras.ops.convert_to_numpy(value), copy=True)
    return np.array(value, copy=True)


class Unset:
    """Variables that were made without their initializer, and which of them have had a value since."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}
        self.assigned: set[int] = set()

    def of(self, model: keras.layers.Layer) -> list[str]:
        """Paths of the variables of a model that have no value yet."""
        return [v.path for v in model.variables if id(v) in self.made and id(v) not in self.assigned]


def refuse_unset(unset: Unset, model: keras.layers.Layer) -> None:
    """Refuses a model with a variable that nothing was assigned to.

    Raises:
        StateError: naming the variable.
    """
    left = unset.of(model)
    if left:
        more = f", and for {len(left) - 1} more" if len(left) > 1 else ""
        layer = left[0].rpartition("/")[0] or model.name
        raise StateError(layer, f"there is no value for its variable {left[0]}{more}")


@contextmanager
def without_initializers() -> Iterator[Unset]:
    """Variables made inside begin as zeros in place of random numbers, since all of them are given values after.

    Random initializers cost seconds where each shape is compiled, and some have no form in a small float type. Seeded
    ones run, in float32: a layer may derive something from what it knows to come. Ones and constants are made by numpy.
    """
    unset = Unset()
    kind = keras.Variable
    assign = kind.assign

    def cheap(variable: Any, initializer: Any) -> Any:
        if is_unseeded(initializer):
            unset.made[id(variable)] = variable
        return _without_random(initializer)

    def assigned(variable: Any, value: Any) -> Any:
        unset.assigned.add(id(variable))
        return assign(variable, value)

    kind.assign = assigned
    try:
        with initializers_replaced(cheap):
            yield unset
    finally:
        kind.assign = assign


def _without_random(initializer: Any) -> Any:
    """An initializer that needs no compiled program and no random numbers that nobody can foresee."""
    if is_random(initializer):
        if is_unseeded(initializer):
            return lambda shape, dtype=None: _full(shape, 0, dtype)
        return lambda shape, dtype=None: keras.ops.cast(initializer(shape, dtype="float32"), dtype or "float32")
    if type(initializer) is keras.initializers.Zeros:
        return lambda shape, dtype=None: _full(shape, 0, dtype)
    if type(initializer) is keras.initializers.Ones:
        return lambda shape, dtype=None: _full(shape, 1, dtype)
    return initializer


def _full(shape: Any, value: int, dtype: str | None) -> Any:
    name = keras.backend.standardize_dtype(dtype or keras.config.floatx())
    small = getattr(ml_dtypes, name, None)
    return keras.ops.convert_to_tensor(np.full(tuple(shape), value, small or name), dtype=name)

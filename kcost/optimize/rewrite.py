"""A model with some of its layers replaced, whatever way the model was made.

- Functional and Sequential models, nested ones too: the graph is made again with new layers.
- A layer that makes its sublayers itself (MultiHeadAttention, TransformerEncoder, a subclassed model): it is made again
  from its config, wrapped (RewrittenLayer, RewrittenModel), and the replacements are put into its attributes. The
  wrapper's config names each place, so that the same happens when a file is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras.saving import deserialize_keras_object, register_keras_serializable, serialize_keras_object

from kcost.core.errors import InputError, in_a_line
from kcost.models.copying import (
    StateError,
    carry_state,
    copy_of_layer,
    from_config,
    refuse_unset,
    without_initializers,
)
from kcost.models.keras_private import first_call, is_bookkeeping, renew_torch_parameters, replace_inner_layer
from kcost.optimize.guard import Border, Loss, Rewrite, check

Replace = Callable[[keras.layers.Layer, str], keras.layers.Layer | None]
"""(layer, path) -> a built layer to stand in its place, or None to look at its sublayers, if any, and else keep it.

An `Absorbed` layer takes the layer out: allowed for one of one input in a functional or Sequential model.
"""

Refused = Callable[[keras.layers.Layer, str, str], None]
"""(layer, path, reason): called for a layer whose sublayers can't be replaced; it is copied as it is."""

Place = tuple[str | int, ...]
"""The way from a layer to a sublayer: attributes, and keys of the lists and dicts that they hold."""


class Absorbed(keras.layers.Layer):  # type: ignore[misc]  # Keras is not read by the type checker
    """Says that another layer does the work of this one: it is in no model that was rewritten."""

    def __init__(self, into: str, **kwargs: Any) -> None:
        """`into` is the path of the layer that does the work, which stands before this one."""
        super().__init__(**kwargs)
        self.into = into


def rewrite(
    model: keras.Model,
    replace: Replace,
    refused: Refused | None = None,
    *,
    rows: Mapping[str, np.ndarray] | None = None,
    loss: Loss = 1e-3,
) -> keras.Model:
    """As `made_again`, then held against the given model on a few rows (see `guard.check`).

    Args:
        rows: inputs by name, examples on axis 0; made up where None.
        loss: what a replacement may be off by, relative to the outputs of the layer that it replaces.

    Raises:
        InputError: as `made_again` says.
        UnavailableError: the new model does not give the outputs of the old one; the layer to blame is named.
    """
    done = made_again(model, replace, refused)
    check(done, rows, loss)
    return done.model


def made_again(model: keras.Model, replace: Replace, refused: Refused | None = None) -> Rewrite:
    """A new, uncompiled model with some layers replaced, and the state of `model` in the others.

    The given model is not changed and shares no variable with the new one. A layer that stands in several places is
    asked for once and stays shared. Paths are names of layers with `/` between levels.

    Raises:
        InputError: the model was not built, or a layer can't be copied because its config doesn't describe it.
    """
    if not model.built:
        raise InputError("A model is rewritten once it is built.", model.name, "Call it on inputs once.")
    rewriter = _Rewriter(replace, refused or (lambda layer, path, reason: None))
    try:
        with without_initializers() as unset:
            new = rewriter.model(model) if _is_graph(model) else rewriter.layer(model, "")
            new = new or rewriter.copy(model, model.name)
            rewriter.carry_state()
            refuse_unset(unset, new)
    except StateError as error:
        raise _not_copied(error) from error
    done = Rewrite(model, new, rewriter.borders, rewriter.holders)
    done.holders[""] = Border("", model, new, model)
    return done


def copy_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A built layer made again from its config, with its state.

    Raises:
        InputError: its config doesn't describe it.
    """
    try:
        return copy_of_layer(layer)
    except StateError as error:
        raise _not_copied(error) from error


def sublayers(layer: keras.layers.Layer) -> Iterator[tuple[Place, keras.layers.Layer]]:
    """The layers that a layer holds in its attributes, or in lists and dicts there, each with its place."""
    kind = keras.Model if isinstance(layer, keras.Model) else keras.layers.Layer
    known = set(dir(kind))
    for name in dir(layer):
        if name in known or is_bookkeeping(name) or isinstance(getattr(type(layer), name, None), property):
            continue
        value = getattr(layer, name, None)
        if isinstance(value, keras.layers.Layer):
            yield (name,), value
        elif isinstance(value, list | dict):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            yield from (((name, key), item) for key, item in items if isinstance(item, keras.layers.Layer))


class _Rewriter:
    def __init__(self, replace: Replace, refused: Refused) -> None:
        self.replace = replace
        self.refused = refused
        self.new: dict[int, keras.layers.Layer | None] = {}
        self.copies: list[tuple[keras.layers.Layer, keras.layers.Layer, str]] = []
        self.borders: dict[str, Border] = {}
        self.holders: dict[str, Border] = {}

    def model(self, model: keras.Model, path: str = "") -> keras.Model:
        """A Functional or Sequential model made again."""
        inside = f"{path}/" if path else ""
        if isinstance(model, keras.Sequential):
            given = model.inputs[0]
            first = keras.Input(batch_shape=given.shape, dtype=given.dtype, name=given.name)
            layers = [self.layer(x, inside + x.name) or self.copy(x, inside + x.name) for x in model.layers]
            kept = [layer for layer in layers if not isinstance(layer, Absorbed)]
            return keras.Sequential([first, *kept], name=model.name)

        def made_again(operation: Any) -> Any:
            if not isinstance(operation, keras.layers.Layer):
                return type(operation).from_config(operation.get_config())
            inner = inside + operation.name
            return self.layer(operation, inner) or self.copy(operation, inner)

        # The same graph as a plain model: cloning would bring a subclass's compiled state along.
        plain = keras.Model(model.input, model.output, name=model.name)
        return keras.models.clone_model(plain, clone_function=made_again, call_function=_called)

    def layer(self, layer: keras.layers.Layer, path: str) -> keras.layers.Layer | None:
        """What stands in the place of a layer; None if nothing in it changes."""
        if id(layer) not in self.new:
            new = self.replaced(layer, path) if path else None
            self.new[id(layer)] = new if new is not None else self.inside(layer, path)
        return self.new[id(layer)]

    def replaced(self, layer: keras.layers.Layer, path: str) -> keras.layers.Layer | None:
        """What stands in the place of a layer as a whole; None to look into it."""
        new = self.replace(layer, path)
        if isinstance(new, Absorbed):
            self.borders[new.into].last = layer
        elif new is not None:
            self.borders[path] = Border(path, layer, new, layer)
        return new

    def inside(self, layer: keras.layers.Layer, path: str) -> keras.layers.Layer | None:
        """A layer with some of its sublayers replaced; None if none is."""
        if _is_graph(layer):
            new = self.model(layer, path)
            self.holders[path] = Border(path, layer, new, layer)
            return new
        replacements = self.replacements(layer, path, frozenset())
        if not replacements:
            return None
        try:
            copied = from_config(layer)
            carry_state(layer, copied, path or layer.name)
            wrapper = RewrittenModel if isinstance(layer, keras.Model) else RewrittenLayer
            new = wrapper(copied, [{"place": list(place), "layer": new} for place, new in replacements])
            if (call := first_call(layer)) is not None:
                # Traced once, to see that the layer does nothing with its sublayers but call them.
                new.compute_output_spec(*call[0], **call[1])
            copy_of_layer(new)  # as it will be saved and loaded: a wrapper may make its state from an inner kernel
        except MemoryError:
            raise
        except Exception as error:  # whatever a layer of somebody's own raises
            reason = error.reason if isinstance(error, StateError) else in_a_line(error)
            self.refused(layer, path, f"its sublayers cannot be replaced: {reason}")
            self.borders = {p: border for p, border in self.borders.items() if path and not p.startswith(f"{path}/")}
            return None
        self.holders[path] = Border(path, layer, new, layer)
        return new

    def replacements(
        self, layer: keras.layers.Layer, path: str, above: frozenset[int]
    ) -> list[tuple[Place, keras.layers.Layer]]:
        """Places below a layer, and what is to stand there."""
        places: list[tuple[Place, keras.layers.Layer]] = []
        above = above | {id(layer)}
        for place, child in sublayers(layer):
            if id(child) in above or not child.built:
                continue
            inner = f"{path}/{child.name}" if path else child.name
            if id(child) not in self.new:
                self.new[id(child)] = self.replaced(child, inner)
                if self.new[id(child)] is None and _is_graph(child):
                    self.new[id(child)] = self.inside(child, inner)
            new = self.new[id(child)]
            if new is not None:
                places.append((place, new))
            else:
                places.extend(((*place, *rest), new) for rest, new in self.replacements(child, inner, above))
        return places

    def copy(self, layer: keras.layers.Layer, path: str) -> keras.layers.Layer:
        """A layer with the same config; `carry_state` brings its state, once it is built."""
        copied = from_config(layer)
        self.copies.append((layer, copied, path))
        return copied

    def carry_state(self) -> None:
        """Gives each copy the state of its original."""
        for old, new, path in self.copies:
            carry_state(old, new, path)
        self.copies = []


class _Rewritten:
    """A layer that calls another one, some of whose sublayers are replaced."""

    layer: keras.layers.Layer
    replacements: list[dict[str, Any]]

    def __init__(self, layer: keras.layers.Layer, replacements: Sequence[dict[str, Any]]) -> None:
        # Keras reads from the signature of `call` which arguments (training, mask, others) to pass on.
        @functools.wraps(layer.call)
        def call(*args: Any, **kwargs: Any) -> Any:
            return layer(*args, **kwargs)

        self.call = call
        super().__init__(name=layer.name, dtype=layer.dtype_policy)  # type: ignore[call-arg]  # Layer's or Model's
        for entry in replacements:
            _put(layer, entry["place"], entry["layer"])
        self.layer = layer
        self.places = [list(entry["place"]) for entry in replacements]
        self.supports_masking = layer.supports_masking
        self.built = True

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        # Keras else calls the layer to see what it gives, on PyTorch with 83 rows of 83: a recurrence took minutes.
        kind, base = type(self.layer), keras.layers.Layer
        says_it = kind.compute_output_spec is not base.compute_output_spec
        if says_it or kind.compute_output_shape is not base.compute_output_shape:
            return self.layer.compute_output_spec(*args, **kwargs)
        return super().compute_output_spec(*args, **kwargs)  # type: ignore[misc]  # Layer's or Model's

    def get_config(self) -> dict[str, Any]:
        parts = [{"place": place, "layer": serialize_keras_object(_at(self.layer, place))} for place in self.places]
        return {"layer": serialize_keras_object(self.layer), "replacements": parts}

    def get_build_config(self) -> None:
        return None  # the layers in the config are built already

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        parts = [{**part, "layer": deserialize_keras_object(part["layer"])} for part in config["replacements"]]
        return cls(deserialize_keras_object(config["layer"]), parts)


@register_keras_serializable(package="kcost")
class RewrittenLayer(_Rewritten, keras.layers.Layer):  # type: ignore[misc]  # Keras is not read by the type checker
    """A layer some of whose sublayers are replaced. Called as the layer itself.

    Args:
        layer: the built layer; its sublayers are replaced.
        replacements: `place` (a Place as a list) and `layer`, the built layer to stand there.
    """


@register_keras_serializable(package="kcost")
class RewrittenModel(_Rewritten, keras.Model):  # type: ignore[misc]  # Keras is not read by the type checker
    """A subclassed model some of whose layers are replaced; arguments as of RewrittenLayer."""


def _is_graph(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.Sequential | keras.Function)


def _called(layer: Any, *args: Any, **kwargs: Any) -> Any:
    return args[0] if isinstance(layer, Absorbed) else layer(*args, **kwargs)


def _at(layer: Any, place: Sequence[str | int]) -> Any:
    for key in place:
        layer = getattr(layer, str(key)) if isinstance(layer, keras.layers.Layer) else layer[key]
    return layer


def _put(root: keras.layers.Layer, place: Sequence[str | int], new: keras.layers.Layer) -> None:
    """Puts a layer into a place below a built layer, and out of Keras's books the one that stood there."""
    old = _at(root, place)
    owners = [layer for i in range(len(place)) if isinstance(layer := _at(root, place[:i]), keras.layers.Layer)]
    owner, holder = owners[-1], _at(root, place[:-1])
    replace_inner_layer(owner, old, new)
    if holder is owner:
        setattr(owner, str(place[-1]), new)
    else:
        holder[place[-1]] = new
    for layer in owners:
        renew_torch_parameters(layer)


def _not_copied(error: StateError) -> InputError:
    return InputError(
        "A model is changed by making it again from its config.",
        received=f"the layer {error.path}: {error.reason}",
        remedy="Give the layer's class get_config and from_config, or use a functional model of Keras's own layers.",
    )

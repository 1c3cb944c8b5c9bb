"""A model with some of its layers replaced, whatever way the model was made.

- Functional and Sequential models, nested ones too: the graph is made again with new layers.
- A layer that makes its sublayers itself (MultiHeadAttention, TransformerEncoder, a subclassed model): it is made again
  from its config, wrapped (RewrittenLayer, RewrittenModel), and the replacements are put into its attributes. The
  wrapper's config names each place, so that the same happens when a file is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import keras
from keras.saving import deserialize_keras_object, register_keras_serializable, serialize_keras_object

from kcost.core.errors import InputError

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


def rewrite(model: keras.Model, replace: Replace, refused: Refused | None = None) -> keras.Model:
    """A new, uncompiled model with some layers replaced, and the weights of `model` in the others.

    The given model is not changed and shares no variable with the new one. A layer that stands in several places is
    asked for once and stays shared. Paths are names of layers with `/` between levels.

    Raises:
        InputError: the model was not built, or a layer can't be copied because its config doesn't describe it.
    """
    if not model.built:
        raise InputError("A model is rewritten once it is built.", model.name, "Call it on inputs once.")
    rewriter = _Rewriter(replace, refused or (lambda layer, path, reason: None))
    new = rewriter.model(model) if _is_graph(model) else rewriter.layer(model, "") or rewriter.copy(model, model.name)
    rewriter.carry_weights()
    return new


def copy_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A built layer made again from its config, with its weights.

    Raises:
        InputError: its config doesn't describe it.
    """
    new = _from_config(layer, layer.name)
    _carry(layer, new, layer.name)
    return new


def sublayers(layer: keras.layers.Layer) -> Iterator[tuple[Place, keras.layers.Layer]]:
    """The layers that a layer holds in its attributes, or in lists and dicts there, each with its place."""
    kind = keras.Model if isinstance(layer, keras.Model) else keras.layers.Layer
    known = set(dir(kind))
    for name in dir(layer):
        if name in known or name.startswith(_BOOKKEEPING) or isinstance(getattr(type(layer), name, None), property):
            continue
        value = getattr(layer, name, None)
        if isinstance(value, keras.layers.Layer):
            yield (name,), value
        elif isinstance(value, list | dict):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            yield from (((name, key), item) for key, item in items if isinstance(item, keras.layers.Layer))


_BOOKKEEPING = ("_layers", "_modules", "_metrics", "_functional", "_tracker", "_self_unconditional_", "_self_tracked_")
"""How attributes begin in which Keras, torch or TensorFlow keeps sublayers a second time, each on its own backend."""


class _Rewriter:
    def __init__(self, replace: Replace, refused: Refused) -> None:
        self.replace = replace
        self.refused = refused
        self.new: dict[int, keras.layers.Layer | None] = {}
        self.copies: list[tuple[keras.layers.Layer, keras.layers.Layer, str]] = []

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
            new = self.replace(layer, path) if path else None
            self.new[id(layer)] = new if new is not None else self.inside(layer, path)
        return self.new[id(layer)]

    def inside(self, layer: keras.layers.Layer, path: str) -> keras.layers.Layer | None:
        """A layer with some of its sublayers replaced; None if none is."""
        if _is_graph(layer):
            return self.model(layer, path)
        replacements = self.replacements(layer, path, frozenset())
        if not replacements:
            return None
        try:
            copied = self.copy(layer, path)
            self.carry_weights()
            wrapper = RewrittenModel if isinstance(layer, keras.Model) else RewrittenLayer
            new = wrapper(copied, [{"place": list(place), "layer": new} for place, new in replacements])
            for node in layer._inbound_nodes[:1]:
                # Traced once, to see that the layer does nothing with its sublayers but call them.
                new.compute_output_spec(*node.arguments.args, **node.arguments.kwargs)
        except Exception as error:  # whatever a layer of somebody's own raises
            self.refused(layer, path, f"its sublayers cannot be replaced: {_first_line(error)}")
            self.copies = [entry for entry in self.copies if entry[0] is not layer]
            return None
        return new

    def replacements(
        self, layer: keras.layers.Layer, path: str, above: frozenset[int]
    ) -> list[tuple[Place, keras.layers.Layer]]:
        """Places below a layer, and what is to stand there."""
        found: list[tuple[Place, keras.layers.Layer]] = []
        above = above | {id(layer)}
        for place, child in sublayers(layer):
            if id(child) in above or not child.built:
                continue
            inner = f"{path}/{child.name}" if path else child.name
            if id(child) not in self.new:
                self.new[id(child)] = self.replace(child, inner)
                if self.new[id(child)] is None and _is_graph(child):
                    self.new[id(child)] = self.model(child, inner)
            new = self.new[id(child)]
            if new is not None:
                found.append((place, new))
            else:
                found.extend(((*place, *rest), new) for rest, new in self.replacements(child, inner, above))
        return found

    def copy(self, layer: keras.layers.Layer, path: str) -> keras.layers.Layer:
        """A layer with the same config; `carry_weights` brings the weights, once it is built."""
        copied = _from_config(layer, path)
        self.copies.append((layer, copied, path))
        return copied

    def carry_weights(self) -> None:
        """Gives each copy the values of its original."""
        for old, new, path in self.copies:
            _carry(old, new, path)
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
    return isinstance(layer, keras.Sequential) or (isinstance(layer, keras.Model) and hasattr(layer, "_inputs_struct"))


def _called(layer: Any, *args: Any, **kwargs: Any) -> Any:
    return args[0] if isinstance(layer, Absorbed) else layer(*args, **kwargs)


def _from_config(layer: keras.layers.Layer, path: str) -> keras.layers.Layer:
    classes = {type(part).__name__: type(part) for part in layer._flatten_layers()}
    try:
        return deserialize_keras_object(serialize_keras_object(layer), custom_objects=classes)
    except Exception as error:  # whatever a layer of somebody's own raises
        raise _not_copied(path, _first_line(error)) from error


def _carry(old: keras.layers.Layer, new: keras.layers.Layer, path: str) -> None:
    """Assigns the values of a layer's variables to those of its copy."""
    before, after = ([tuple(v.shape) for v in layer.variables] for layer in (old, new))
    if before != after:
        raise _not_copied(path, f"{len(after)} variables after rebuilding, {len(before)} before, or other shapes")
    for source, target in zip(old.variables, new.variables, strict=True):
        target.assign(source.value)


def _at(layer: Any, place: Sequence[str | int]) -> Any:
    for key in place:
        layer = getattr(layer, str(key)) if isinstance(layer, keras.layers.Layer) else layer[key]
    return layer


def _put(root: keras.layers.Layer, place: Sequence[str | int], new: keras.layers.Layer) -> None:
    """Puts a layer into a place below a built layer, and out of Keras's books the one that stood there."""
    old = _at(root, place)
    owners = [layer for i in range(len(place)) if isinstance(layer := _at(root, place[:i]), keras.layers.Layer)]
    owner, holder = owners[-1], _at(root, place[:-1])
    if owner._tracker.is_in_store("layers", old):
        owner._tracker.replace_tracked_value("layers", old, new)
    if holder is owner:
        setattr(owner, str(place[-1]), new)
    else:
        holder[place[-1]] = new
    if keras.backend.backend() == "torch":
        for layer in owners:
            layer._track_variables()  # torch's own list of parameters, made when the layer was built


def _not_copied(path: str, reason: str) -> InputError:
    return InputError(
        "A model is changed by making it again from its config.",
        received=f"the layer {path}: {reason}",
        remedy="Give the layer's class get_config and from_config, or use a functional model of Keras's own layers.",
    )


def _first_line(error: BaseException) -> str:
    """The first line of an error, or of the one that Keras wrapped in its own."""
    text = str(error).rpartition("Error encountered:")[2].replace("\x1b[1m", "").replace("\x1b[0m", "")
    lines = text.strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__

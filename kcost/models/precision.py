"""Changing the precision of a model, and what its layers compute in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from kcost.core.errors import UnavailableError
from kcost.models.comparing import DifferentError, LayerError, check_copy, outputs_of, rows_for
from kcost.models.copying import (
    StateError,
    carry_state,
    copy_of_layer,
    from_config,
    refuse_unset,
    without_initializers,
)
from kcost.models.keras_private import inner_layers, layers_of, own_trainable_variables, own_variables

Precision = Literal["saved", "float32", "bfloat16", "mixed_bfloat16"]

_FLOAT_POLICIES = {
    *("float16", "bfloat16", "float32", "float64"),
    *("mixed_float16", "mixed_bfloat16"),
}
_COMPUTES_IN = {"float32": "float32", "bfloat16": "bfloat16", "mixed_bfloat16": "bfloat16"}


class LayerDtypes(NamedTuple):
    """What a layer keeps its numbers in, and what it computes in."""

    path: str
    kind: str
    """Its class."""
    variables: str | None
    """dtype of its own float variables; None where it has none, or they differ from one another: `a, b`."""
    compute: str
    is_fixed: bool
    """Whether it is the layer's kind that says what it computes in (int8, fused blocks), whatever its policy."""


def computed_dtypes(model: keras.Model) -> list[LayerDtypes]:
    """The dtypes of every layer that holds no other, and of every layer with variables of its own.

    Layers without floats (lookups, inputs) have an integer or string dtype here. kcost's fused blocks say themselves
    what they compute in (`int8_dynamic`, say); Keras's own int8 layers have their mode before the dtype: `int8`.
    """
    by_layer: list[LayerDtypes] = []
    for layer in layers_of(model):
        variables = [v for v in own_variables(layer) if keras.backend.is_float_dtype(v.dtype)]
        holds = bool(inner_layers(layer))
        if layer is model or isinstance(layer, keras.layers.InputLayer) or (holds and not variables):
            continue
        dtypes = sorted({str(v.dtype) for v in variables})
        # kcost's own layers say it; Keras's int8 is told from its policy.
        fixed = getattr(layer, "computes_in", None) or layer.quantization_mode
        path, kind, kept = layer.path or layer.name, type(layer).__name__, ", ".join(dtypes) or None
        by_layer.append(LayerDtypes(path, kind, kept, fixed or layer.compute_dtype, fixed is not None))
    return by_layer


def with_precision(
    model: keras.Model, precision: Precision, rows: Mapping[str, np.ndarray] | None = None
) -> keras.Model:
    """The model with its layers at another precision; the inputs keep their dtypes.

    - saved: `model` itself, whatever its layers compute in.
    - float32: every layer keeps and computes floats in float32. `model` itself where that is so already.
    - bfloat16: variables and computation in bfloat16; outputs are bfloat16.
    - mixed_bfloat16: variables in float32, computation in bfloat16; for training.

    All but the first give a new, uncompiled model, made from the config of `model` with each float policy replaced
    and from each layer's state. Before, a copy whose policies are as they were is held against `model`: it must give
    the same outputs. The new model is run once: not each layer runs in each dtype. Quantized layers of Keras keep int8,
    and get the new precision for the rest.

    Args:
        rows: a few rows of inputs by name for that comparison; made up where None.

    Raises:
        UnavailableError: the model cannot be rebuilt from its config, a copy of it gives other outputs, a layer
            insists on its precision or cannot be run in it, or the model takes no made-up rows.
    """
    if precision == "saved" or (precision == "float32" and not _others(model, "float32")):
        return model
    usual = keras.config.dtype_policy()
    try:
        same = copy_of_layer(model)
        check_copy(model, same, rows)
        with without_initializers() as unset:
            # The layers that a class of the user's own makes are in no config: they take the policy that is set.
            keras.config.set_dtype_policy(precision)
            rebuilt: keras.Model = from_config(model, lambda config: _with_policy(config, precision))
            before, after = ([tuple(v.shape) for v in x.weights] for x in (model, rebuilt))
            if before != after:
                # A layer that is shared with a nested model becomes two; a subclassed model may build none.
                raise StateError(
                    model.name, f"{len(after)} weights after rebuilding, {len(before)} before, or other shapes"
                )
            carry_state(model, rebuilt)
            refuse_unset(unset, rebuilt)
        outputs_of(rebuilt, rows_for(model, rows))  # a backend need not have each layer in each dtype
    except (StateError, DifferentError, LayerError) as error:
        raise _not_rebuilt(model, precision, str(error)) from error
    finally:
        keras.config.set_dtype_policy(usual)
    kept = _others(rebuilt, precision)
    if kept:
        more = f", and {len(kept) - 1} more" if len(kept) > 1 else ""
        reason = f"the layer {kept[0].path!r} stays at {kept[0].compute}{more}"
        raise _not_rebuilt(model, precision, reason)
    return rebuilt


def _others(model: keras.Model, precision: str) -> list[LayerDtypes]:
    """The layers that compute floats in another dtype than a precision says, or keep trained ones in another."""
    wanted = _COMPUTES_IN[precision]
    kept = "bfloat16" if precision == "bfloat16" else "float32"
    trained = {layer.path or layer.name for layer in layers_of(model) if own_trainable_variables(layer)}
    return [
        dtypes
        for dtypes in computed_dtypes(model)
        if not dtypes.is_fixed
        and (
            (dtypes.compute in _FLOAT_POLICIES and dtypes.compute != wanted and _counts(dtypes, precision, trained))
            or (dtypes.path in trained and dtypes.variables not in (None, kept))
        )
    ]


def _counts(dtypes: LayerDtypes, precision: str, trained: set[str]) -> bool:
    """For float32 every layer counts; a lower precision may leave layers without trained weights as they insist."""
    return precision == "float32" or dtypes.path in trained


def _with_policy(node: Any, name: str) -> Any:
    """A copy of a serialized object in which every float DTypePolicy has the policy `name`."""
    if isinstance(node, (list, tuple)):
        return type(node)(_with_policy(value, name) for value in node)
    if not isinstance(node, dict):
        return node
    config = node.get("config")
    if node.get("class_name") == "DTypePolicy" and isinstance(config, dict) and config.get("name") in _FLOAT_POLICIES:
        return {**node, "config": {**config, "name": name}}
    if node.get("class_name") == "QuantizedDTypePolicy" and isinstance(config, dict) and "source_name" in config:
        return {**node, "config": {**config, "source_name": name}}
    return {key: _with_policy(value, name) for key, value in node.items()}


def _not_rebuilt(model: keras.Model, precision: str, reason: str) -> UnavailableError:
    return UnavailableError(
        f"A model is changed to {precision} by rebuilding it from its config, and a copy gives the model's outputs.",
        received=f"the {type(model).__name__} model {model.name!r}: {reason}",
        remedy="Use a functional or Sequential model of Keras's own layers, or keep it as it was saved.",
    )

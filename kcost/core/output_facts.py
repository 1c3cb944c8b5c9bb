"""What the config of a `.keras` file says of its model's outputs: their losses, metrics, and what they end in."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from kcost.core.answer import OutputFacts

_PASSING = frozenset(
    {"Reshape", "Flatten", "Dropout", "Identity", "Squeeze", "ExpandDims", "Permute", "Cast", "Transpose"}
)
"""Layers and operations after which an answer is what it was before, but for its shape."""

_PRODUCTS = frozenset(
    {"Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"}
)
"""Layers whose linear outputs are numbers of their own, such as logits, and no pooled or normalised features."""

_ACTIVATIONS = frozenset({"softmax", "log_softmax", "sigmoid", "log_sigmoid", "tanh", "relu", "softplus"})
"""Operations of keras.ops that end a model as an activation does, by their snake names."""

_DEEPEST = 64
"""Layers that are gone back through in search of what an output ends in."""


def output_facts(config: Any) -> tuple[OutputFacts, ...]:
    """What a config says of each output of its model, in the order in which Keras flattens them.

    Args:
        config: the parsed `config.json`; a config of any form is taken.

    Returns:
        One entry an output. Empty for a subclassed model, whose config says nothing of its outputs, unless its losses
        do; then each is called by its key or place among them.
    """
    if not isinstance(config, dict):
        return ()
    compiled = config.get("compile_config")
    compiled = compiled if isinstance(compiled, dict) else {}
    ends = _ends(config)
    loss, metrics = compiled.get("loss"), compiled.get("metrics")
    if not ends:
        if loss is None or (isinstance(loss, dict) and "class_name" not in loss):
            return ()
        ends = [_End("output", None, None, False)]
    facts = []
    for place, end in enumerate(ends):
        own_loss = _loss(_of_output(loss, end, place, len(ends)))
        own_metrics = _metrics(_of_output(metrics, end, place, len(ends)))
        facts.append(
            OutputFacts(
                name=end.key or end.name,
                layer=end.name,
                ending=end.activation,
                product=end.product,
                loss=own_loss.name,
                from_logits=own_loss.from_logits,
                metrics=tuple(metric.name for metric in own_metrics),
                threshold=next((m.threshold for m in own_metrics if m.threshold is not None), None),
            )
        )
    return tuple(facts)


class _End(NamedTuple):
    """Where an output comes from."""

    name: str
    """Of the layer."""
    key: str | None
    """In the dictionary of outputs."""
    activation: str | None
    product: bool


class _Loss(NamedTuple):
    name: str | None
    from_logits: bool | None


class _Metric(NamedTuple):
    name: str
    threshold: float | None


def _ends(config: dict[str, Any]) -> list[_End]:
    inner = config.get("config")
    if not isinstance(inner, dict):
        return []
    layers = inner.get("layers")
    if not isinstance(layers, list) or not layers:
        return []
    if "output_layers" not in inner:  # a Sequential model
        last = layers[-1]
        activation, product = _ending(last, {}, 0)
        return [_End(_name(last), None, activation, product)]
    by_name = {_name(layer): layer for layer in layers if isinstance(layer, dict)}
    ends = []
    for key, (name, *place) in _histories(inner["output_layers"], None):
        layer = by_name.get(name, {})
        activation, product = _ending(layer, by_name, 0, place)
        ends.append(_End(name, key, activation, product))
    return ends


def _histories(node: Any, key: str | None) -> list[tuple[str | None, tuple[Any, ...]]]:
    """(key in a dictionary, [layer name, node, tensor]) of each output, dictionaries in the order of their keys."""
    if isinstance(node, dict):
        return [pair for name in sorted(node) for pair in _histories(node[name], str(name))]
    if isinstance(node, list) and len(node) == 3 and isinstance(node[0], str):
        return [(key, tuple(node))]
    if isinstance(node, list):
        return [pair for part in node for pair in _histories(part, key)]
    return []


def _ending(layer: Any, by_name: dict[str, Any], depth: int, place: list[Any] | None = None) -> tuple[str | None, bool]:
    """The activation that a layer ends in, as far as it is known, and whether a product with weights is its last."""
    if not isinstance(layer, dict) or depth > _DEEPEST:
        return None, False
    class_name, config = str(layer.get("class_name")), layer.get("config")
    config = config if isinstance(config, dict) else {}
    if isinstance(config.get("layers"), list):  # a model inside the model
        ends = _ends(layer)
        index = place[1] if place and len(place) > 1 and isinstance(place[1], int) else 0
        return (ends[index].activation, ends[index].product) if index < len(ends) else (None, False)
    if class_name in _PASSING:
        before = _inbound(layer, by_name)
        return _ending(before, by_name, depth + 1) if before is not None else (None, False)
    if class_name == "TimeDistributed":
        return _ending(config.get("layer"), {}, depth + 1)
    if class_name == "Softmax":
        return "softmax", False
    if (snake := _snake(class_name)) in _ACTIVATIONS:
        return snake, False
    activation = config.get("activation")
    if isinstance(activation, dict):
        function = activation.get("config")
        activation = function if isinstance(function, str) else activation.get("class_name")
    if class_name == "Activation" or class_name in _PRODUCTS:
        name = _snake(str(activation or "linear"))
        if class_name == "Activation" and name == "linear":
            before = _inbound(layer, by_name)
            return _ending(before, by_name, depth + 1) if before is not None else (None, False)
        return name, class_name in _PRODUCTS
    return None, False


def _inbound(layer: dict[str, Any], by_name: dict[str, Any]) -> dict[str, Any] | None:
    """The only layer that a layer of a functional config is called on."""
    names = re.findall(r'"keras_history": \["([^"]+)"', json.dumps(layer.get("inbound_nodes", [])))
    return by_name.get(names[0]) if len(set(names)) == 1 else None


def _of_output(given: Any, end: _End, place: int, count: int) -> Any:
    """What of a loss, or of metrics, is an output's own, in each of the forms that `compile` takes."""
    if isinstance(given, dict) and "class_name" not in given:
        return given.get(end.key, given.get(end.name)) if end.key is not None else given.get(end.name)
    if isinstance(given, list):
        nested = count > 1 or (len(given) == 1 and isinstance(given[0], list))
        return (given[place] if place < len(given) else None) if nested else given
    return given if count == 1 else None


def _loss(given: Any) -> _Loss:
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    name, config = _named(given)
    return _Loss(name, bool(config["from_logits"]) if "from_logits" in config else None)


def _metrics(given: Any) -> list[_Metric]:
    metrics = []
    for one in given if isinstance(given, list) else [] if given is None else [given]:
        name, config = _named(one)
        if name is not None:
            limit = config.get("threshold") if name == "binary_accuracy" else None
            metrics.append(_Metric(name, float(limit) if isinstance(limit, (int, float)) else None))
    return metrics


def _named(given: Any) -> tuple[str | None, dict[str, Any]]:
    """The snake name of a serialized loss or metric, and its config."""
    if isinstance(given, str):
        return _snake(given), {}
    if not isinstance(given, dict):
        return None, {}
    config = given.get("config")
    if given.get("class_name") == "function" and isinstance(config, str):
        return _snake(config.rpartition(">")[2]), {}
    config = config if isinstance(config, dict) else {}
    if given.get("class_name") in ("LossFunctionWrapper", "MeanMetricWrapper") and "fn" in config:
        return _named(config["fn"])[0], config
    return _snake(str(given.get("class_name"))), config


def _snake(name: str) -> str:
    """`BinaryCrossentropy` as `binary_crossentropy`; an acronym such as `AUC` as `auc`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _name(layer: Any) -> str:
    config = layer.get("config") if isinstance(layer, dict) else None
    named = config.get("name") if isinstance(config, dict) else None
    return str(layer.get("name") or named or "output") if isinstance(layer, dict) else "output"

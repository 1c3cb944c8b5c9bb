"""What a forward pass has to do as the config of a `.keras` file tells it, without a framework: the products alone.

What it does not know it leaves out, so that the count is never above the truth: a bound that rests on it stays a bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PRODUCTS = frozenset({"Dense", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv2D", "SeparableConv2D"})


def flops_per_example(config: Mapping[str, Any]) -> int:
    """FLOPs of one example, a multiplication with its addition as two; free axes other than the batch count as one.

    Args:
        config: the parsed `config.json` of a `.keras` file.

    Examples:
        >>> dense = {"class_name": "Dense", "config": {"units": 3}, "build_config": {"input_shape": [None, 5]}}
        >>> flops_per_example({"config": {"layers": [dense]}})
        30
    """
    return sum(_of_layer(layer) for layer in _layers(config))


def flops_of_convolutions(config: Mapping[str, Any]) -> int:
    """Those of them that convolutions do.

    Examples:
        >>> dense = {"class_name": "Dense", "config": {"units": 3}, "build_config": {"input_shape": [None, 5]}}
        >>> flops_of_convolutions({"config": {"layers": [dense]}})
        0
    """
    return sum(_of_layer(layer) for layer in _layers(config) if layer.get("class_name") != "Dense")


def weights_of_products(config: Mapping[str, Any]) -> int:
    """How many weights the products read, each once a step, of the same layers.

    Examples:
        >>> dense = {"class_name": "Dense", "config": {"units": 3}, "build_config": {"input_shape": [None, 5]}}
        >>> weights_of_products({"config": {"layers": [dense]}})
        15
    """
    return sum(_weights_of(layer) for layer in _layers(config))


def _weights_of(layer: Mapping[str, Any]) -> int:
    """From the products of one place, which read each weight once."""
    config, built = layer.get("config"), layer.get("build_config")
    if not isinstance(config, dict) or not isinstance(built, dict) or not isinstance(built.get("input_shape"), list):
        return 0
    shape = built["input_shape"]
    if layer.get("class_name") == "Dense":
        one_place = [None, shape[-1]] if shape else shape
    else:
        last = config.get("data_format") != "channels_first"
        one_place = [None, *([1] * (len(shape) - 2)), shape[-1]] if last else [*shape[:2], *([1] * (len(shape) - 2))]
    same = {**config, "padding": "same"}  # one place, whatever the window
    return _of_layer({**layer, "config": same, "build_config": {"input_shape": one_place}}) // 2


def _layers(node: Any) -> Iterator[Mapping[str, Any]]:
    """The layers of a config and of models inside it."""
    inner = node.get("config") if isinstance(node, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict):
            yield layer
            yield from _layers(layer)


def _of_layer(layer: Mapping[str, Any]) -> int:
    name, config, built = layer.get("class_name"), layer.get("config"), layer.get("build_config")
    if name not in PRODUCTS or not isinstance(config, dict) or not isinstance(built, dict):
        return 0
    shape = built.get("input_shape")
    if not isinstance(shape, list) or len(shape) < 2 or not all(s is None or isinstance(s, int) for s in shape):
        return 0
    if name == "Dense":
        units = config.get("units")
        return 2 * units * (shape[-1] or 0) * math.prod(s or 1 for s in shape[1:-1]) if isinstance(units, int) else 0
    return _of_convolution(str(name), config, shape)


def _of_convolution(name: str, config: Mapping[str, Any], shape: Sequence[int | None]) -> int:
    kernel, strides = config.get("kernel_size"), config.get("strides")
    last = config.get("data_format") != "channels_first"
    channels, sizes = (shape[-1], shape[1:-1]) if last else (shape[1], shape[2:])
    if not isinstance(kernel, list) or not isinstance(strides, list) or len(kernel) != len(sizes) or not channels:
        return 0
    if len(strides) != len(sizes) or not all(isinstance(n, int) and n > 0 for n in (*kernel, *strides)):
        return 0
    valid = config.get("padding") == "valid"
    dilation = config.get("dilation_rate")
    spread = dilation if isinstance(dilation, list) and len(dilation) == len(kernel) else [1] * len(kernel)
    places = 1
    for size, width, stride, apart in zip(sizes, kernel, strides, spread, strict=True):
        reach = (width - 1) * apart if valid else 0
        places *= max(1, math.ceil(((size or 1) - reach) / stride))
    window = math.prod(kernel)
    if name == "DepthwiseConv2D":
        return int(2 * places * window * channels * int(config.get("depth_multiplier") or 1))
    filters = config.get("filters")
    if not isinstance(filters, int):
        return 0
    if name == "SeparableConv2D":
        multiplier = int(config.get("depth_multiplier") or 1)
        return 2 * places * channels * multiplier * (window + filters)
    return 2 * places * window * (channels // int(config.get("groups") or 1)) * filters

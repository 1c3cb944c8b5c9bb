"""Whether a model scales the pixels of its images itself, as its `.keras` file says. Imports no framework.

A model that begins with `Rescaling(1 / 255)` wants whole pixels: fed with images in [0, 1] it sees black ones. What it
wants is told by the first step that scales, on the way from an input to the first layer with weights.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from kcost.core.keras_file import read_members
from kcost.core.pixels import PixelScale

UNIT_AT_MOST = 4.0
"""White, as a model takes it, up to which images in [0, 1] are meant: pixels of those seldom lie 4 deviations up."""

BYTES_AT_LEAST = 64.0
"""White, as a model takes it, from which on images in 0 to 255 are meant: 127.5 and 128 are usual divisors too."""

_WEIGHTLESS = frozenset(
    {
        # layers
        *("InputLayer", "Resizing", "CenterCrop", "AutoContrast", "ZeroPadding2D", "Cropping2D", "Reshape", "Permute"),
        *("Flatten", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "Identity"),
        *("Concatenate", "UpSampling2D", "MaxPooling2D", "AveragePooling2D", "Pipeline", "RandAugment", "AugMix"),
        *("CutMix", "MixUp", "Equalization", "Solarization", "MaxNumBoundingBoxes"),
        # operations of keras.ops in a functional model
        *("GetItem", "Stack", "Cast", "Transpose", "ExpandDims", "Squeeze", "Repeat", "Pad", "Resize", "Flip", "Clip"),
        *("RGBToGrayscale", "BroadcastTo", "Tile", "Moveaxis", "Swapaxes"),
    }
)
"""What passes pixels on, some of them moved, in the scale that they have. `Random...` does so as well."""

_PRODUCTS = ("TrueDivide", "Divide", "Multiply")
_SUMS = ("Subtract", "Add")


class OwnScaling(NamedTuple):
    """The scale that a model takes pixels in."""

    scale: PixelScale
    by: str  # what in the file says so


def own_scaling(keras_file: Path | str) -> OwnScaling | None:
    """How a model takes pixels by its file: scaled by itself, or as whole numbers. None where nothing says so.

    `as-is` where it scales pixels neither from 0 to 255 nor from 0 to 1, but from 0 to 16, say.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    path = Path(keras_file)
    return _Reader(path).of_model(read_members(path)[0]).scaling


class _Seen(NamedTuple):
    """What was met on the way through a model, and whether pixels come out at its end as they came in."""

    scaling: OwnScaling | None
    passes: bool


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path

    def of_model(self, node: dict[str, Any]) -> _Seen:
        """What a Sequential or functional model does to its inputs' pixels."""
        layers = _layers(node)
        if layers is None:
            return _Seen(None, passes=False)
        whole = next((d for layer in _inputs(node) if (d := _dtype(layer)) and d.startswith(("int", "uint"))), None)
        seen = self._in_order(layers) if _is_sequential(node) else self._in_graph(layers)
        if seen.scaling is None and whole is not None:
            return _Seen(OwnScaling("0-255", f"its input of {whole}"), seen.passes)
        return seen

    def _in_order(self, layers: list[dict[str, Any]]) -> _Seen:
        for layer in layers:
            seen = self._of_layer(layer)
            if seen.scaling is not None or not seen.passes:
                return seen
        return _Seen(None, passes=True)

    def _in_graph(self, layers: list[dict[str, Any]]) -> _Seen:
        users: dict[str, list[dict[str, Any]]] = {}
        for layer in layers:
            for source in set(_sources(layer.get("inbound_nodes"))):
                users.setdefault(source, []).append(layer)
        waiting = deque(layer for layer in layers if layer.get("class_name") == "InputLayer")
        met = {_name(layer) for layer in waiting}
        passes = True
        while waiting:
            layer = waiting.popleft()
            seen = self._of_layer(layer)
            if seen.scaling is not None:
                return seen
            if not seen.passes:
                passes = False
                continue
            for user in users.get(_name(layer), ()):
                if _name(user) not in met:
                    met.add(_name(user))
                    waiting.append(user)
        return _Seen(None, passes)

    def _of_layer(self, layer: dict[str, Any]) -> _Seen:
        kind = str(layer.get("class_name"))
        config = layer.get("config")
        config = config if isinstance(config, dict) else {}
        if _layers(layer) is not None:
            return self.of_model(layer)
        if kind == "Rescaling":
            return _scaled_by(kind, _largest(config.get("scale")), _largest(config.get("offset")))
        if kind == "Normalization" and not config.get("invert"):
            return self._of_normalization(config)
        if kind in (*_PRODUCTS, *_SUMS) and (constant := _constant(layer)) is not None:
            if kind in _SUMS:
                return _scaled_by(f"a constant that is {'added' if kind == 'Add' else 'subtracted'}", 1.0, constant)
            factor = constant if kind == "Multiply" else 1 / constant if constant else math.inf
            return _scaled_by("a constant factor", factor, 0.0)
        return _Seen(None, passes=kind in _WEIGHTLESS or kind.startswith("Random"))

    def _of_normalization(self, config: dict[str, Any]) -> _Seen:
        """Pixels lie within 4 deviations of their mean; a layer that was not adapted passes them on."""
        mean, variance = _numbers(config.get("mean")), _numbers(config.get("variance"))
        if not mean or not variance:
            mean, variance = self._adapted(str(config.get("name")))
        if not mean or not variance:
            return _Seen(OwnScaling("as-is", "Normalization, whose mean the file does not say"), passes=True)
        if all(m == 0 for m in mean) and all(v == 1 for v in variance):
            return _Seen(None, passes=True)
        white = max(m + 4 * math.sqrt(max(v, 0.0)) for m, v in zip(mean, variance, strict=False))
        return _Seen(OwnScaling(_scale_of(white), "Normalization"), passes=True)

    def _adapted(self, name: str) -> tuple[list[float], list[float]]:
        """The mean and the variance that a layer was adapted to, from the file's weights; empty where not there."""
        with zipfile.ZipFile(self._path) as archive:
            if "model.weights.h5" not in archive.namelist():
                return [], []
            content = io.BytesIO(archive.read("model.weights.h5"))
        groups: list[Any] = []

        def look(_: str, item: Any) -> None:
            if isinstance(item, h5py.Group) and item.attrs.get("name") == name and "0" in item and "1" in item:
                groups.append(item)

        with h5py.File(content, "r") as weights:
            weights.visititems(look)
            return ([], []) if len(groups) != 1 else (_numbers(groups[0]["0"][()]), _numbers(groups[0]["1"][()]))


def _scaled_by(kind: str, factor: float, offset: float) -> _Seen:
    """What x * factor + offset says of x, where the result is small: white is 1 / factor, or twice the offset."""
    white = 1 / abs(factor) if factor and math.isfinite(factor) else 1.0
    white = max(white, 2 * abs(offset / factor) if factor else 0.0)
    if white <= UNIT_AT_MOST:
        return _Seen(None, passes=True)
    return _Seen(OwnScaling(_scale_of(white), kind), passes=True)


def _scale_of(white: float) -> PixelScale:
    return "0-1" if white <= UNIT_AT_MOST else "0-255" if white >= BYTES_AT_LEAST else "as-is"


def _layers(node: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The layers of a model; None for what is no Sequential or functional model."""
    config = node.get("config")
    layers = config.get("layers") if isinstance(config, dict) else None
    return [x for x in layers if isinstance(x, dict)] if isinstance(layers, list) else None


def _is_sequential(node: dict[str, Any]) -> bool:
    return "input_layers" not in node["config"]


def _inputs(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [layer for layer in _layers(node) or () if layer.get("class_name") == "InputLayer"]


def _dtype(layer: dict[str, Any]) -> str | None:
    dtype = layer["config"].get("dtype") if isinstance(layer.get("config"), dict) else None
    if isinstance(dtype, dict):  # a policy
        dtype = dtype["config"].get("name") if isinstance(dtype.get("config"), dict) else None
    return dtype if isinstance(dtype, str) else None


def _name(layer: dict[str, Any]) -> str:
    config = layer.get("config")
    return str(layer.get("name") or (config.get("name") if isinstance(config, dict) else None))


def _sources(node: Any) -> Iterator[str]:
    """The names of the layers whose outputs a node takes, in the forms of Keras 3 and of Keras 2."""
    if isinstance(node, dict):
        history = node.get("keras_history")
        if isinstance(history, list) and history:
            yield str(history[0])
        for value in node.values():
            yield from _sources(value)
    elif isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and all(isinstance(i, int) for i in node[1:3]):
            yield node[0]
        for value in node:
            yield from _sources(value)


def _constant(layer: dict[str, Any]) -> float | None:
    """The number of largest size by which an operation changes its only tensor; None where it has two tensors."""
    nodes = layer.get("inbound_nodes")
    if not isinstance(nodes, list) or len(nodes) != 1 or not isinstance(nodes[0], dict):
        return None
    args = nodes[0].get("args")
    if not isinstance(args, list) or len(args) != 2:
        return None
    tensors = [a for a in args if isinstance(a, dict) and a.get("class_name") == "__keras_tensor__"]
    if len(tensors) != 1:
        return None
    if layer["class_name"] not in ("Multiply", "Add", "Subtract") and args[0] is not tensors[0]:
        return None  # a number over the tensor
    values = _numbers(next(a for a in args if a is not tensors[0]))
    return max(values, key=abs) if values else None


def _largest(value: Any) -> float:
    return max(_numbers(value), key=abs, default=0.0)


def _numbers(value: Any) -> list[float]:
    """All numbers of a scalar, an array, nested lists, or a serialized tensor."""
    if isinstance(value, dict):
        config = value.get("config")
        return _numbers(config.get("value")) if isinstance(config, dict) else []
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, (int, float)):
        return [float(value)]
    return [n for one in value for n in _numbers(one)] if isinstance(value, (list, tuple)) else []

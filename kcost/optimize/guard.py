"""Holds a rewritten model against the original, at the borders of what was replaced.

Both run on the same few rows. In the new model each replacement gives what the layer that it replaces gave in the
original, so that all other layers must give exactly what they gave there; and what the replacement itself would have
given is held against it, within what it may lose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kcost.core.errors import UnavailableError
from kcost.models.comparing import (
    SAME,
    Call,
    DifferentError,
    LayerError,
    check_copy,
    differences,
    on_host,
    outputs_of,
    rows_for,
    watched,
)
from kcost.models.keras_private import own_variables
from kcost.models.watching import replaced_calls

Loss = float | Callable[[keras.layers.Layer], float]
"""What a replacement may be off by, relative to the outputs: of each one, or by the new layer."""


@dataclass
class Border:
    """What was replaced at a path: one layer, or the first of several that became one."""

    path: str
    old: keras.layers.Layer
    new: keras.layers.Layer
    last: keras.layers.Layer
    """The layer whose outputs the new one gives: `old`, or the last that was absorbed."""


@dataclass
class Rewrite:
    """A model made again with some layers replaced."""

    original: keras.Model
    model: keras.Model
    borders: dict[str, Border] = field(default_factory=dict)
    """By path, in the order in which the layers were met."""
    holders: dict[str, Border] = field(default_factory=dict)
    """By path: layers in which something was replaced, and what stands for them; "" is the model."""


def check(done: Rewrite, rows: Mapping[str, np.ndarray] | None, loss: Loss) -> None:
    """Refuses a rewritten model that is wrong. Arguments as of `rewrite`.

    Raises:
        UnavailableError: outputs differ by more than 1e-6 where nothing was replaced, or by more than `loss` at a
            replacement, relative; a layer cannot be run; or no rows can be made up.
    """
    try:
        if not done.borders:
            check_copy(done.original, done.model, rows)
        else:
            _check_borders(done, rows_for(done.original, rows), loss)
    except (DifferentError, LayerError) as error:
        raise UnavailableError(
            "A changed model gives the outputs of the original, but for what its replacements may lose.",
            received=f"{done.original.name!r}: {error}",
            remedy=f"Leave the layer as it is: --skip {error.path!r}.",
        ) from error


def _check_borders(done: Rewrite, inputs: Any, loss: Loss) -> None:
    everything = [*done.borders.values(), *done.holders.values()]
    with watched(layer for border in everything for layer in (border.old, border.last)) as (calls, traced):
        expected = outputs_of(done.original, inputs, by_layer=True)
    visible = {path: _visible(done, path, traced) for path in done.borders}
    borders = {border.path: border for border in visible.values()}
    if "" in borders:  # the model as a whole is the only border whose values are seen
        outputs = outputs_of(done.model, inputs)
        _judge(borders[""], differences(expected, outputs), loss)
        return
    checks = {id(border.new): _Check(border, calls) for border in borders.values()}
    with replaced_calls([border.new for border in borders.values()], lambda layer, call: checks[id(layer)].of(call)):
        outputs = outputs_of(done.model, inputs, by_layer=True)
    difference = differences(expected, outputs)
    for one in checks.values():
        if one.left:  # what holds it goes past what Keras calls
            raise LayerError(one.border.path, "its replacement is not called where it was")
        if one.entered > SAME:
            raise DifferentError(one.border.path, one.entered, "the inputs that come to it")
        _judge(one.border, one.off, loss)
    if difference > SAME:
        raise DifferentError(done.original.name, difference, "with each replacement giving what it should, the outputs")


def _visible(done: Rewrite, path: str, traced: set[int]) -> Border:
    """The replacement, or the nearest layer around it whose values are seen."""
    border = done.borders[path]
    while {id(border.old), id(border.last)} & traced:
        path = path.rpartition("/")[0]
        while path not in done.holders:
            path = path.rpartition("/")[0]
        border = done.holders[path]
        if not path:
            break
    return border


class _Check:
    """Stands in for the call of a replacement."""

    def __init__(self, border: Border, calls: list[tuple[int, Call]]) -> None:
        self.border = border
        entering = [call for key, call in calls if key == id(border.old)]
        leaving = [call for key, call in calls if key == id(border.last)]
        self.left = [(on_host(a.args[:1]), b.output) for a, b in zip(entering, leaving, strict=True)]
        self.entered = 0.0
        """The largest difference of inputs seen so far; infinity where it was called more often."""
        self.off = 0.0
        """The largest difference of outputs."""

    def of(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """In the place of `call`: gives what the original gave for the same inputs."""

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            if not self.left:
                self.entered = float("inf")
                return output
            given = on_host(args[:1])
            # A shared layer may be called in another order.
            nearest = min(range(len(self.left)), key=lambda i: differences(self.left[i][0], given))
            inputs, expected = self.left.pop(nearest)
            self.entered = max(self.entered, differences(inputs, given))
            off = differences(expected, on_host(output))
            size, typical = _size(expected), _typical(self.border.old, given)
            self.off = max(self.off, off * size / typical if 0 < size < typical else off)
            return keras.tree.map_structure(keras.ops.convert_to_tensor, expected)

        return stand_in


def _judge(border: Border, difference: float, loss: Loss) -> None:
    allowed = loss(border.new) if callable(loss) else loss
    if not difference <= allowed:
        raise DifferentError(border.path, difference, f"the outputs of its replacement (allowed: {allowed:g})")


def _size(outputs: Any) -> float:
    arrays = [a for a in map(np.asarray, keras.tree.flatten(outputs)) if a.dtype.kind == "f"]
    return float(np.sqrt(sum(np.square(a[np.isfinite(a)], dtype=np.float64).sum() for a in arrays)))


def _typical(layer: keras.layers.Layer, inputs: Any) -> float:
    """The norm that outputs of a product would have for random signs: by chance, or behind a ReLU, they may be tiny."""
    kernels = [np.asarray(on_host(v.value)) for v in own_variables(layer) if len(v.shape) >= 2]
    if not kernels or _size(inputs) == 0:
        return max(_size(inputs), 1e-30)
    largest = max(kernels, key=lambda kernel: kernel.size)
    return _size(inputs) * float(np.sqrt(np.mean(np.square(largest, dtype=np.float64)) * largest.shape[-1])) or 1e-30

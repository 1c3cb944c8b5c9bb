"""Histograms of what a float model computes on calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from kcost.models.watching import calls_seen
from kcost.optimize.ranges import Histogram

Sites = Callable[..., Mapping[str, Any]]
"""A layer's call arguments -> tensors by the name of the site."""


def histograms(
    model: keras.Model, watched: Mapping[keras.layers.Layer, Sites], batches: Iterable[Any]
) -> dict[keras.layers.Layer, dict[str, Histogram]]:
    """Runs a model eagerly over batches and counts the absolute values at each watched layer's sites.

    Args:
        model: a built float model; it is left as it was.
        watched: layers of the model, each with what to count when it is called.
        batches: inputs of the model.

    Returns:
        The histograms of each layer by site; none for a layer that was not called, or that the backend traces (inside
        a scan, say), so that its values can't be seen.
    """
    by_layer: dict[keras.layers.Layer, dict[str, Histogram]] = {layer: {} for layer in watched}
    unseen: set[keras.layers.Layer] = set()

    def count(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> None:
        for site, tensor in watched[layer](*args, **kwargs).items():
            try:
                values = keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))
            except Exception:  # each backend has its own for a tensor without values
                unseen.add(layer)
                return
            by_layer[layer].setdefault(site, Histogram()).add(values)

    with calls_seen(watched, count):
        for batch in batches:
            model(batch, training=False)
    return {layer: {} if layer in unseen else sites for layer, sites in by_layer.items()}

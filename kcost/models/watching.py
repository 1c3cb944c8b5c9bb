"""Looks on while a model is called eagerly, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def calls_seen(layers: Iterable[Any], seen: Callable[..., None]) -> Iterator[None]:
    """Calls `seen(layer, *args, **kwargs)` before each call of the layers; what it raises ends the call.

    Args:
        layers: keras layers; they are left as they were.
        seen: takes the layer and the arguments of its `call`. Inside a scan the backend traces: tensors without values.
    """
    changed: list[Any] = []
    try:
        for layer in layers:
            layer.call = _watched(layer, layer.call, seen)  # shadows the method of the class
            changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.call


def _watched(layer: Any, call: Callable[..., Any], seen: Callable[..., None]) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        seen(layer, *args, **kwargs)
        return call(*args, **kwargs)

    return watched

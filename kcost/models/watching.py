"""Looks on while a model is called, layer by layer, or answers in a layer's place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


def calls_seen(layers: Iterable[Any], seen: Callable[..., None]) -> AbstractContextManager[None]:
    """Calls `seen(layer, *args, **kwargs)` before each call of the layers; what it raises ends the call.

    Args:
        layers: keras layers; they are left as they were.
        seen: takes the layer and the arguments of its `call`. Inside a scan the backend traces: tensors without values.
    """

    def watch(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            seen(layer, *args, **kwargs)
            return call(*args, **kwargs)

        return watched

    return replaced_calls(layers, watch)


@contextmanager
def replaced_calls(
    layers: Iterable[Any], make: Callable[[Any, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Puts `make(layer, its call)` in the place of each layer's `call` for a while."""
    changed: list[tuple[Any, str, Any]] = []
    try:
        for layer in {id(x): x for x in layers}.values():
            name = "call" if layer.quantization_mode is None else "quantized_call"  # what Keras calls
            own = vars(layer).get(name)
            setattr(layer, name, make(layer, getattr(layer, name)))  # shadows the method of the class
            changed.append((layer, name, own))
        yield
    finally:
        for layer, name, own in changed:
            if own is None:
                delattr(layer, name)
            else:
                setattr(layer, name, own)

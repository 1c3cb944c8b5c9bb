"""Keeps the frameworks that a worker does not need out of its process.

Importing keras pulls jax into a torch process and keras_nlp pulls tensorflow into a jax one, where they
are installed. Here the path finder is told that they are not, so that every library takes the way that
it has for an environment without them: `find_spec` says None, an import raises ModuleNotFoundError.
A None in sys.modules would break scipy's array API, and a finder that raises breaks torch._dynamo.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

OTHERS = {
    "tensorflow": ("jax", "jaxlib", "torch"),
    "jax": ("tensorflow", "tensorflow_text", "tf_keras", "torch"),
    "torch": ("tensorflow", "tensorflow_text", "tf_keras", "jax", "jaxlib"),
    "fake": ("tensorflow", "tensorflow_text", "tf_keras", "jax", "jaxlib", "torch", "keras"),
}
"""Backend -> top-level modules that its worker must not see."""


class _FilteredPathFinder:
    def __init__(self, hidden: frozenset[str]) -> None:
        self._hidden = hidden

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in self._hidden:
            return None
        return PathFinder.find_spec(name, path, target)

    def invalidate_caches(self) -> None:
        PathFinder.invalidate_caches()

    def find_distributions(self, *arguments: Any) -> Any:
        """importlib.metadata asks finders for what is installed."""
        return PathFinder.find_distributions(*arguments)


def hide(modules: Sequence[str]) -> None:
    """Makes the top-level `modules` look uninstalled to this process from now on.

    Raises:
        RuntimeError: one of them is imported already, so that hiding it comes too late.
    """
    late = [m for m in modules if m in sys.modules]
    if late:
        raise RuntimeError(f"Modules are hidden before they are imported. Received: {late}, imported already.")
    finder = _FilteredPathFinder(frozenset(modules))
    sys.meta_path[:] = [finder if f is PathFinder else f for f in sys.meta_path]

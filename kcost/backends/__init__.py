"""What differs between TensorFlow, JAX and PyTorch: one file each, one interface, loaded by name when asked.

Importing a framework takes seconds and claims memory and threads, so that nothing in here is imported
before a worker knows which one it is for.
"""

from __future__ import annotations

import importlib
from typing import cast

from kcost.backends.base import Driver


def driver(backend: str) -> Driver:
    """The driver of a backend. Imports the framework."""
    module = importlib.import_module(f"kcost.backends.{backend}")
    return cast(Driver, module.DRIVER())

"""Making a model cheaper: int8 and bfloat16, pruning. Each name is loaded when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_PUBLIC = {
    "Change": "kcost.optimize.coverage",
    "Coverage": "kcost.optimize.coverage",
    "prune": "kcost.optimize.pruning.pruning",
    "quantize": "kcost.optimize.quantization",
    "remove_units": "kcost.optimize.pruning.structured",
}

__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from kcost.optimize.coverage import Change as Change, Coverage as Coverage
    from kcost.optimize.pruning.pruning import prune as prune
    from kcost.optimize.pruning.structured import remove_units as remove_units
    from kcost.optimize.quantization import quantize as quantize


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)

"""kcost: which way of running a Keras 3 model is the cheapest that still meets its limits.

Every name below is loaded when it is first used, so that `import kcost` costs nothing and pulls in no
framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_PUBLIC = {
    "bench": "kcost.api",
    "data_sets": "kcost.api",
    "demo": "kcost.api",
    "doctor": "kcost.api",
    "estimate_cost": "kcost.api",
    "evaluate": "kcost.api",
    "export": "kcost.api",
    "prices": "kcost.api",
    "report": "kcost.api",
    "train": "kcost.api",
    "KcostError": "kcost.core.errors",
    "Plan": "kcost.core.plan",
    "Settings": "kcost.core.plan",
    "open_model": "kcost.core.artifact",
    "open_run": "kcost.bench.store",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from kcost.api import (
        bench as bench,
        data_sets as data_sets,
        demo as demo,
        doctor as doctor,
        estimate_cost as estimate_cost,
        evaluate as evaluate,
        export as export,
        prices as prices,
        report as report,
        train as train,
    )
    from kcost.bench.store import open_run as open_run
    from kcost.core.artifact import open_model as open_model
    from kcost.core.errors import KcostError as KcostError
    from kcost.core.plan import Plan as Plan, Settings as Settings


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kcost' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

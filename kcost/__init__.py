"""kcost: which way of running a Keras 3 model is the cheapest that still meets its limits.

Every name below is loaded when it is first used, so that `import kcost` costs nothing and pulls in no
framework. None is the name of a subpackage: importing one would put the module in its place.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from kcost.version import __version__ as __version__

_PUBLIC = {
    "attack": "kcost.api",
    "check_prices": "kcost.api",
    "compare_runs": "kcost.api",
    "data_sets": "kcost.api",
    "estimate_cost": "kcost.api",
    "evaluate": "kcost.api",
    "export": "kcost.api",
    "export_huggingface": "kcost.api",
    "fetch_data": "kcost.api",
    "make_plan": "kcost.api",
    "make_report": "kcost.api",
    "prices": "kcost.api",
    "run_bench": "kcost.api",
    "run_demo": "kcost.demo",
    "run_doctor": "kcost.api",
    "run_optimize": "kcost.api",
    "run_search": "kcost.api",
    "run_self_test": "kcost.api",
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
        attack as attack,
        check_prices as check_prices,
        compare_runs as compare_runs,
        data_sets as data_sets,
        estimate_cost as estimate_cost,
        evaluate as evaluate,
        export as export,
        export_huggingface as export_huggingface,
        fetch_data as fetch_data,
        make_plan as make_plan,
        make_report as make_report,
        prices as prices,
        run_bench as run_bench,
        run_doctor as run_doctor,
        run_optimize as run_optimize,
        run_search as run_search,
        run_self_test as run_self_test,
        train as train,
    )
    from kcost.bench.store import open_run as open_run
    from kcost.core.artifact import open_model as open_model
    from kcost.core.errors import KcostError as KcostError
    from kcost.core.plan import Plan as Plan, Settings as Settings
    from kcost.demo import run_demo as run_demo


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kcost' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

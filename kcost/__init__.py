"""kcost: which way of running a Keras 3 model is the cheapest that still meets its limits.

Every name below is loaded when it is first used, so that `import kcost` costs nothing and pulls in no
framework. None is the name of a subpackage: importing one would put the module in its place.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from kcost.version import __version__ as __version__

_PUBLIC = {
    "assess_risk": "kcost.api.risk",
    "attack": "kcost.api.models",
    "check_prices": "kcost.api.inventory",
    "compare_runs": "kcost.api.measuring",
    "data_sets": "kcost.api.inventory",
    "estimate_budget": "kcost.api.costing",
    "estimate_training": "kcost.api.training_cost",
    "diff_prices": "kcost.api.inventory",
    "estimate_cost": "kcost.api.measuring",
    "evaluate": "kcost.api.models",
    "export": "kcost.api.shipping",
    "export_huggingface": "kcost.api.shipping",
    "fetch_data": "kcost.api.inventory",
    "load": "kcost.forward.prepared",
    "find_cheapest": "kcost.api.short",
    "find_rate": "kcost.api.serving",
    "make_cheaper": "kcost.api.short",
    "make_plan": "kcost.api.measuring",
    "make_reference": "kcost.api.reference",
    "make_report": "kcost.api.measuring",
    "make_servable": "kcost.api.short",
    "monitor_proxy": "kcost.api.monitoring",
    "next_dollar": "kcost.api.next_dollar",
    "prices": "kcost.api.inventory",
    "project_run": "kcost.api.projecting",
    "program": "kcost.api.measuring",
    "run_bench": "kcost.api.measuring",
    "run_demo": "kcost.api.demo",
    "run_doctor": "kcost.api.inventory",
    "run_loadtest": "kcost.api.serving",
    "run_optimize": "kcost.api.optimize",
    "run_probe": "kcost.api.probing",
    "run_recommend": "kcost.api.recommend",
    "run_search": "kcost.api.models",
    "run_self_test": "kcost.api.measuring",
    "serve_models": "kcost.api.serving",
    "serve_proxy": "kcost.api.serving",
    "tag_texts": "kcost.api.tagging",
    "train": "kcost.api.models",
    "write_alert_rules": "kcost.api.monitoring",
    "write_budget_page": "kcost.api.costing",
    "write_dashboard": "kcost.api.monitoring",
    "write_next_dollar_page": "kcost.api.next_dollar",
    "write_workbook": "kcost.api.costing",
    "update_prices": "kcost.api.inventory",
    "read_recommendation": "kcost.api.recommend_watch",
    "recommendation_folder": "kcost.api.recommend",
    "watch_recommendation": "kcost.api.recommend_watch",
    "verify_card": "kcost.api.risk_card",
    "write_card": "kcost.api.risk_card",
    "write_card_pages": "kcost.api.risk_card",
    "KcostError": "kcost.core.errors",
    "Plan": "kcost.core.plan",
    "Settings": "kcost.core.plan",
    "open_model": "kcost.core.artifact",
    "open_run": "kcost.bench.store",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from kcost.api.costing import (
        estimate_budget as estimate_budget,
        write_budget_page as write_budget_page,
        write_workbook as write_workbook,
    )
    from kcost.api.demo import run_demo as run_demo
    from kcost.api.inventory import (
        check_prices as check_prices,
        data_sets as data_sets,
        diff_prices as diff_prices,
        fetch_data as fetch_data,
        prices as prices,
        run_doctor as run_doctor,
        update_prices as update_prices,
    )
    from kcost.api.measuring import (
        compare_runs as compare_runs,
        estimate_cost as estimate_cost,
        make_plan as make_plan,
        make_report as make_report,
        program as program,
        run_bench as run_bench,
        run_self_test as run_self_test,
    )
    from kcost.api.models import attack as attack, evaluate as evaluate, run_search as run_search, train as train
    from kcost.api.monitoring import (
        monitor_proxy as monitor_proxy,
        write_alert_rules as write_alert_rules,
        write_dashboard as write_dashboard,
    )
    from kcost.api.next_dollar import (
        next_dollar as next_dollar,
        write_next_dollar_page as write_next_dollar_page,
    )
    from kcost.api.optimize import run_optimize as run_optimize
    from kcost.api.probing import run_probe as run_probe
    from kcost.api.projecting import project_run as project_run
    from kcost.api.recommend import (
        recommendation_folder as recommendation_folder,
        run_recommend as run_recommend,
    )
    from kcost.api.recommend_watch import (
        read_recommendation as read_recommendation,
        watch_recommendation as watch_recommendation,
    )
    from kcost.api.reference import make_reference as make_reference
    from kcost.api.risk import assess_risk as assess_risk
    from kcost.api.risk_card import (
        verify_card as verify_card,
        write_card as write_card,
        write_card_pages as write_card_pages,
    )
    from kcost.api.serving import (
        find_rate as find_rate,
        run_loadtest as run_loadtest,
        serve_models as serve_models,
        serve_proxy as serve_proxy,
    )
    from kcost.api.shipping import export as export, export_huggingface as export_huggingface
    from kcost.api.short import (
        find_cheapest as find_cheapest,
        make_cheaper as make_cheaper,
        make_servable as make_servable,
    )
    from kcost.api.tagging import tag_texts as tag_texts
    from kcost.api.training_cost import estimate_training as estimate_training
    from kcost.bench.store import open_run as open_run
    from kcost.core.artifact import open_model as open_model
    from kcost.core.errors import KcostError as KcostError
    from kcost.core.plan import Plan as Plan, Settings as Settings
    from kcost.forward.prepared import load as load


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kcost' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

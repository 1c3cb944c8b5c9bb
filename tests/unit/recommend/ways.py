"""Ways of running a model, and budgets of them, that are made up."""

from __future__ import annotations

from typing import Any

from kcost.cost.assumptions import Assumptions
from kcost.cost.budget import Budget, make_budget
from kcost.cost.traffic import constant
from kcost.cost.uncertainty import Band
from kcost.recommend.answer import Ranked
from kcost.recommend.doubt import Doubt
from testing.budgets import option

NO_DOUBT = Doubt(expected_loss_usd=0.2, by_cause=())


def band(value: float) -> Band:
    return Band(value=value, low=0.9 * value, high=1.1 * value)


def way(name: str, month: float, chance: float, **changes: Any) -> Ranked:
    fields: dict[str, Any] = {
        "name": name,
        "is_plain": name == "plain",
        "probability": chance,
        "usd_per_month": band(month),
        "usd_total": band(12 * month),
        "usd_with_errors": 12 * month,
        "instance": "aws m7i.large us-east-1",
        "instances": 2,
        "replicas": 2,
        "batch_limit": 8,
        "wait_ms": 0.0,
        "p99_ms": 40.0,
        "rounds": 12,
        "basis": "measured",
    }
    return Ranked(**{**fields, **changes})


def budget(**changes: Any) -> Budget:
    made = make_budget([option("plain"), option("jit")], {}, constant(100), Assumptions(), draws=200)
    return made.model_copy(update=changes)

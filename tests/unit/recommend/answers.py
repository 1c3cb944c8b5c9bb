"""A recommendation that is made up."""

from __future__ import annotations

from kcost.cost.assumptions import Assumptions
from kcost.cost.traffic import constant
from kcost.recommend.answer import Recommendation, Request
from kcost.recommend.candidates import LeftOut
from tests.unit.recommend.ways import NO_DOUBT, band, budget, way


def answer() -> Recommendation:
    """A ranking that is made up, with everything that the page shows of one."""
    made = budget()
    request = Request(
        model="m.keras", model_sha256="0" * 64, data=None, traffic=constant(100), assumed=Assumptions(), p99_ms=50,
        max_drop=0.01, provider="aws", region=None, instance=None, minutes=5, backends=(), batches=(1,), seed=0,
    )  # fmt: skip
    return Recommendation(
        made_at="now", request=request, outcome="decided", winner="jit", words=("Run m as jit.", "It saves $1."),
        ranked=(way("jit", 50, 0.99), way("plain", 150, 0.01)), saved_usd_per_month=band(100), doubt=NO_DOUBT,
        budget=made, candidates=(), tried=(), left_out=(LeftOut(name="torch", reason="not installed"),),
        notices=("Scored on 256 examples.",), seconds=60.0,
    )  # fmt: skip

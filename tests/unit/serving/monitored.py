"""Requests and answers of a made-up model, and its reference, for tests of what a proxy watches."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from kcost.cost.forecast import Forecast
from kcost.cost.invoice import Meter
from kcost.risk.drift_features import vector_columns
from kcost.risk.drift_reference import Reading, Reference
from kcost.serving.monitor.monitor import Monitor
from kcost.serving.monitor.report import make_monitor_report
from kcost.serving.monitor.rollouts import Rollouts, TimedAnswer
from kcost.serving.monitor.settings import MonitorSettings
from kcost.serving.monitor.traffic import TrafficCounter
from kcost.serving.monitor.watch import Watch
from testing.references import made_up_reference

RNG = np.random.default_rng(0)
PREDICT = "/v1/models/m:predict"


def made_reference() -> Reference:
    """A model that takes two numbers and answers with two probabilities."""
    x = RNG.normal(size=(2000, 2))
    confidence = RNG.uniform(0.5, 1, 2000)
    outputs = {"confidence": confidence, "class": RNG.choice(["no", "yes"], 2000)}
    inputs = {f"input {name}": values for name, values in vector_columns(x, None).items()}
    reading = Reading(kind="multiclass", logits=False, form="arrays", shape=(2,))
    return made_up_reference("m", ("no", "yes"), reading, outputs, inputs, RNG.random(2000) < confidence)


REFERENCE = made_reference()


def rows_like_the_reference(count: int, shift: float = 0.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """A request and its answer."""
    confidence = RNG.uniform(0.5, 1, count)
    yes = RNG.random(count) < 0.5
    first = np.where(yes, 1 - confidence, confidence)
    instances = (RNG.normal(size=(count, 2)) + shift).tolist()
    return {"instances": instances}, {"predictions": np.stack([first, 1 - first], 1).tolist()}


def header(request_id: str = "1", **changes: Any) -> dict[str, Any]:
    header = {"id": request_id, "model": "m", "version": "latest", "caller": "", "at_s": 1.0, "dropped": 0}
    return {**header, "request_encoding": "", "answer_encoding": "", **changes}


def put(watch: Watch, request_id: str, request: dict[str, Any], answer: dict[str, Any], **changes: Any) -> None:
    watch.request(header(request_id, **changes), json.dumps(request).encode(), json.dumps(answer).encode())


def report_of(watch: Watch | None, settings: MonitorSettings, traffic: TrafficCounter | None = None) -> Any:
    counter = traffic or TrafficCounter(time.monotonic)
    if traffic is None:
        counter.arrive()
        counter.leave(1.0, failed=False)
    forecast = Forecast(way="w", source="f", usd_per_hour=0.5, machine_s=0.001, batch=8, busy_share=0.5)
    meter = Meter(0.5, 0, {("m", ""): forecast})
    number = meter.arrive(("m", "latest", 'a"b\\\n'), 10)
    meter.to_model(number, 10)
    meter.leave(number, 20, failed=False)
    monitor = Monitor("http://x", settings, {} if watch is None else {"m": REFERENCE})
    watcher = monitor.report(meter.invoice(30)).watcher
    watched = monitor.report(meter.invoice(30)).watched if watch is None else watch.watched()
    rollouts = Rollouts(settings, dict, lambda _: None)
    for model in settings.canary:
        answer = TimedAnswer(200, [], b"", 1000, 1e6)
        rollouts.compared(model, answer, answer)
    bill = meter.invoice(40)
    return make_monitor_report(
        "http://x", settings, counter.traffic(), watcher, watched, bill, rollouts.states(bill.usd_per_hour)
    )

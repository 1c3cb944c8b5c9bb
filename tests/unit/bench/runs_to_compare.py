"""Runs to hold against each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kcost.core.plan import Settings
from kcost.core.result import Round, Run
from testing.runs import environment, plan, simulated_run

PLAN = plan(phases=("inference",), settings=Settings(rounds=8))

PRICES = {environment().environment_id: 0.36}


def run_of(seed: int, **changes: Any) -> Run:
    run, _ = simulated_run(PLAN, seed=seed, **changes)
    return run


def slowed(run: Run, factor: float, *labels: str, session: str | None = None) -> Run:
    """The run with the steps of some cells, or all, `factor` times as long."""

    def change(r: Round) -> Round:
        steps = tuple(int(ns * factor) for ns in r.step_ns)
        return replace(r, step_ns=steps, session=session or r.session)

    cells = tuple(
        c.model_copy(update={"rounds": tuple(map(change, c.rounds))}) if not labels or c.spec.label in labels else c
        for c in run.cells
    )
    return run.model_copy(update={"cells": cells})


LABEL = "inference jax/jit float32 cpu batch 32"

"""Made-up machines, their probes, and cells whose times on every machine are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kcost.core.plan import Backend
from kcost.core.probe import MoveTimes, Probe, ProbeAnswer, ProbedDtype, ProbeOfThreads, ProductTimes
from kcost.core.stats import Interval
from kcost.cost.between_machines import PARTS, Step, log_parts
from kcost.cost.machine_rates import MachineRates, rates_of
from kcost.cost.workload import Workload
from testing.runs import environment

SIZES = (64, 256, 1024, 2048)
ELEMENTS = (1 << 16, 1 << 25)


def probe(
    flops_per_s: float = 1e11,
    bytes_per_s: float = 2e10,
    call_s: float = 1e-5,
    *,
    threads: Sequence[int] = (1, 2),
    dtypes: Mapping[ProbedDtype, float] | None = None,
    backend: Backend = "jax",
    **machine: Any,
) -> Probe:
    """A probe of a machine whose rates are the same at all sizes and grow with its threads.

    Args:
        flops_per_s, bytes_per_s: with one thread.
        dtypes: dtype -> how many times faster its products are than `flops_per_s`.
    """
    answers = []
    for count in threads:
        products = [
            ProductTimes(dtype=dtype, size=n, ns=(_ns(2 * n**3 / (flops_per_s * times * count) + call_s),))
            for dtype, times in (dtypes or {"float32": 1.0, "bfloat16": 2.0}).items()
            for n in SIZES
        ]
        moves = [MoveTimes(elements=e, ns=(_ns(12 * e / (bytes_per_s * count) + call_s),)) for e in ELEMENTS]
        answer = ProbeAnswer(
            version="0", simulated=True, products=tuple(products), moves=tuple(moves), call_ns=(_ns(call_s),)
        )
        answers.append(ProbeOfThreads(threads=count, answer=answer))
    return Probe(
        created_at="2026-01-02T03:04:05+00:00",
        backend=backend,
        environment=environment(**{"cores": max(threads), **machine}),
        by_threads=tuple(answers),
    )


def _ns(seconds: float) -> int:
    return max(1, round(seconds * 1e9))


def rates(*values: float, **options: Any) -> MachineRates:
    """Rates of a made-up machine."""
    return rates_of(probe(*values, **options))


def workload(**changes: Any) -> Workload:
    """A step of a small network of convolutions."""
    fields: dict[str, Any] = {
        "kind": "cnn",
        "engine": "xla",
        "phase": "inference",
        "precision": "fp32",
        "batch": 8,
        "flops_per_example": 2e7,
        "parameters": 1e5,
        "activations_per_example": 2e5,
        "products": 10,
    }
    return Workload.model_validate({**fields, **changes})


def step(measured_s: float, work: Workload, name: str = "a", spread: float = 1.02, group: str = "g") -> Step:
    """A measured cell; its 95% interval goes from a `spread`th below to a `spread`th above."""
    return Step(name, group, work, False, Interval(measured_s, measured_s / spread, measured_s * spread))


def workloads(count: int, seed: int = 0) -> list[Workload]:
    """Steps from those that only call to those that only multiply."""
    generator = np.random.default_rng(seed)
    return [
        workload(
            batch=int(generator.choice([1, 4, 32])),
            flops_per_example=float(10 ** generator.uniform(5, 8.5)),
            parameters=float(10 ** generator.uniform(4, 7)),
            activations_per_example=float(10 ** generator.uniform(3, 6)),
            products=int(generator.integers(2, 40)),
        )
        for _ in range(count)
    ]


def true_s(work: Workload, machine: MachineRates, log_efficiency: Sequence[float]) -> float:
    """Seconds of a step by the model itself."""
    parts = log_parts(work, machine) + np.asarray(log_efficiency)
    assert parts.shape == (len(PARTS),)
    return math.fsum(np.exp(parts))

"""How a server should put requests together, from the measured step times of an exported model and some traffic.

One replica is simulated as in `kcost.cost.capacity`: traffic is split among replicas by chance, a batch begins when it
is full or its first request has waited long enough, and it is filled up to the next size that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from kcost.core.errors import InputError
from kcost.core.result import CellResult, Run
from kcost.core.serving import Batching
from kcost.cost.assumptions import Assumptions
from kcost.cost.capacity import CHECKED_STEPS, TAIL, WAIT_SHARES, find_capacity, idle_p99_s, serve_at
from kcost.cost.measured_service import service_of
from kcost.cost.queue_simulation import ServiceTimes
from kcost.cost.sizing import replicas_for

SEED = 20_261_129

METHOD, PRECISION = "saved_model", "float32"
"""Of the cells that an export is served like."""


class _Setting(NamedTuple):
    p99_s: float
    batch_limit: int
    wait_s: float


def choose_batching(run: Run, model_sha256: str, queries_per_s: float, p99_ms: float) -> Batching:
    """The batch sizes and the waiting time with the lowest p99 at each replica's part of the traffic.

    Args:
        run: with cells of `tensorflow/saved_model` of the model.
        model_sha256: of its `.keras` file.
        queries_per_s: of the traffic, a Poisson process, above 0.
        p99_ms: most that the p99 from arrival to answer may be.

    Raises:
        InputError: the run has no such cell, or no rate holds the p99.
    """
    if not (queries_per_s > 0 and p99_ms > 0 and math.isfinite(queries_per_s) and math.isfinite(p99_ms)):
        raise InputError(
            "Batching is chosen for a rate and a p99 above 0.", received=f"{queries_per_s:g} a second, {p99_ms:g} ms"
        )
    cells = _cells(run, model_sha256)
    service = service_of(cells, run.environments)
    capacity = find_capacity(service, p99_ms / 1e3, SEED)
    if capacity is None:
        raise InputError(
            "A replica holds the p99 at some rate.",
            received=f"{p99_ms:g} ms, where a server that is asked for little has a p99 of "
            f"{idle_p99_s(service, SEED) * 1e3:.3g} ms",
            remedy="Allow a higher p99, or make the model cheaper.",
        )
    replicas = int(replicas_for(queries_per_s, capacity.queries_per_s, Assumptions()))
    setting = _best(service, queries_per_s / replicas, p99_ms / 1e3)
    largest_s = service.mean_s(setting.batch_limit)
    simulated = any(cell.preparation is not None and cell.preparation.simulated for cell in cells)
    idle_sizes = ", ".join(map(str, sorted(service.after_idle)))
    after_idle = f", and after idle time at batch {idle_sizes}" if idle_sizes else ""
    return Batching(
        allowed_batch_sizes=service.up_to(setting.batch_limit).sizes,
        timeout_us=round(setting.wait_s * 1e6),
        max_enqueued_batches=max(1, math.floor(p99_ms / 1e3 / largest_s)),
        replicas=replicas,
        threads=cells[0].spec.threads,
        busy_percent=min(100, max(1, math.ceil(100 * capacity.served.busy_share))),
        p99_ms=setting.p99_s * 1e3,
        why=f"For {queries_per_s:g} requests a second on {replicas} replica(s) and a p99 of {p99_ms:g} ms: "
        f"{setting.p99_s * 1e3:.3g} ms, simulated from {'made-up' if simulated else 'measured'} steps of "
        f"tensorflow/{METHOD} at batch {', '.join(map(str, service.sizes))}{after_idle}.",
    )


def _cells(run: Run, model_sha256: str) -> list[CellResult]:
    """The cells of one way of running the SavedModel: that with the most batch sizes, on one machine."""
    groups: dict[tuple[int, str, str], list[CellResult]] = {}
    for cell in run.measured(phase="inference"):
        spec = cell.spec
        if (spec.model_sha256, spec.method, spec.precision) == (model_sha256, METHOD, PRECISION):
            groups.setdefault((spec.threads, spec.device, cell.environment_id), []).append(cell)
    if not groups:
        raise InputError(
            f"Batching is chosen from cells of tensorflow/{METHOD} in {PRECISION} of the model that is exported.",
            received="a run without one",
            remedy="Measure it: kcost bench MODEL --backends tensorflow --methods saved_model --batches 1,8,32",
        )
    largest = max(len(group) for group in groups.values())
    group = next(group for group in groups.values() if len(group) == largest)
    return sorted(group, key=lambda cell: cell.spec.batch)


def _best(service: ServiceTimes, queries_per_s: float, p99_s: float) -> _Setting:
    """Of the limits and waits that were measured or are tried, those with the lowest p99 at that rate."""
    settings = [
        _Setting(
            serve_at(queries_per_s, service, limit, share * p99_s, CHECKED_STEPS, SEED).percentile_s(TAIL),
            limit,
            share * p99_s,
        )
        for limit in service.sizes
        if queries_per_s < service.up_to(limit).capacity_per_s
        for share in _shares(limit)
    ]
    return min(settings)


def _shares(limit: int) -> Sequence[float]:
    return WAIT_SHARES if limit > 1 else WAIT_SHARES[:1]

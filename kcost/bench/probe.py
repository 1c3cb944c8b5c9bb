"""The parent's side of a probe: a worker for each number of threads, one after the other, and the file that they
make."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from kcost.core import schema
from kcost.core.cpu_quota import cpu_quota, default_threads
from kcost.core.environment import collect
from kcost.core.errors import InputError, WorkerError
from kcost.core.jobs import PROBE
from kcost.core.plan import Backend
from kcost.core.probe import Probe, ProbeAnswer, ProbedQuota, ProbeOfThreads, ProbeRequest
from kcost.core.process import Worker
from kcost.core.progress import OnProgress

MOST_SECONDS = 120.0
"""Two minutes, starting workers included."""

FLOAT32_SHARE = 0.7
"""Of the time: calls and sums are measured with the products of float32."""

START_S = 15.0
"""What starting a worker takes, about: it imports the backend."""


def thread_counts(most: int) -> tuple[int, ...]:
    """1, the most, and at most two powers of two between.

    Examples:
        >>> thread_counts(2), thread_counts(48)
        ((1, 2), (1, 8, 32, 48))
    """
    powers = [2**n for n in range(1, 12) if 2**n < most]
    between = powers if len(powers) <= 2 else [powers[len(powers) // 2], powers[-1]]
    return tuple(sorted({1, *between, most}))


def probe(
    backend: Backend, out: Path, seconds: float, on_progress: OnProgress, threads: Sequence[int] | None = None
) -> Probe:
    """Probes this machine and writes the file after each number of threads.

    Args:
        seconds: of all; at most MOST_SECONDS.
        threads: numbers of threads; None takes `thread_counts` of `default_threads`.

    Raises:
        InputError: seconds out of range, or more threads than this process has cores.
        WorkerError: no worker came to its end.
        StorageError: the file cannot be written.
    """
    if not 0 < seconds <= MOST_SECONDS:
        raise InputError(f"A probe takes more than 0 and at most {MOST_SECONDS:g} seconds.", received=seconds)
    cores = len(os.sched_getaffinity(0))
    counts = thread_counts(default_threads()) if threads is None else tuple(sorted(set(threads)))
    if not counts or not 1 <= counts[0] <= counts[-1] <= cores:
        raise InputError(f"Threads of a probe are from 1 to the {cores} cores of this process.", received=threads)
    end = time.monotonic() + seconds
    made = Probe(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        backend=backend,
        environment=collect(),
        by_threads=(),
    )
    failure: WorkerError | None = None
    for place, count in enumerate(counts):
        left = end - time.monotonic()
        on_progress(place, len(counts), f"{backend}, {count} thread(s)")
        if left <= 0:
            made = _without(made, f"{count} threads: no time was left")
            continue
        share = left / (len(counts) - place)
        try:
            with Worker(PROBE, backend, threads=count, device="cpu") as worker:
                measured_s = max(1.0, share - START_S)
                first = ProbeRequest(backend=backend, seconds=measured_s * FLOAT32_SHARE, quota=_quota_below(count))
                answer = _with_bfloat16(worker.ask(first, max(left, 30.0)), worker, first, measured_s)
        except WorkerError as error:  # one number of threads costs itself alone
            failure = error
            made = _without(made, f"{count} threads: {' '.join(str(error).split())}")
            continue
        done = (*made.by_threads, ProbeOfThreads(threads=count, answer=answer))
        made = made.model_copy(update={"by_threads": done})
        schema.write(out, made)
    on_progress(len(counts), len(counts), "done")
    if not made.by_threads:
        assert failure is not None  # the first has time, so that it was tried
        if failure.cause == "timeout":
            raise WorkerError(
                "A probe ends in the time that it is given.",
                received=f"{seconds:g} s, in which no {backend} worker came to its end",
                remedy="Stop what else runs on this machine, or give it more --seconds.",
                cause="timeout",
            ) from failure
        raise failure
    schema.write(out, made)
    return made


def _quota_below(threads: int) -> ProbedQuota | None:
    """The CPU quota of this process, where it has fewer cores than a worker has threads."""
    quota = cpu_quota()
    if quota is None or quota.cores >= threads:
        return None
    return ProbedQuota(cores=quota.cores, period_s=quota.period_s, threads=threads)


def _with_bfloat16(
    answer: ProbeAnswer, worker: Worker[ProbeRequest, ProbeAnswer], first: ProbeRequest, seconds: float
) -> ProbeAnswer:
    """The answer with products of bfloat16, or with the reason why they lack."""
    request = first.model_copy(update={"dtype": "bfloat16", "seconds": seconds * (1 - FLOAT32_SHARE)})
    try:
        more = worker.ask(request, seconds + START_S)
    except WorkerError as error:
        reason = f"bfloat16 products: {' '.join(str(error).split())}"
        return answer.model_copy(update={"not_measured": (*answer.not_measured, reason)})
    return answer.model_copy(
        update={
            "products": (*answer.products, *more.products),
            "convolutions": (*answer.convolutions, *more.convolutions),
            "not_measured": (*answer.not_measured, *more.not_measured),
        }
    )


def _without(made: Probe, reason: str) -> Probe:
    return made.model_copy(update={"not_measured": (*made.not_measured, reason)})

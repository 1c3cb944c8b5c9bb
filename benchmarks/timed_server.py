"""`kcost serve` that keeps each request's latency and each step of the model, by the server's own clock, in a file.

    python benchmarks/timed_server.py FILE.npz DIR --port 8501 ...      # what follows FILE is of `kcost serve`

The server's metrics count latencies in buckets of which each ends at 1.8 times the one before: too wide to tell a p99
within 10%. The file has two int64 arrays, in nanoseconds of the monotonic clock: `requests`, shape (requests, 2), when
each was answered and its latency; `steps` of shape (steps, 3), when a process of the model began with each batch, when
its answers were there, and its rows. A batch that lay ready for a busy process began when the one before was done.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kcost.cli import main
from kcost.serving.metrics import REQUEST_LATENCY, Metrics
from kcost.serving.model_version import Lane, ModelVersion

if TYPE_CHECKING:
    from kcost.serving.batching import Waiting
    from kcost.serving.model_process import Outputs
    from kcost.serving.status import RequestError

requests: list[tuple[int, int]] = []
steps: list[tuple[int, int, int]] = []
count_latency = Metrics.time
end_step = ModelVersion._done


def keep_latency(self: Metrics, name: str, model: str, api: str, latency_ns: int, entrypoint: str = "REST") -> None:
    """Metrics.time, which keeps what it is told of a request."""
    if name == REQUEST_LATENCY:
        requests.append((time.monotonic_ns(), latency_ns))
    count_latency(self, name, model, api, latency_ns, entrypoint)


def keep_step(self: ModelVersion, lane: Lane, batch: list[Waiting], outcome: Outputs | RequestError) -> None:
    """ModelVersion._done, which keeps when the batch was begun and when its answers came."""
    steps.append((round(lane.begun_s * 1e9), time.monotonic_ns(), sum(waiting.rows or 1 for waiting in batch)))
    end_step(self, lane, batch, outcome)


if __name__ == "__main__":
    Metrics.time = keep_latency  # type: ignore[method-assign]  # the server makes its metrics itself
    ModelVersion._done = keep_step  # type: ignore[method-assign]  # and its versions
    file = Path(sys.argv[1])
    sys.argv = ["kcost", "serve", *sys.argv[2:]]
    try:
        main()
    finally:
        kept = [np.array(rows, dtype=np.int64).reshape(-1, width) for rows, width in ((requests, 2), (steps, 3))]
        np.savez(file, requests=kept[0], steps=kept[1])

"""`kcost serve` that keeps when each request was answered, and how long that took by the server's own clock, in a file.

    python benchmarks/timed_server.py FILE.npy DIR --port 8501 ...      # what follows FILE is of `kcost serve`

The server's metrics count latencies in buckets of which each ends at 1.8 times the one before: too wide to tell a p99
within 10%. The file is an int64 array of shape (requests, 2), in nanoseconds: by the monotonic clock, and the latency.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from kcost.cli import main
from kcost.serving.metrics import REQUEST_LATENCY, Metrics

kept: list[tuple[int, int]] = []
count_latency = Metrics.time


def keep_latency(self: Metrics, name: str, model: str, api: str, latency_ns: int, entrypoint: str = "REST") -> None:
    """Metrics.time, which keeps what it is told of a request."""
    if name == REQUEST_LATENCY:
        kept.append((time.perf_counter_ns(), latency_ns))
    count_latency(self, name, model, api, latency_ns, entrypoint)


if __name__ == "__main__":
    Metrics.time = keep_latency  # type: ignore[method-assign]  # the server makes its metrics itself
    file = Path(sys.argv[1])
    sys.argv = ["kcost", "serve", *sys.argv[2:]]
    try:
        main()
    finally:
        np.save(file, np.array(kept, dtype=np.int64).reshape(-1, 2))

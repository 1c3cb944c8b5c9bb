"""Requests of a proxy by time: counts and latencies in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from pydantic import Field

from kcost.core.schema import Record

BUCKET_S = 10.0
BUCKETS = 180
KEPT_LATENCIES = 512
"""Of a bucket: the p99 of more would be no different to a reader, and the memory is bounded."""

RECENT_BUCKETS = 6


class TrafficPoint(Record):
    """Ten seconds of traffic."""

    ago_s: float = Field(description="from its start until now")
    requests: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None


class Traffic(Record):
    """Requests that were passed on, all models together."""

    seconds: float = Field(description="since the proxy started")
    requests: int
    failed: int = Field(description="not answered with 200")
    requests_per_s: float = Field(description="of the last minute")
    failed_share: float = Field(description="of the last minute")
    p50_ms: float | None = Field(description="of the last minute, from the first byte of a request to its answer")
    p99_ms: float | None
    under_way: int
    most_under_way: int = Field(description="in the last minute")
    history: tuple[TrafficPoint, ...]


class _Bucket:
    def __init__(self, start_s: float) -> None:
        self.start_s = start_s
        self.requests = 0
        self.failed = 0
        self.most_under_way = 0
        self.latencies_ms: list[float] = []


class TrafficCounter:
    """Counts requests.

    Args:
        clock: seconds that never go back.

    Examples:
        >>> counter = TrafficCounter(iter([0.0, 1.0, 1.5, 2.0]).__next__)
        >>> counter.arrive()
        >>> counter.leave(500.0, failed=False)
        >>> counter.traffic().p50_ms
        500.0
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start_s = clock()
        self._buckets: deque[_Bucket] = deque(maxlen=BUCKETS)
        self._requests = 0
        self._failed = 0
        self.under_way = 0

    def arrive(self) -> None:
        """A request came."""
        self.under_way += 1
        bucket = self._bucket(self._clock())
        bucket.most_under_way = max(bucket.most_under_way, self.under_way)

    def leave(self, latency_ms: float, *, failed: bool) -> None:
        """It was answered, so long after it came."""
        self.under_way -= 1
        self._requests += 1
        self._failed += failed
        bucket = self._bucket(self._clock())
        bucket.requests += 1
        bucket.failed += failed
        if len(bucket.latencies_ms) < KEPT_LATENCIES:
            bucket.latencies_ms.append(latency_ms)
        else:  # a step that has no common factor with the length goes over all places
            bucket.latencies_ms[bucket.requests * 211 % KEPT_LATENCIES] = latency_ms

    def traffic(self) -> Traffic:
        """What was counted."""
        now_s = self._clock()
        recent = [b for b in self._buckets if now_s - b.start_s < (RECENT_BUCKETS + 1) * BUCKET_S]
        requests, failed = sum(b.requests for b in recent), sum(b.failed for b in recent)
        latencies = [x for b in recent for x in b.latencies_ms]
        p50_ms, p99_ms = _quantiles(latencies)
        span_s = max(1.0, now_s - recent[0].start_s) if recent else 1.0
        return Traffic(
            seconds=now_s - self._start_s,
            requests=self._requests,
            failed=self._failed,
            requests_per_s=requests / span_s,
            failed_share=failed / requests if requests else 0.0,
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            under_way=self.under_way,
            most_under_way=max((b.most_under_way for b in recent), default=0),
            history=tuple(_point(b, now_s) for b in self._buckets),
        )

    def _bucket(self, now_s: float) -> _Bucket:
        start_s = now_s - (now_s - self._start_s) % BUCKET_S
        if not self._buckets or self._buckets[-1].start_s + BUCKET_S / 2 < start_s:
            self._buckets.append(_Bucket(start_s))
        return self._buckets[-1]


def _point(bucket: _Bucket, now_s: float) -> TrafficPoint:
    p50_ms, p99_ms = _quantiles(bucket.latencies_ms)
    return TrafficPoint(
        ago_s=now_s - bucket.start_s, requests=bucket.requests, failed=bucket.failed, p50_ms=p50_ms, p99_ms=p99_ms
    )


def _quantiles(latencies_ms: list[float]) -> tuple[float | None, float | None]:
    if not latencies_ms:
        return None, None
    p50_ms, p99_ms = np.quantile(latencies_ms, [0.5, 0.99])
    return float(p50_ms), float(p99_ms)

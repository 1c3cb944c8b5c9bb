"""What a load test says: latencies from when requests were due, what failed, and how late the client itself was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from kcost.core.schema import Record
from kcost.core.stats import percentile
from kcost.serving.load import BROKEN, NOT_CONNECTED, TIMED_OUT, Observed

CLIENT_PART = 0.1
"""The client's own delay is a limit of the test where it is more than this part of the latency, at the p99."""


class Quantiles(Record):
    """Milliseconds; all 0 of no request."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    p99_low_ms: float | None = Field(description="95% interval of the p99; None under 662 requests")
    p99_high_ms: float | None


class LoadReport(Record):
    """One load test."""

    url: str
    source: str = Field(description="where the times of the requests are from")
    body: str = Field(description="where what was sent is from")
    requests: int
    offered_per_s: float = Field(description="requests that were due, a second")
    answered_per_s: float = Field(description="requests that were answered with 200, a second of the whole test")
    duration_s: float = Field(description="until the last answer")
    statuses: dict[str, int] = Field(description="HTTP status, `timed out`, `broken` or `not connected` -> requests")
    connections: int = Field(description="opened in all")
    latency: Quantiles = Field(description="from when a request was due until its answer, or until it was given up")
    after_sending: Quantiles = Field(description="from when it was sent: what a client without a schedule would see")
    own_delay: Quantiles = Field(description="from when it was due until it was sent")
    limits: tuple[str, ...] = Field(description="what limits these figures")

    @property
    def failed(self) -> int:
        """Requests that were not answered with 200."""
        return self.requests - self.statuses.get("200", 0)


def quantiles(samples_ns: np.ndarray) -> Quantiles:
    """Percentiles of latencies, int64 nanoseconds, shape (requests,)."""
    if not len(samples_ns):
        return Quantiles(p50_ms=0, p90_ms=0, p99_ms=0, max_ms=0, p99_low_ms=None, p99_high_ms=None)
    p50, p90, p99 = (float(value) / 1e6 for value in np.quantile(samples_ns, (0.5, 0.9, 0.99)))
    interval = percentile(samples_ns.tolist(), 0.99)
    return Quantiles(
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        max_ms=float(samples_ns.max()) / 1e6,
        p99_low_ms=None if interval is None else interval.low / 1e6,
        p99_high_ms=None if interval is None else interval.high / 1e6,
    )


def report(url: str, source: str, body: str, span_s: float, observed: Observed) -> LoadReport:
    """The figures of a test.

    Args:
        span_s: the time over which requests were due.
    """
    count = len(observed.due_ns)
    latency = quantiles(observed.done_ns - observed.due_ns)
    own_delay = quantiles(observed.sent_ns - observed.due_ns)
    codes, counts = np.unique(observed.status, return_counts=True)
    statuses = {status_text(int(code)): int(n) for code, n in zip(codes, counts, strict=True)}
    return LoadReport(
        url=url,
        source=source,
        body=body,
        requests=count,
        offered_per_s=count / span_s,
        answered_per_s=statuses.get("200", 0) / observed.wall_s,
        duration_s=observed.wall_s,
        statuses=statuses,
        connections=observed.opened,
        latency=latency,
        after_sending=quantiles(observed.done_ns - observed.sent_ns),
        own_delay=own_delay,
        limits=tuple(_limits(count, latency, own_delay, statuses, observed.first_failure)),
    )


def status_text(status: int) -> str:
    """A status of `Observed` in words."""
    return {TIMED_OUT: "timed out", BROKEN: "broken", NOT_CONNECTED: "not connected"}.get(status, str(status))


def first_said(failure: str | None) -> str:
    """What is known of the first request that failed, as a sentence."""
    return f"The first: {failure or 'an answer without a body'}"


def _limits(
    count: int, latency: Quantiles, own_delay: Quantiles, statuses: dict[str, int], first_failure: str | None
) -> Sequence[str]:
    limits = []
    if own_delay.p99_ms > CLIENT_PART * latency.p99_ms:
        limits.append(
            f"The client itself was late: {own_delay.p99_ms:.3g} ms of the p99 passed before a request was sent. It "
            "waited for a free connection, or for a core of this machine."
        )
    if latency.p99_low_ms is None:
        limits.append(f"{count} requests are too few to say how sure the p99 is: 662 are needed.")
    failed = {text: n for text, n in statuses.items() if text != "200"}
    if failed:
        failures = ", ".join(f"{n} {text}" for text, n in sorted(failed.items()))
        counted = f"Requests that failed count with the time until they did: {failures}."
        limits.append(f"{counted} {first_said(first_failure)}")
    return limits

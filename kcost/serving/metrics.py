"""Counts and latencies in the text format of Prometheus, under TensorFlow Serving's names where it measures the same.

Sources: https://prometheus.io/docs/instrumenting/exposition_formats/ and, for the names, servables/tensorflow/util.cc
of TensorFlow Serving. Its latencies are in microseconds, so these are; what kcost adds is in base units.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

REQUEST_COUNT = ":tensorflow:serving:request_count"
REQUEST_LATENCY = ":tensorflow:serving:request_latency"
RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency"

_BOUNDS_US = tuple(10 * 1.8**i for i in range(33))
"""Upper bounds, as TensorFlow Serving's exponential buckets: 10 us and 32 times 1.8 times as much."""

Labels = tuple[tuple[str, str], ...]


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_US) + 1)
        self.sum_us = 0.0


class Metrics:
    """What a server counts. Labels are names of models that are served and statuses: a client cannot make new ones.

    Examples:
        >>> metrics = Metrics()
        >>> metrics.count("digits", "OK")
        >>> metrics.text(()).splitlines()[1]
        ':tensorflow:serving:request_count{model_name="digits",status="OK"} 1'
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._latencies: dict[tuple[str, str, str, str], _Histogram] = {}

    def count(self, model: str, status: str) -> None:
        """One request of a model that ended with a status."""
        self._counts[model, status] = self._counts.get((model, status), 0) + 1

    def time(self, name: str, model: str, api: str, latency_ns: int, entrypoint: str = "REST") -> None:
        """One latency; `name` is REQUEST_LATENCY or RUNTIME_LATENCY, `entrypoint` REST or GRPC."""
        histogram = self._latencies.get((name, model, api, entrypoint))
        if histogram is None:
            histogram = self._latencies[name, model, api, entrypoint] = _Histogram()
        latency_us = latency_ns / 1000
        histogram.counts[bisect_left(_BOUNDS_US, latency_us)] += 1
        histogram.sum_us += latency_us

    def text(self, gauges: Sequence[tuple[str, str, Labels, float]]) -> str:
        """The page that Prometheus reads, with `gauges` as (name, type, labels, value) behind the counts."""
        lines = [f"# TYPE {REQUEST_COUNT} counter"]
        for (model, status), n in sorted(self._counts.items()):
            lines.append(f"{REQUEST_COUNT}{_braces((('model_name', model), ('status', status)))} {n}")
        last_name = ""
        for (name, model, api, entrypoint), histogram in sorted(self._latencies.items(), key=lambda item: item[0]):
            labels: Labels = (("model_name", model), ("API", api), ("entrypoint", entrypoint))
            lines += [f"# TYPE {name} histogram"] if name != last_name else []
            last_name, total = name, 0
            for bound, n in zip((*_BOUNDS_US, float("inf")), histogram.counts, strict=True):
                total += n
                le = "+Inf" if bound == float("inf") else f"{bound:.6g}"
                lines.append(f"{name}_bucket{_braces((*labels, ('le', le)))} {total}")
            lines.append(f"{name}_sum{_braces(labels)} {histogram.sum_us:.6g}")
            lines.append(f"{name}_count{_braces(labels)} {total}")
        for name, kind, labels, value in sorted(gauges):
            lines += [f"# TYPE {name} {kind}"] if name != last_name else []
            last_name = name
            lines.append(f"{name}{_braces(labels)} {_number(value)}")
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """All digits: a rate is the difference of two counts."""
    return f"{value:.0f}" if value.is_integer() else repr(value)


def _braces(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

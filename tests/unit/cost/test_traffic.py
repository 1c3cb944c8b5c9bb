"""Traffic from a rate, a profile and a log; and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import InputError
from kcost.cost.traffic import constant, from_log, profile

DAY = [50.0] * 8 + [200.0] * 12 + [100.0] * 4


def test_a_rate_is_one_hour_that_repeats() -> None:
    traffic = constant(200)
    assert traffic.levels == ((200.0, 1.0),)
    assert (traffic.mean_queries_per_s, traffic.peak_queries_per_s, traffic.per_day) == (200.0, 200.0, 200 * 86_400)


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
def test_a_rate_is_positive(rate: float) -> None:
    with pytest.raises(InputError, match="positive number of requests"):
        constant(rate)


def test_a_profile_has_its_mean_and_its_peak() -> None:
    traffic = profile(DAY, "daily")
    assert traffic.mean_queries_per_s == pytest.approx((8 * 50 + 12 * 200 + 4 * 100) / 24)
    assert traffic.peak_queries_per_s == 200
    assert traffic.levels == ((50.0, 8 / 24), (100.0, 4 / 24), (200.0, 12 / 24))


@pytest.mark.parametrize(
    ("rates", "kind", "message"),
    [
        ([1.0] * 23, "daily", "24 rates"),
        ([1.0] * 24, "weekly", "168 rates"),
        ([1.0] * 23 + [-1.0], "daily", "0 or more"),
        ([0.0] * 24, "daily", "0 at all hours"),
        ([1.0] * 23 + [math.nan], "daily", "0 or more"),
    ],
)
def test_a_wrong_profile_is_refused(rates: list[float], kind: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        profile(rates, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "lines",
    [
        ["2026-11-29T10:00:00Z GET /a", "2026-11-29T10:00:01.5+00:00 GET /b", "2026-11-29 10:00:03"],
        ["time,user", "2026-11-29T10:00:00Z,x", "2026-11-29T11:00:01+01:00,y", "2026-11-29T10:00:03Z,z"],
        [f'9.9.9.9 - - [29/Nov/2026:10:00:0{s} +0000] "GET /"' for s in (0, 1, 3)],
        ["1796032800", "1796032801.5,secret", "", "1796032803"],
        ["1796032800000", "1796032801500", "1796032803000"],
    ],
)
def test_times_are_read_as_logs_write_them(lines: list[str]) -> None:
    traffic = from_log("\n".join(lines).encode(), "log")
    assert traffic.requests == 3
    assert traffic.queries_per_s == (pytest.approx(3 / 3),)


def test_a_log_holds_its_hours_and_its_busiest_minute() -> None:
    quiet = np.arange(0, 3600, 10.0)
    busy = 3600 + np.arange(0, 3600, 1.0)
    burst = 3600 + 60 + np.arange(0, 60, 0.05)
    times = np.sort(np.concatenate([quiet, busy, burst]))
    traffic = from_log("\n".join(f"{1_796_032_800 + t:.3f}" for t in times).encode(), "log")
    assert traffic.queries_per_s == (pytest.approx(0.1), pytest.approx(4800 / 3599, rel=1e-3))
    assert traffic.peak_queries_per_s == pytest.approx(21, rel=0.02)
    assert traffic.dispersion is not None
    assert traffic.dispersion > 1.5


def test_a_poisson_log_has_a_dispersion_of_one() -> None:
    times = 1_796_032_800 + np.cumsum(np.random.default_rng(0).exponential(0.1, 36_000))
    traffic = from_log("\n".join(f"{t:.4f}" for t in times).encode(), "log")
    assert traffic.dispersion == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "two at different times"),
        (b"1796032800\n", "1 requests"),
        (b"1796032800\n1796032800\n", "at one time"),
        (b"1796032800\n1796032700\n", "line 2: 100 s before"),
        (b"1796032800\nnothing here\n", "line 2: 'nothing here'"),
        (b"1796032800\n2026-13-45T99:00:00\n", "line 2"),
        (b"\xff\xfe\x00\n\xff\xff\n", "Each line of a log"),
    ],
)
def test_a_wrong_log_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_log(content, "requests.log")


@given(st.binary(max_size=200))
def test_no_log_ends_in_another_error(content: bytes) -> None:
    try:
        traffic = from_log(content, "any")
    except InputError:
        return
    assert traffic.peak_queries_per_s >= max(traffic.queries_per_s) > 0

"""The invoice adds up, whatever comes; and shares a moment equally among those who are there."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kcost.cost.invoice import NS_PER_HOUR, Invoice, Meter

KEY = ("digits", "latest", "")
USD_PER_HOUR = 0.34


def adds_up(bill: Invoice) -> bool:
    return bill.requests_usd + bill.overhead_usd + bill.idle_usd == pytest.approx(bill.total_usd, rel=1e-9, abs=1e-15)


KINDS = st.sampled_from(["arrive", "to", "from", "leave"])
EVENTS = st.lists(st.tuples(st.integers(0, 10**10), KINDS, st.integers(0, 9)))


@given(EVENTS)
def test_it_adds_up_after_every_event(events: list[tuple[int, str, int]]) -> None:
    meter, now_ns, here = Meter(USD_PER_HOUR, 5), 5, []
    left = 0
    for passed_ns, kind, which in events:
        now_ns += passed_ns
        if kind == "arrive":
            here.append(meter.arrive(("m", str(which % 2), ""), now_ns))
        elif here:
            number = here[which % len(here)]
            if kind == "to":
                meter.to_model(number, now_ns)
            elif kind == "from":
                meter.from_model(number, now_ns)
            else:
                here.remove(number)
                left += 1
                meter.leave(number, now_ns, failed=bool(which % 2))
        bill = meter.invoice(now_ns)
        assert adds_up(bill)
        assert min(bill.requests_usd, bill.overhead_usd, bill.idle_usd) >= 0
        assert bill.total_usd == pytest.approx(USD_PER_HOUR * (now_ns - 5) / NS_PER_HOUR)
        assert bill.under_way == len(here)
        assert sum(line.requests for line in bill.lines) == left


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=8))
def test_shares_are_those_of_a_look_at_every_moment(requests: list[tuple[int, int]]) -> None:
    """The oracle goes through the moments one by one."""
    spans = [(start, start + length) for start, length in requests]
    shares = [0.0] * len(spans)
    for moment in range(80):
        present = [i for i, (start, end) in enumerate(spans) if start <= moment < end]
        for i in present:
            shares[i] += 1 / len(present)
    meter = Meter(NS_PER_HOUR, 0)  # a dollar a nanosecond
    numbers: dict[int, int] = {}
    events = sorted([(end, 0, i) for i, (_, end) in enumerate(spans)] + [(s, 1, i) for i, (s, _) in enumerate(spans)])
    for now_ns, arrives, i in events:
        if arrives:
            numbers[i] = meter.arrive((str(i), "", ""), now_ns)
            meter.to_model(numbers[i], now_ns)
        else:
            meter.leave(numbers[i], now_ns, failed=False)
    lines = {int(line.model): line.usd for line in meter.invoice(80).lines}
    assert [lines[i] for i in range(len(spans))] == pytest.approx(shares)


def test_overhead_is_the_time_that_a_request_is_not_with_the_model() -> None:
    meter = Meter(NS_PER_HOUR, 0)
    number = meter.arrive(KEY, 10)
    meter.to_model(number, 13)
    meter.from_model(number, 20)
    meter.leave(number, 21, failed=True)
    bill = meter.invoice(30)
    assert (bill.requests_usd, bill.overhead_usd, bill.idle_usd, bill.total_usd) == (7, 4, 19, 30)
    assert (bill.lines[0].requests, bill.lines[0].failed, bill.lines[0].usd_per_million) == (1, 1, 7e6)


def test_time_does_not_go_back() -> None:
    meter = Meter(1, 10)
    with pytest.raises(ValueError, match="go back"):
        meter.arrive(KEY, 9)

"""Shares, order and the roofline: pure maths over stored counts."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kcost.core.profile import (
    KEPT_OPERATIONS,
    NEAR_THE_ROOF,
    Operation,
    Profile,
    Work,
    operations_by_kind,
    roofline,
    top,
    trace_of,
)
from tests.unit.core.peaks import peak

OPERATIONS = st.lists(
    st.tuples(st.integers(1, 1000), st.integers(0, 10**12)).map(
        lambda t: Operation(name=f"op{t[0]}", calls=t[0], self_ns=t[1])
    ),
    max_size=3 * KEPT_OPERATIONS,
)


def work(flops: int | None, moved: int | None) -> Work:
    return Work(flops=flops, flops_source="a test", bytes=moved, bytes_source="a test")


@given(OPERATIONS, st.integers(1, 50), st.integers(0, 10**12), st.integers(1, 80))
def test_shares_sum_to_at_most_one_and_the_longest_come_first(
    operations: list[Operation], steps: int, wall_ns: int, count: int
) -> None:
    trace = trace_of("a test", steps, wall_ns, operations)
    rows = top(trace, count)
    shares = [row.share for row in rows]
    assert len(rows) == min(count, KEPT_OPERATIONS, len(operations))
    assert shares == sorted(shares, reverse=True)
    assert all(0 <= share <= 1 for share in shares)
    assert sum(shares) <= 1 + 1e-9
    assert 0 <= trace.outside <= 1
    assert sum(shares) + trace.outside <= 1 + 1e-9


@given(OPERATIONS, st.integers(1, 50), st.integers(0, 10**12))
def test_a_trace_loses_no_time_and_no_call(operations: list[Operation], steps: int, wall_ns: int) -> None:
    trace = trace_of("a test", steps, wall_ns, operations)
    assert trace.busy_ns == sum(o.self_ns for o in operations)
    assert sum(o.calls for o in trace.operations) + trace.other_calls == sum(o.calls for o in operations)


def test_rows_are_of_one_step() -> None:
    trace = trace_of("a test", 4, 1_000_000, [Operation(name="dot", calls=8, self_ns=500_000, largest="dense")])
    assert top(trace) == (("dot", 2.0, 0.5, 125.0, "dense"),)
    assert trace.outside == 0.5


def test_threads_that_work_at_once_take_shares_of_all_their_time() -> None:
    trace = trace_of("a test", 1, 100, [Operation(name=n, calls=1, self_ns=100) for n in ("a", "b")])
    assert [row.share for row in top(trace)] == [0.5, 0.5]
    assert trace.outside == 0


@pytest.mark.parametrize(
    ("flops", "moved", "step_s", "bound", "share_of_roof"),
    [
        # The ridge lies at 1e11 / 1e10 = 10 flops a byte.
        (10**9, 10**7, 0.02, "product", 0.5),  # 100 flops a byte; 5e10 of 1e11
        (10**9, 10**9, 0.2, "memory", 0.5),  # 1 flop a byte: the roof is 1e10, 5e9 reached
        (10**9, 10**9, 2.0, "neither", 0.05),
    ],
)
def test_the_roofline_by_hand(flops: int, moved: int, step_s: float, bound: str, share_of_roof: float) -> None:
    reached = roofline(work(flops, moved), peak(), step_s)
    assert reached is not None
    assert reached.bound == bound
    assert reached.share_of_roof == pytest.approx(share_of_roof)
    assert reached.ridge == pytest.approx(10)
    assert reached.flops_per_s == pytest.approx(flops / step_s)
    assert reached.share_of_peak == pytest.approx(flops / step_s / 1e11)


@given(
    st.integers(1, 10**15),
    st.integers(1, 10**12),
    st.floats(1e-6, 1e3),
    st.floats(1e6, 1e15),
    st.floats(1e6, 1e13),
)
def test_the_roof_is_never_above_the_peak(
    flops: int, moved: int, step_s: float, flops_per_s: float, bytes_per_s: float
) -> None:
    reached = roofline(work(flops, moved), peak(flops_per_s, bytes_per_s), step_s)
    assert reached is not None
    assert reached.share_of_roof >= reached.share_of_peak * (1 - 1e-9)
    assert (reached.bound == "neither") == (reached.share_of_roof < NEAR_THE_ROOF)
    if reached.bound != "neither":
        assert (reached.bound == "memory") == (reached.intensity < reached.ridge)


@pytest.mark.parametrize(("flops", "moved"), [(None, 10), (10, None), (0, 10), (10, 0)])
def test_there_is_no_roofline_of_what_is_unknown(flops: int | None, moved: int | None) -> None:
    assert roofline(work(flops, moved), peak(), 1.0) is None


def test_a_profile_goes_through_its_file() -> None:
    trace = trace_of("a test", 2, 100, [Operation(name="a", calls=1, self_ns=10)])
    profile = Profile(status="ok", trace=trace, work=work(1, None), peak=peak())
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


NODES = st.lists(st.tuples(st.sampled_from(["Add", "MatMul"]), st.sampled_from("abc"), st.integers(0, 10**9)))


@given(NODES)
def test_operations_of_a_kind_add_up_and_name_their_longest_node(nodes: list[tuple[str, str, int]]) -> None:
    for operation in operations_by_kind(nodes):
        own = [(name, took_ns) for kind, name, took_ns in nodes if kind == operation.name]
        total_ns = {name: sum(ns for n, ns in own if n == name) for name, _ in own}
        assert (operation.calls, operation.self_ns) == (len(own), sum(total_ns.values()))
        assert operation.largest is not None
        assert total_ns[operation.largest] == max(total_ns.values())
    assert {o.name for o in operations_by_kind(nodes)} == {kind for kind, _, _ in nodes}

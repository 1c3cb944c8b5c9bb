"""Events of a profiler's trace, and the text of an XLA program. No framework is loaded for either."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kcost.backends.profiling.trace import (
    TENSORFLOW_EVENT,
    Event,
    Instruction,
    instruction_name,
    instructions,
    operations,
)

PROGRAM = """\
HloModule jit_forward, is_scheduled=true, entry_computation_layout={(f32[4,8]{1,0})->f32[4,2]{1,0}}

%fused_computation (param_0: f32[4,8], param_1: f32[8,2]) -> f32[4,2] {
  %param_0 = f32[4,8]{1,0} parameter(0)
  %param_1 = f32[8,2]{1,0} parameter(1)
  ROOT %dot.2 = f32[4,2]{1,0} dot(%param_0, %param_1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main.5 (x.1: f32[4,8], w.1: f32[8,2]) -> f32[4,2] {
  %x.1 = f32[4,8]{1,0} parameter(0)
  %w.1 = f32[8,2]{1,0} parameter(1)
  %ynn_fusion.1 = f32[4,2]{1,0} fusion(%x.1, %w.1), kind=kCustom, calls=%fused_computation, metadata={op_name="jit(forward)/dense/dot_general" source_line=3}
  %sort.3 = (f32[4,2]{1,0}, s32[4,2]{1,0}) sort(%ynn_fusion.1, %ynn_fusion.1), dimensions={1}, to_apply=%compare
  ROOT %tanh = f32[4,2]{1,0} tanh(%ynn_fusion.1), metadata={op_name="jit(forward)/tanh"}
}
"""  # noqa: E501 -- it is text of XLA's


def test_a_program_says_what_its_fusions_hold_and_where_they_come_from() -> None:
    fusions = instructions(PROGRAM)
    assert fusions["ynn_fusion.1"] == Instruction(("dot",), "jit(forward)/dense/dot_general")
    assert fusions["tanh"] == Instruction((), "jit(forward)/tanh")
    assert fusions["sort.3"] == Instruction((), None)
    assert fusions["dot.2"].products == ("dot",)


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("ynn_fusion.12", Instruction(("dot", "convolution"), None), "ynn_fusion (dot, convolution)"),
        ("dot.3", Instruction(("dot",), None), "dot"),
        ("MatMul.4", None, "MatMul"),
        ("loop_fusion.2.clone", None, "loop_fusion"),
    ],
)
def test_names_lose_their_numbers_and_tell_products(name: str, known: Instruction | None, expected: str) -> None:
    assert instruction_name(name, known) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model_1/dense_1/Relu:_MklNativeFusedMatMul", "_MklNativeFusedMatMul"),
        ("gradient_tape/a-b/MatMul:MatMul", "MatMul"),
        ("__inference_<lambda>_85:__inference_<lambda>_85", None),
        ("ThreadpoolListener::Record", None),
        ("end: dot.3", None),
    ],
)
def test_events_of_nodes_are_told_from_others(name: str, kind: str | None) -> None:
    match = TENSORFLOW_EVENT.fullmatch(name)
    assert (match["type"] if match else None) == kind


def test_nested_time_counts_once() -> None:
    line = [
        Event("call", "a", 0, 100),
        Event("dot", "b", 10, 40),
        Event("dot", "c", 50, 90),
        Event("add", None, 60, 70),
    ]
    totals = {o.name: (o.calls, o.self_ns, o.largest) for o in operations([line])}
    assert totals == {"call": (1, 30, "a"), "dot": (2, 60, "b"), "add": (1, 10, None)}


def test_lines_are_apart() -> None:
    lines = [[Event("dot", "a", 0, 100)], [Event("dot", "b", 20, 200)]]
    assert [(o.calls, o.self_ns, o.largest) for o in operations(lines)] == [(2, 280, "b")]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=30))
def test_the_operations_of_a_line_take_no_more_than_its_events_cover(spans: list[tuple[int, int]]) -> None:
    """Properly nested events only: what ends later than the event around it is cut there."""
    events: list[Event] = []
    for place, (first, length) in enumerate(spans):
        start = 1000 * place + first
        events += [Event("outer", None, start, start + 2 * length), Event("inner", None, start, start + length)]
    covered = sum(2 * length for _, length in spans)
    assert sum(o.self_ns for o in operations([events])) == covered

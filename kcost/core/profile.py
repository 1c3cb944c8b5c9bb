"""Where the time of a cell goes: what a profiler counted, the arithmetic of a step, and what the machine can do.

Raw counts are stored. Shares, rates and the roofline are derived when a run is read.

Source of the roofline: Williams, Waterman, Patterson (2009), Roofline: An Insightful Visual Performance Model for
Multicore Architectures, doi 10.1145/1498765.1498785.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

from pydantic import Field

from kcost.core.schema import Record

ProfileStatus = Literal["ok", "unsupported", "oom", "timeout", "crash"]
"""ok: operations were recorded. The others carry a reason, and say nothing against the cell's own measurement."""

KEPT_OPERATIONS = 50
"""Operations that a stored profile names; those that took less are added up."""

SHOWN_OPERATIONS = 10

NEAR_THE_ROOF = 0.2
"""A step that reaches less than this part of its roof is bound by neither products nor memory. A choice."""


class Operation(Record):
    """One kind of operation, over all profiled steps."""

    name: str
    calls: int = Field(ge=1)
    self_ns: int = Field(ge=0, description="time in it, without that in operations that it called")
    largest: str | None = Field(default=None, description="the place in the model where it took longest, if known")


class Trace(Record):
    """What a profiler saw of a few steps."""

    tool: str
    steps: int = Field(ge=1)
    wall_ns: int = Field(ge=0, description="of all these steps, by the clock, the profiler's own work included")
    operations: tuple[Operation, ...] = Field(description="those with the most time, the longest first")
    other_calls: int = Field(default=0, ge=0, description="of operations that are not named")
    other_ns: int = Field(default=0, ge=0)

    @property
    def busy_ns(self) -> int:
        """Time in operations, summed over threads, nanoseconds."""
        return sum(o.self_ns for o in self.operations) + self.other_ns

    @property
    def whole_ns(self) -> int:
        """What shares are taken of: the time by the clock, or that of all threads where it is more."""
        return max(self.wall_ns, self.busy_ns)

    @property
    def outside(self) -> float:
        """Share of the time outside of all operations: Python, dispatch, waiting."""
        return 1 - self.busy_ns / self.whole_ns if self.whole_ns else 0.0


class Work(Record):
    """The arithmetic and the memory traffic of one step."""

    flops: int | None = Field(default=None, ge=0, description="a multiplication with its addition counts as 2")
    flops_source: str = Field(description="who counted, and what; where `flops` is null, why nobody did")
    bytes: int | None = Field(default=None, ge=0)
    bytes_source: str
    bytes_are_least: bool = Field(default=False, description="`bytes` is a lower bound of what a step moves")


class Peak(Record):
    """What this backend reached on this machine with this number of threads: raw times of two short programs."""

    dtype: Literal["float32", "bfloat16"]
    product_size: int = Field(ge=1, description="rows and columns of the square matrices")
    product_ns: tuple[int, ...] = Field(min_length=1)
    moved_bytes: int = Field(ge=1, description="read and written by the other program, a sum in place")
    move_ns: tuple[int, ...] = Field(min_length=1)

    @property
    def flops_per_s(self) -> float:
        """Of the fastest product."""
        return 2 * self.product_size**3 / (max(1, min(self.product_ns)) * 1e-9)

    @property
    def bytes_per_s(self) -> float:
        """Of the fastest sum in place."""
        return self.moved_bytes / (max(1, min(self.move_ns)) * 1e-9)


class Profile(Record):
    """Where the time of a cell goes, as far as that could be found out."""

    status: ProfileStatus
    reason: str | None = Field(default=None, description="why no operations were recorded")
    trace: Trace | None = None
    work: Work | None = None
    peak: Peak | None = None
    peak_reason: str | None = Field(default=None, description="why the machine's peak was not measured")
    simulated: bool = False


class Row(NamedTuple):
    """An operation as a table shows it."""

    name: str
    calls_per_step: float
    share: float
    self_us_per_step: float
    largest: str | None


class Roofline(NamedTuple):
    """A step held against what the machine can do."""

    flops_per_s: float
    share_of_peak: float
    intensity: float
    """Flops for each byte moved; at most this where the bytes are a lower bound."""
    ridge: float
    """Intensity from which on products, and not memory, are the lower part of the roof."""
    share_of_roof: float
    bound: Literal["product", "memory", "neither"]


def operations_by_kind(nodes: Iterable[tuple[str, str, int]]) -> list[Operation]:
    """The operations of a trace whose nodes call no other: one a kind, with the name of its longest node.

    Args:
        nodes: of each call of a node, its kind, its name, and the nanoseconds that it took.

    Examples:
        >>> [(o.name, o.calls, o.self_ns, o.largest) for o in operations_by_kind([("Add", "a", 1), ("Add", "b", 2)])]
        [('Add', 2, 3, 'b')]
    """
    calls: Counter[str] = Counter()
    self_ns: Counter[str] = Counter()
    of_node: Counter[tuple[str, str]] = Counter()
    for kind, name, took_ns in nodes:
        calls[kind] += 1
        self_ns[kind] += took_ns
        of_node[kind, name] += took_ns
    longest = {kind: name for (kind, name), _ in reversed(of_node.most_common())}
    return [
        Operation(name=kind, calls=count, self_ns=self_ns[kind], largest=longest[kind]) for kind, count in calls.items()
    ]


def trace_of(tool: str, steps: int, wall_ns: int, operations: Iterable[Operation]) -> Trace:
    """A trace that names the KEPT_OPERATIONS with the most time and adds up the others."""
    ordered = sorted(operations, key=lambda o: (-o.self_ns, o.name))
    others = ordered[KEPT_OPERATIONS:]
    return Trace(
        tool=tool,
        steps=steps,
        wall_ns=wall_ns,
        operations=tuple(ordered[:KEPT_OPERATIONS]),
        other_calls=sum(o.calls for o in others),
        other_ns=sum(o.self_ns for o in others),
    )


def top(trace: Trace, count: int = SHOWN_OPERATIONS) -> tuple[Row, ...]:
    """The operations with the most time, the longest first; their shares sum to at most 1."""
    whole = trace.whole_ns or 1
    return tuple(
        Row(o.name, o.calls / trace.steps, o.self_ns / whole, o.self_ns / trace.steps / 1000, o.largest)
        for o in sorted(trace.operations, key=lambda o: (-o.self_ns, o.name))[:count]
    )


def roofline(work: Work, peak: Peak, step_s: float) -> Roofline | None:
    """What a step of `step_s` seconds reached; None where its flops or bytes are unknown or 0."""
    if not work.flops or not work.bytes or step_s <= 0:
        return None
    reached = work.flops / step_s
    intensity = work.flops / work.bytes
    ridge = peak.flops_per_s / peak.bytes_per_s
    share_of_roof = reached / min(peak.flops_per_s, intensity * peak.bytes_per_s)
    bound: Literal["product", "memory", "neither"] = "memory" if intensity < ridge else "product"
    return Roofline(
        flops_per_s=reached,
        share_of_peak=reached / peak.flops_per_s,
        intensity=intensity,
        ridge=ridge,
        share_of_roof=share_of_roof,
        bound=bound if share_of_roof >= NEAR_THE_ROOF else "neither",
    )

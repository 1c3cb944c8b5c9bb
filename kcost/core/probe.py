"""What a machine can do, whatever model runs on it: raw times of products, of moving memory and of a call.

Raw times are stored; rates are derived when a probe is read.
"""

from __future__ import annotations

import statistics
from typing import Literal

from pydantic import Field

from kcost.core.plan import Backend
from kcost.core.result import Environment
from kcost.core.schema import VERSIONS, Record

BYTES_AN_ELEMENT = 12
"""A sum in place reads two float32 numbers and writes one."""

ProbedDtype = Literal["float32", "bfloat16"]


class ProductTimes(Record):
    """One product of square matrices, repeated."""

    dtype: ProbedDtype
    size: int = Field(ge=1, description="rows and columns")
    ns: tuple[int, ...] = Field(min_length=1)

    @property
    def flops_per_s(self) -> float:
        """Of the median repetition."""
        return 2 * self.size**3 / (max(1.0, statistics.median(self.ns)) * 1e-9)


class MoveTimes(Record):
    """One sum in place, repeated."""

    elements: int = Field(ge=1, description="float32 numbers of each of the two arrays")
    ns: tuple[int, ...] = Field(min_length=1)

    @property
    def bytes_per_s(self) -> float:
        """Of the median repetition, what is read and what is written."""
        return self.elements * BYTES_AN_ELEMENT / (max(1.0, statistics.median(self.ns)) * 1e-9)


class ProbeRequest(Record):
    """Probing the machine with the worker's backend and number of threads.

    Each dtype is asked for by itself: some instruction sets have none of it, and a backend may end its process there.
    """

    backend: Backend
    dtype: ProbedDtype = Field(default="float32", description="of the products; with float32 come calls and sums")
    seconds: float = Field(gt=0, description="no measurement begins after this")


class ProbeAnswer(Record):
    """What the worker measured; what there was no time for, or the backend has no program for, is missing, with a
    reason."""

    version: str = Field(description="of the backend")
    simulated: bool
    products: tuple[ProductTimes, ...]
    moves: tuple[MoveTimes, ...]
    call_ns: tuple[int, ...] = Field(description="of a product of one number: what a call costs by itself")
    not_measured: tuple[str, ...] = ()


class ProbeOfThreads(Record):
    """An answer with the number of threads that it is of."""

    threads: int = Field(ge=1)
    answer: ProbeAnswer


class Probe(Record):
    """`probe.json`: one machine, one backend."""

    schema_: int = Field(default=VERSIONS["probe"], alias="schema")
    created_at: str
    backend: Backend
    environment: Environment
    by_threads: tuple[ProbeOfThreads, ...]
    not_measured: tuple[str, ...] = ()

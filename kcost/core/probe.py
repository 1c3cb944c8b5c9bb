"""What a machine can do, whatever model runs on it: raw times of products, of convolutions, of moving memory, of a
transfer and of a call; under a CPU quota also of a product with its pauses.

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
    def program(self) -> tuple[str, int]:
        """What was repeated."""
        return self.dtype, self.size

    @property
    def flops_per_s(self) -> float:
        """Of the median repetition."""
        return 2 * self.size**3 / (max(1.0, statistics.median(self.ns)) * 1e-9)


class ConvolutionTimes(Record):
    """One convolution with windows of 3 x 3, as many channels out as in and images that keep their size, repeated."""

    dtype: ProbedDtype
    images: int = Field(ge=1)
    side: int = Field(ge=1, description="height and width of an image")
    channels: int = Field(ge=1)
    ns: tuple[int, ...] = Field(min_length=1)

    @property
    def program(self) -> tuple[str, int, int, int]:
        """What was repeated."""
        return self.dtype, self.images, self.side, self.channels

    @property
    def flops(self) -> int:
        """Of one repetition: a multiplication with its addition is 2."""
        return 2 * 9 * self.channels**2 * self.side**2 * self.images


class TransferTimes(Record):
    """One array of float32 numbers of numpy's to the device and back, repeated."""

    elements: int = Field(ge=1)
    ns: tuple[int, ...] = Field(min_length=1, description="of both ways together")

    @property
    def program(self) -> int:
        """What was repeated."""
        return self.elements

    @property
    def bytes_per_s(self) -> float:
        """Of the median repetition, both ways."""
        return 8 * self.elements / (max(1.0, statistics.median(self.ns)) * 1e-9)


class MoveTimes(Record):
    """One sum in place, repeated."""

    elements: int = Field(ge=1, description="float32 numbers of each of the two arrays")
    ns: tuple[int, ...] = Field(min_length=1)

    @property
    def program(self) -> int:
        """What was repeated."""
        return self.elements

    @property
    def bytes_per_s(self) -> float:
        """Of the median repetition, what is read and what is written."""
        return self.elements * BYTES_AN_ELEMENT / (max(1.0, statistics.median(self.ns)) * 1e-9)


class HeldTimes(Record):
    """A product that keeps all threads busy, run after run under a CPU quota that stops them again and again."""

    size: int = Field(ge=1, description="rows and columns; it was timed by itself, too")
    cores: float = Field(gt=0, description="CPU time of all threads in a second of it, while nothing stops them")
    ns: tuple[int, ...] = Field(min_length=1, description="mean durations, each over some whole periods of the quota")


class ProbedQuota(Record):
    """A CPU quota of fewer cores than a worker has threads."""

    cores: float = Field(gt=0)
    period_s: float = Field(gt=0)
    threads: int = Field(ge=1)

    @property
    def window_s(self) -> float:
        """How long all threads may be busy in a period."""
        return self.period_s * self.cores / self.threads


class ProbeRequest(Record):
    """Probing the machine with the worker's backend and number of threads.

    Each dtype is asked for by itself: some instruction sets have none of it, and a backend may end its process there.
    """

    backend: Backend
    dtype: ProbedDtype = Field(default="float32", description="of the products; with float32 come calls and sums")
    seconds: float = Field(gt=0, description="no measurement begins after this")
    quota: ProbedQuota | None = Field(default=None, description="None where nothing holds the threads back")


class ProbeAnswer(Record):
    """What the worker measured; what there was no time for, or the backend has no program for, is missing, with a
    reason."""

    version: str = Field(description="of the backend")
    simulated: bool
    products: tuple[ProductTimes, ...]
    moves: tuple[MoveTimes, ...]
    call_ns: tuple[int, ...] = Field(description="of a product of one number: what a call costs by itself")
    convolutions: tuple[ConvolutionTimes, ...] = Field(default=(), description="none in an older probe")
    transfers: tuple[TransferTimes, ...] = Field(default=(), description="none in an older probe")
    held: HeldTimes | None = Field(default=None, description="under a CPU quota that the threads can use up")
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

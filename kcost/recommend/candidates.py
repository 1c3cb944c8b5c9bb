"""The ways of running a model that can be tried on this machine, and those that cannot, each with its reason."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from pydantic import Field

from kcost.core.conversion import CONVERTED_IN, EXTRAS, PRECISIONS, RUNTIMES, Runtime
from kcost.core.plan import BACKENDS, INFERENCE_METHODS, SLOW_TO_COMPILE, Backend, CellSpec, Device, Method, Precision
from kcost.core.schema import Record
from kcost.recommend.variants import Variant

Effort = Literal["first", "cheap", "compile", "convert"]
"""first: measured at once, so that figures are there within a minute. cheap: nothing but a warm-up. compile and
convert: tens of seconds before the first step, so only where a bound says that it can win."""

BATCHES = (1, 8, 32)

MAKING_S = 60.0
"""What making a cheaper version of the model takes: a guess, as for the others below."""

SETUP_S: dict[str, float] = {"first": 2.0, "cheap": 2.0, "compile": 30.0, "convert": 25.0}
"""What getting one batch size ready takes, of a conversion once for all: guesses to begin with, in the place of which
what was seen is taken as soon as there is some."""

BFLOAT16_FEATURES = frozenset({"avx512_bf16", "amx_bf16"})


class Candidate(Record):
    """One way of running the model: a backend or runtime, a method, a precision and threads, at some batch sizes."""

    backend: Backend
    method: Method
    precision: Precision
    device: Device
    threads: int = Field(ge=0, description="0 for every core, or as many as a CPU quota allows")
    batches: tuple[int, ...] = Field(min_length=1)
    effort: Effort
    after: str | None = Field(
        default=None, description="the candidate that it varies: tried only where that one is still in the running"
    )
    variant: str | None = Field(default=None, description="the cheaper version of the model; None for it as it is")
    model: str | None = Field(default=None, description="name of the model in the run; None in files of before")

    @property
    def name(self) -> str:
        """Such as `torch/compile float32` or `tensorflow/graph float32, 1 thread`."""
        name = name_of(self.backend, self.method, self.precision, self.threads)
        return name if self.variant is None else f"{self.variant}, {name}"

    @property
    def is_plain(self) -> bool:
        """Whether it is plain Keras: `predict` in float32 on all cores."""
        return self.method == "predict" and self.precision == "float32" and not self.threads and self.variant is None

    @property
    def setup_s(self) -> float:
        """What getting it ready takes, as guessed before anything was seen."""
        each = SETUP_S[self.effort]
        return each + SETUP_S["cheap"] * len(self.batches) if self.effort == "convert" else each * len(self.batches)

    def has(self, spec: CellSpec) -> bool:
        """Whether a cell is one of this candidate's batch sizes."""
        mine = (self.backend, self.method, self.precision, self.device, self.threads)
        theirs = (spec.backend, spec.method, spec.precision, spec.device, spec.threads)
        if self.model is not None and self.model != spec.model:
            return False
        return mine == theirs and spec.phase == "inference" and spec.batch in self.batches


class LeftOut(Record):
    """A way that is not tried, and why."""

    name: str
    reason: str


class Machine(Record):
    """What of a machine decides which candidates there are."""

    backends: tuple[Backend, ...] = Field(description="installed ones, in Keras's order")
    runtimes: tuple[Runtime, ...] = Field(description="installed ones")
    cores: int = Field(ge=1, description="that a process has threads on, where nobody names a number")
    cpu_features: tuple[str, ...] = ()
    compiler: bool = Field(default=True, description="a C++ compiler is there, which torch's compiler calls")


class Listed(Record):
    """The candidates in the order in which they are measured, and what is left out."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]


def name_of(backend: str, method: str, precision: str, threads: int) -> str:
    """What a way of running is called.

    Examples:
        >>> name_of("jax", "jit", "float32", 1)
        'jax/jit float32, 1 thread'
    """
    suffix = f", {threads} thread{'' if threads == 1 else 's'}" if threads else ""
    return f"{backend}/{method} {precision}{suffix}"


def list_candidates(
    machine: Machine,
    *,
    wanted: Collection[Backend] = (),
    device: Device = "cpu",
    batches: Sequence[int] = BATCHES,
    calibration: bool,
    saved_policy: str | None = None,
    refused: str | None = None,
    model: str | None = None,
    variants: Collection[Variant] = (),
    no_variants: str = "not asked for",
) -> Listed:
    """Every way of running a model that this machine could have, each tried or left out with the reason.

    Args:
        wanted: the backends to look at; empty for all.
        calibration: real inputs are at hand, which the scales of int8 are taken from.
        saved_policy: the dtype policy that the file was saved under, where that is not float32.
        refused: why the model cannot be converted for a runtime, where the file says so; None where it may be.
        model: its name.
        variants: cheaper versions of it that can be made.
        no_variants: why there are none.

    Examples:
        >>> machine = Machine(backends=("jax",), runtimes=(), cores=2)
        >>> listed = list_candidates(machine, calibration=False)
        >>> [c.name for c in listed.candidates]
        ['jax/predict float32', 'jax/jit float32', 'jax/jit float32, 1 thread']
        >>> next(one.reason for one in listed.left_out if one.name == "torch")
        "not installed: pip install 'kcost[torch]'"
    """
    left_out: list[LeftOut] = []
    backends: list[Backend] = []
    for backend in (*BACKENDS, "fake") if "fake" in machine.backends else BACKENDS:
        if wanted and backend not in wanted:
            left_out.append(LeftOut(name=backend, reason="not among --backends"))
        elif backend not in machine.backends:
            left_out.append(LeftOut(name=backend, reason=f"not installed: pip install 'kcost[{backend}]'"))
        else:
            backends.append(backend)
    sizes = tuple(sorted(set(batches)))
    candidates: list[Candidate] = []
    low = _low_precision(machine, device)
    for place, backend in enumerate(backends):
        for method in sorted(INFERENCE_METHODS[backend], key=lambda m: m != "predict"):
            if method == "predict" and place > 0:
                continue  # today's way is plain Keras on one backend; the others' predict wins nothing over their own
            for precision in _precisions(method, low, saved_policy):
                candidates.append(_keras_way(backend, method, precision, device, sizes))
        if low is not None:
            left_out.append(LeftOut(name=f"{backend} in bfloat16", reason=low))
    candidates, slow = _without_compiler(candidates, machine.compiler)
    left_out += slow
    for runtime in RUNTIMES:
        ways, why = _runtime_ways(runtime, machine, backends, device, sizes, calibration, refused)
        candidates += ways
        left_out += why
    if machine.cores > 1 and device == "cpu" and "fake" not in backends:
        candidates += [
            c.model_copy(update={"threads": 1, "after": c.name, "effort": "cheap" if c.effort == "first" else c.effort})
            for c in candidates
            if c.method not in ("predict", *SLOW_TO_COMPILE) and c.precision in ("float32", "int8")
        ]
    candidates = [c.model_copy(update={"model": model}) for c in candidates]
    if variants and "fake" not in backends:
        candidates += [c for v in variants for c in _of_variant(v, candidates, model)]
    elif not variants:
        left_out.append(LeftOut(name="pruned, and in int8 layers", reason=no_variants))
    order = {"first": 0, "cheap": 1, "convert": 2, "compile": 3}
    return Listed(
        candidates=tuple(sorted(candidates, key=lambda c: (c.after is not None, order[c.effort]))),
        left_out=tuple(left_out),
    )


def _of_variant(variant: Variant, candidates: Sequence[Candidate], model: str | None) -> Iterator[Candidate]:
    """The ways of running a cheaper version of the model.

    Fewer units help any way, so that only those are tried with them that are in the running without. Keras's layers in
    int8 are another program, which says nothing of float32's place, and no converter of kcost knows them.
    """
    for base in candidates:
        slow = base.method in ("predict", *SLOW_TO_COMPILE)
        if (
            slow
            or base.after is not None
            or base.precision != "float32"
            or (variant.is_int8 and base.method in RUNTIMES)
        ):
            continue
        update = {
            "variant": variant.name,
            "model": None if model is None else f"{model}-{variant.slug}",
            "effort": "convert" if base.effort == "convert" else "cheap",
            "after": None if variant.is_int8 else base.name,
        }
        yield base.model_copy(update=update)


def _low_precision(machine: Machine, device: Device) -> str | None:
    """Why nothing is measured in bfloat16; None where it is."""
    if device != "cpu" or BFLOAT16_FEATURES & set(machine.cpu_features) or "fake" in machine.backends:
        return None
    return "this processor has no instructions for it, and is slower in it"


def _precisions(method: Method, low: str | None, saved_policy: str | None) -> tuple[Precision, ...]:
    if method == "predict":
        return ("float32",)
    more: tuple[Precision, ...] = () if low is not None else ("bfloat16",)
    return ("float32", *more, "saved") if saved_policy is not None else ("float32", *more)


def _keras_way(
    backend: Backend, method: Method, precision: Precision, device: Device, sizes: tuple[int, ...]
) -> Candidate:
    effort: Effort = "cheap"
    if method in SLOW_TO_COMPILE:
        effort = "compile"
    elif precision == "float32" and method in ("predict", INFERENCE_METHODS[backend][0]):
        effort = "first"
    return Candidate(
        backend=backend,
        method=method,
        precision=precision,
        device=device,
        threads=0,
        batches=sizes,
        effort=effort,
    )


def _without_compiler(candidates: list[Candidate], compiler: bool) -> tuple[list[Candidate], list[LeftOut]]:
    """Without those that need a C++ compiler, where none is there."""
    slow = [] if compiler else [c for c in candidates if c.method in SLOW_TO_COMPILE and c.device == "cpu"]
    left_out = [LeftOut(name=c.name, reason="needs a C++ compiler: apt-get install g++") for c in slow]
    return [c for c in candidates if c not in slow], left_out


def _runtime_ways(
    runtime: Runtime,
    machine: Machine,
    backends: Sequence[Backend],
    device: Device,
    sizes: tuple[int, ...],
    calibration: bool,
    refused: str | None,
) -> tuple[list[Candidate], list[LeftOut]]:
    converter = CONVERTED_IN[runtime]
    why = None
    if device != "cpu":
        why = "kcost runs converted files on the CPU"
    elif converter not in backends:
        why = f"{converter} converts to it, and is not among the backends that are tried"
    elif runtime not in machine.runtimes:
        why = f"not installed: pip install 'kcost[{EXTRAS[runtime]}]'"
    elif refused is not None:
        why = refused
    if why is not None:
        return [], [LeftOut(name=runtime, reason=why)]
    ways: list[Candidate] = []
    left_out: list[LeftOut] = []
    for precision in PRECISIONS[runtime]:
        if precision == "int8" and not calibration:
            reason = "no real inputs to take its scales from: give --data"
            left_out.append(LeftOut(name=f"{converter}/{runtime} int8", reason=reason))
            continue
        if precision == "bfloat16" and (low := _low_precision(machine, device)) is not None:
            left_out.append(LeftOut(name=f"{converter}/{runtime} bfloat16", reason=low))
            continue
        ways.append(
            Candidate(
                backend=converter,
                method=runtime,
                precision=precision,
                device=device,
                threads=0,
                batches=sizes,
                effort="convert",
            )
        )
    return ways, left_out

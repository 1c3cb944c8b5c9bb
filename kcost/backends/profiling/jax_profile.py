"""What JAX tells of a step: the trace of its profiler, and XLA's count of a program's arithmetic."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kcost.backends.base import Subject, arrange
from kcost.backends.profiling.trace import Event, Instruction, instruction_name, instructions, operations
from kcost.backends.profiling.work import LEAST_BYTES, least_bytes
from kcost.core.errors import UnavailableError
from kcost.core.profile import Trace, Work, trace_of
from kcost.models.calling import answers_with

XLA_FLOPS = "XLA's count of the step's program before its optimization, elementwise operations included"
XLA_BYTES = "XLA's count of the compiled program: what each of its operations reads and writes, caches left out"


def trace_steps(subject: Subject, steps: int) -> Trace:
    """The instructions of the compiled programs that ran in a few steps, by jax.profiler.

    Raises:
        UnavailableError: the trace holds none.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory(prefix="kcost-trace-") as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            start = time.perf_counter_ns()
            for number in range(steps):
                subject.step(number)
            wall_ns = time.perf_counter_ns() - start
        lines = [
            [(event.name, dict(event.stats), event.start_ns, event.duration_ns) for event in line.events]
            for file in Path(folder).rglob("*.xplane.pb")
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes
            for line in plane.lines
        ]
    ran: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        for _, about, _, _ in line:
            if "hlo_op" in about:
                ran[str(about["hlo_module"])].add(str(about["hlo_op"]))
    if not ran:
        raise UnavailableError("A trace of JAX's profiler holds the instructions that ran.", "a trace without any")
    known = {module: _instructions(module, names) for module, names in ran.items()}
    events = []
    for line in lines:
        on_line = []
        for name, about, start_ns, duration_ns in line:
            if "hlo_op" not in about:
                continue
            one = known[str(about["hlo_module"])].get(str(about["hlo_op"]))
            place = one.place if one else None
            on_line.append(Event(instruction_name(name, one), place, start_ns, start_ns + duration_ns))
        events.append(on_line)
    return trace_of("jax.profiler", steps, wall_ns, operations(events))


def _instructions(module: str, names: set[str]) -> dict[str, Instruction]:
    """The instructions of a program that ran: of those of its name, the one that holds all that were seen.

    Several batch sizes of one model have programs of the same name; where two hold all, their instructions are alike.
    """
    for executable in jax.devices()[0].client.live_executables():
        for program in executable.hlo_modules():
            if program.name == module and names <= (texts := instructions(program.to_string())).keys():
                return texts
    return {}


def count_work(subject: Subject) -> Work:
    """Flops and bytes of a step, by compiling its program once more."""
    lowered = _lowered(subject)
    before = _analysis(lowered.cost_analysis())
    compiled = lowered.compile()
    moved = _analysis(compiled.cost_analysis()).get("bytes accessed")
    flops = before.get("flops")
    counted = flops is not None and flops >= 0
    if moved is not None and moved > 0:
        memory: dict[str, Any] = {"bytes": round(moved), "bytes_source": XLA_BYTES}
    else:
        outputs = jax.tree.leaves(lowered.out_info)
        least = least_bytes(subject.model, subject.batches[0], outputs)
        memory = {"bytes": least, "bytes_source": LEAST_BYTES, "bytes_are_least": True}
    return Work(
        flops=round(flops) if flops is not None and counted else None,
        flops_source=XLA_FLOPS if counted else "XLA counts no flops for this device",
        **memory,
    )


def _lowered(subject: Subject) -> Any:
    model = subject.model
    x = arrange(model, subject.batches[0])
    if subject.labels is not None:
        kinds = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        state = tuple([variable.value for variable in kind] for kind in kinds)
        return jax.jit(model.train_step).lower(state, (x, subject.labels, None))

    def forward(trainable: Any, fixed: Any, x: Any) -> Any:
        return answers_with(model, trainable, fixed, x)

    trainable = [v.value for v in model.trainable_variables]
    fixed = [v.value for v in model.non_trainable_variables]
    return jax.jit(forward).lower(trainable, fixed, x)


def _analysis(costs: Any) -> dict[str, float]:
    # Older versions give a list with one entry a device.
    first = costs[0] if isinstance(costs, list) and costs else costs
    return first if isinstance(first, dict) else {}


def square_product(size: int, dtype: str) -> Callable[[], None]:
    """A program that multiplies two (size, size) matrices of a dtype and waits for the product."""
    a, b = (jax.numpy.asarray(_square(size, seed), dtype) for seed in (0, 1))
    product = jax.jit(jax.numpy.matmul)
    return lambda: product(a, b).block_until_ready()


def convolution(images: int, side: int, channels: int, dtype: str) -> Callable[[], None]:
    """A program that convolves images of a dtype with windows of 3 x 3 and waits for what comes out."""
    generator = np.random.default_rng(0)
    shapes = (images, side, side, channels), (3, 3, channels, channels)
    x, w = (jax.numpy.asarray(generator.standard_normal(shape, dtype=np.float32), dtype) for shape in shapes)
    convolve = jax.jit(
        lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    )
    return lambda: convolve(x, w).block_until_ready()


def transfer(elements: int) -> Callable[[], None]:
    """A program that takes float32 numbers of numpy's to the device and back."""
    numbers = np.ones(elements, np.float32)

    def run() -> None:
        # A copy each way: on a processor JAX may else lend the very memory.
        np.array(jax.numpy.array(numbers, copy=True).block_until_ready())

    return run


def sum_in_place(elements: int) -> Callable[[], None]:
    """A program that adds `elements` float32 numbers to as many others where these lie, and waits."""
    add = jax.jit(lambda x, y: x + y, donate_argnums=0)
    held, ones = [jax.numpy.zeros(elements, "float32")], jax.numpy.ones(elements, "float32")

    def run() -> None:
        held[0] = add(held[0], ones)
        held[0].block_until_ready()

    return run


def _square(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((size, size), dtype=np.float32)

"""A simulated backend, to test the harness in seconds: it sleeps where a real one computes.

Its model file is JSON: `step_s` (default 0.0005), `outputs` (default [[0.9, 0.1]]) of `dtype` (default float32),
`computed_dtype` (precision -> what its layers are said to compute in), and, each a list of `precision/batch` or "any":
`crash` (the process kills itself in the first round), `hang`, `garbage`, `oom` (it says so), `fill` (it takes memory
until none is left), `unsupported`, `load_error` (it cannot be loaded; there the batch is 0); and for a profile
`profile_crash` and `profile_unsupported`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kcost.backends.base import Driver, Inputs, Step, Subject
from kcost.core.errors import ArtifactError, UnavailableError
from kcost.core.profile import Operation, Trace, Work, trace_of


class FakeModel:
    """What the fake backend knows of a model."""

    jit_compile = False

    def __init__(self, text: str, precision: str) -> None:
        self.script: dict[str, Any] = json.loads(text)
        self.precision = precision
        self.calls: dict[int, int] = {}

    def count_params(self) -> int:
        return 0

    def is_set(self, what: str, batch: int) -> bool:
        """Whether the script asks for this fault at this precision and batch size."""
        return bool({f"{self.precision}/{batch}", "any"} & set(self.script.get(what, [])))

    def refuse_to_load(self) -> None:
        """Raises what loading is told to fail with, whatever the batch size."""
        if self.is_set("load_error", 0):
            raise ArtifactError("The fake backend was told not to load this.", received=self.precision)

    def run(self, inputs: Inputs) -> np.ndarray:
        batch = len(next(iter(inputs.values())))
        calls = self.calls[batch] = self.calls.get(batch, 0) + 1
        if self.is_set("unsupported", batch):
            raise UnavailableError("The fake backend was told to lack this.", received=f"batch {batch}")
        if self.is_set("oom", batch):
            raise MemoryError("the fake backend was told to run out of memory")
        if calls > self.script.get("healthy_calls", 4):
            if self.is_set("crash", batch):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.is_set("hang", batch):
                time.sleep(3600)
            if self.is_set("garbage", batch):
                os.write(int(os.environ["KCOST_ANSWER_FD"]), b"\x00 not json\n")
            if self.is_set("fill", batch):
                _fill_memory()
        time.sleep(self.script.get("step_s", 0.0005))
        outputs = np.array(self.script.get("outputs", [[0.9, 0.1]]), self.script.get("dtype", "float32"))
        return np.repeat(outputs, batch, axis=0)


def _fill_memory() -> None:
    """Takes memory until the system refuses more: what this process has, and half a gigabyte. Raises MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 29), hard))
    held = []
    try:
        while True:
            held.append(bytearray(1 << 26))
    finally:
        held.clear()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class FakeDriver(Driver):
    """Sleeps for the time that the model file names."""

    name = "fake"
    simulated = True

    def version(self) -> str:
        return "0"

    def devices(self) -> dict[str, list[str]]:
        return {"cpu": ["simulated"], "gpu": [], "tpu": []}

    def set_threads(self, threads: int) -> None:
        """Sleeping takes no threads."""

    def load(self, keras_file: Path, precision: str) -> FakeModel:
        model = FakeModel(keras_file.read_text(), precision)
        model.refuse_to_load()
        return model

    def computed_dtype(self, model: FakeModel) -> str:
        """What the script's `computed_dtype` says, else the precision that was asked for."""
        return str(model.script.get("computed_dtype", {}).get(model.precision, model.precision))

    def compile_forward(self, model: FakeModel, method: str) -> Step:
        return model.run

    def predict_step(self, model: FakeModel, batch: int) -> Step:
        return model.run

    def train_step(self, model: FakeModel, loss: Any) -> Callable[[Inputs, np.ndarray], Any]:
        return lambda inputs, labels: model.run(inputs)

    def to_host(self, outputs: Any) -> list[np.ndarray]:
        return [outputs]

    def int8_matmul(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.asarray(np.matmul(x.astype(np.int32), w.astype(np.int32)))

    def int8_unavailable(self) -> str | None:
        return "the fake backend multiplies with numpy"

    def device_kind(self, outputs: Any) -> str:
        return "cpu"

    def trace_steps(self, subject: Subject, steps: int) -> Trace:
        """Operations with fixed parts of the time that the steps took."""
        batch = len(next(iter(subject.batches[0].values())))
        if subject.model.is_set("profile_unsupported", batch):
            raise UnavailableError("The fake profiler was told to lack this.", received=f"batch {batch}")
        if subject.model.is_set("profile_crash", batch):
            os.kill(os.getpid(), signal.SIGKILL)
        start = time.perf_counter_ns()
        for number in range(steps):
            subject.step(number)
        wall_ns = time.perf_counter_ns() - start
        parts = {"sleep": 0.6, "wake": 0.3}
        operations = [Operation(name=name, calls=steps, self_ns=int(part * wall_ns)) for name, part in parts.items()]
        return trace_of("simulated", steps, wall_ns, operations)

    def count_work(self, subject: Subject) -> Work:
        """A million flops and a hundred thousand bytes an example."""
        batch = len(next(iter(subject.batches[0].values())))
        return Work(flops=1_000_000 * batch, flops_source="simulated", bytes=100_000 * batch, bytes_source="simulated")

    def square_product(self, size: int, dtype: str) -> Callable[[], None]:
        """Sleeps as a machine of 10 TFLOP/s would compute."""
        return lambda: time.sleep(2 * size**3 / 1e13)

    def convolution(self, images: int, side: int, channels: int, dtype: str) -> Callable[[], None]:
        """Sleeps as a machine of 10 TFLOP/s would compute."""
        return lambda: time.sleep(18 * images * side**2 * channels**2 / 1e13)

    def transfer(self, elements: int) -> Callable[[], None]:
        """Sleeps as a link of 10 GB/s would take."""
        return lambda: time.sleep(8 * elements / 1e10)

    def sum_in_place(self, elements: int) -> Callable[[], None]:
        """Sleeps as memory of 1 TB/s would take."""
        return lambda: time.sleep(12 * elements / 1e12)


DRIVER = FakeDriver

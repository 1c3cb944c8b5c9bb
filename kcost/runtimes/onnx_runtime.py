"""An ONNX file through ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from kcost.core.artifact import TensorSpec
from kcost.core.conversion import RuntimePrecision
from kcost.core.cpu_quota import default_threads
from kcost.core.errors import ArtifactError, InputError
from kcost.core.profile import Trace, operations_by_kind, trace_of
from kcost.runtimes.base import DAMAGED, LoadedFile, refusals

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_FATAL_ONLY = 4


class LoadedOnnx(LoadedFile):
    """An ONNX graph with ONNX Runtime's own optimizations."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        with refusals(ArtifactError, "ONNX Runtime opens an .onnx file.", path, DAMAGED):
            self._session = _session(path, _options(threads))
        self.inputs = tuple(
            TensorSpec(
                name=one.name,
                shape=tuple(size if isinstance(size, int) else None for size in one.shape),
                dtype=_DTYPES.get(one.type, one.type),
            )
            for one in self._session.get_inputs()
        )
        self.outputs = tuple(one.name for one in self._session.get_outputs())

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """See LoadedFile.run."""
        if self._session is None:
            raise ValueError("A closed file cannot run.")
        feed = dict(zip((spec.name for spec in self.inputs), self.ordered(inputs), strict=True))
        with refusals(InputError, "An ONNX graph runs on inputs that its operations take.", self._path, DAMAGED):
            outputs: list[np.ndarray] = self._session.run(None, feed)
            return outputs

    def trace_steps(self, batches: Sequence[Mapping[str, np.ndarray]], steps: int) -> Trace:
        """The nodes of the optimized graph by type, from the file that ONNX Runtime writes of a session."""
        with tempfile.TemporaryDirectory(prefix="kcost-trace-") as folder:
            options = _options(self._threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "trace")
            session = _session(self._path, options)
            feeds = [
                dict(zip((spec.name for spec in self.inputs), self.ordered(batch), strict=True)) for batch in batches
            ]
            session.run(None, feeds[0])  # the first plans its memory, and is cut off below
            begin_ns = time.perf_counter_ns()
            for number in range(steps):
                session.run(None, feeds[number % len(feeds)])
            wall_ns = time.perf_counter_ns() - begin_ns
            events = json.loads(Path(session.end_profiling()).read_bytes())
        runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
        nodes = (
            (event["args"]["op_name"], event["name"].removesuffix("_kernel_time"), 1000 * event["dur"])
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= runs[-steps]
        )
        return trace_of("ONNX Runtime's profiler", steps, wall_ns, operations_by_kind(nodes))

    def close(self) -> None:
        """See LoadedFile.close."""
        self._session = None


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # Threads that wait must sleep: spinning ones would slow the worker whose turn is next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _session(path: Path, options: Any) -> Any:
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def load(path: Path, threads: int, precision: RuntimePrecision) -> LoadedOnnx:
    """An ONNX file; the precision is in it."""
    return LoadedOnnx(path, threads)


def version() -> str:
    """Version of ONNX Runtime."""
    return str(onnxruntime.__version__)

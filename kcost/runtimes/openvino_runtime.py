"""An OpenVINO model (.xml beside its .bin) on the CPU."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from kcost.core.artifact import TensorSpec
from kcost.core.conversion import RuntimePrecision
from kcost.core.cpu_quota import default_threads
from kcost.core.errors import ArtifactError, InputError, UnavailableError
from kcost.core.profile import Trace, operations_by_kind, trace_of
from kcost.runtimes.base import DAMAGED, LoadedFile, refusals

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""Precision -> what OpenVINO is told. Told nothing, as for int8, it chooses by the CPU for what is not int8."""


class LoadedOpenVINO(LoadedFile):
    """A compiled OpenVINO model with one stream, for one request at a time."""

    def __init__(self, path: Path, threads: int, precision: RuntimePrecision) -> None:
        self._path = path
        settings: dict[str, str | int] = {
            "INFERENCE_NUM_THREADS": threads or default_threads(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if precision in _HINTS:
            settings["INFERENCE_PRECISION_HINT"] = _HINTS[precision]
        self._settings = settings
        with refusals(ArtifactError, "OpenVINO opens an .xml file with its .bin beside it.", path, DAMAGED):
            core = openvino.Core()
            known = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            model = core.read_model(path)
            # Before it is compiled, which adds names of its own.
            self.inputs = tuple(_spec(port) for port in model.inputs)
            self.outputs = tuple(port.any_name for port in model.outputs)
            self._compiled = core.compile_model(model, "CPU", settings)
            in_force = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if precision == "bfloat16" and "BF16" not in known:
            raise UnavailableError(
                "OpenVINO computes in bfloat16 on a CPU that has such products; elsewhere it would in float32.",
                received=f"a CPU for which it knows {', '.join(known)}",
                remedy="Measure float32 or int8 here.",
            )
        self.notes = (f"OpenVINO computes in {in_force} what is not int8",) if precision == "int8" else ()
        self._request = self._compiled.create_infer_request()

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """See LoadedFile.run."""
        if self._request is None:
            raise ValueError("A closed file cannot run.")
        with refusals(InputError, "An OpenVINO model runs on inputs that its operations take.", self._path, DAMAGED):
            outputs = self._request.infer(self.ordered(inputs), share_inputs=True)
            return [np.array(outputs[port]) for port in self._compiled.outputs]

    def trace_steps(self, batches: Sequence[Mapping[str, np.ndarray]], steps: int) -> Trace:
        """The operations of the compiled model by type, from the counters that each request can keep."""
        compiled = openvino.Core().compile_model(self._path, "CPU", {**self._settings, "PERF_COUNT": True})
        request = compiled.create_infer_request()
        feeds = [self.ordered(batch) for batch in batches]
        request.infer(feeds[0], share_inputs=True)
        nodes: list[tuple[str, str, int]] = []
        wall_ns = 0
        for number in range(steps):
            begin_ns = time.perf_counter_ns()
            request.infer(feeds[number % len(feeds)], share_inputs=True)
            wall_ns += time.perf_counter_ns() - begin_ns
            for node in request.profiling_info:
                if node.status == openvino.ProfilingInfo.Status.EXECUTED:
                    took_ns = 1000 * round(node.real_time / timedelta(microseconds=1))
                    nodes.append((node.node_type, node.node_name, took_ns))
        return trace_of("OpenVINO's performance counters", steps, wall_ns, operations_by_kind(nodes))

    def close(self) -> None:
        """See LoadedFile.close."""
        self._request = self._compiled = None


def _spec(port: Any) -> TensorSpec:
    return TensorSpec(
        name=port.any_name,
        shape=tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape),
        dtype=np.dtype(port.element_type.to_dtype()).name,
    )


def load(path: Path, threads: int, precision: RuntimePrecision) -> LoadedOpenVINO:
    """An OpenVINO model at a precision."""
    return LoadedOpenVINO(path, threads, precision)


def version() -> str:
    """Version of OpenVINO."""
    return importlib.metadata.version("openvino")

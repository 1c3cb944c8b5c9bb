"""An ONNX file through ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from kcost.core.artifact import TensorSpec
from kcost.core.conversion import RuntimePrecision
from kcost.core.errors import ArtifactError, InputError
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
        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY
        # Threads that wait must sleep: spinning ones would slow the worker whose turn is next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with refusals(ArtifactError, "ONNX Runtime opens an .onnx file.", path, DAMAGED):
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
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

    def close(self) -> None:
        """See LoadedFile.close."""
        self._session = None


def load(path: Path, threads: int, precision: RuntimePrecision) -> LoadedOnnx:
    """An ONNX file; the precision is in it."""
    return LoadedOnnx(path, threads)


def version() -> str:
    """Version of ONNX Runtime."""
    return str(onnxruntime.__version__)

"""The interface of a runtime: an exported file in, arrays in, arrays out. No Keras, and nothing of a framework."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np

from kcost.core.artifact import TensorSpec
from kcost.core.conversion import EXTRAS, Runtime, RuntimePrecision
from kcost.core.errors import ArtifactError, InputError, UnavailableError
from kcost.core.profile import Trace

_MODULES: dict[Runtime, str] = {
    "saved_model": "kcost.runtimes.saved_model_runtime",
    "litert": "kcost.runtimes.litert",
    "onnx": "kcost.runtimes.onnx_runtime",
    "openvino": "kcost.runtimes.openvino_runtime",
}
_PACKAGES: dict[Runtime, str] = {"litert": "ai_edge_litert", "onnx": "onnxruntime", "openvino": "openvino"}
"""Runtime -> what must be importable; the SavedModel runtime looks for its library itself."""


class LoadedFile(ABC):
    """A file that a runtime has loaded and compiled, ready to run on the CPU."""

    inputs: tuple[TensorSpec, ...]
    """What the file takes: names, shapes (None where free) and numpy dtypes."""

    outputs: tuple[str, ...]
    """Names of the outputs in the order in which `run` gives them."""

    xla_operations: tuple[str, ...] = ()
    """Operations that XLA compiles wherever they run: a server without XLA refuses a file that has any."""

    notes: tuple[str, ...] = ()
    """What the runtime chose by itself and a reader should know, such as the precision that is in force."""

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs for inputs by name, as new arrays.

        Raises:
            InputError: an input is missing, unknown, or of a shape that the file does not take.
            MemoryError: there is not enough memory.
        """

    def trace_steps(self, batches: Sequence[Mapping[str, np.ndarray]], steps: int) -> Trace:
        """The operations of `steps` steps over the batches in turn, by the runtime's own profiler.

        It runs the file in a session of its own: the one that is measured records nothing.

        Raises:
            UnavailableError: the runtime has none that Python can reach.
        """
        raise UnavailableError(
            "Operations are told apart by a profiler of the runtime.", f"{type(self).__name__} without one in Python"
        )

    @abstractmethod
    def close(self) -> None:
        """Frees the file's memory. Calling it again does nothing."""

    def ordered(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The arrays in the order of `self.inputs`, contiguous and of their dtypes. Raises InputError as `run` does.

        Checked here and not left to the runtimes: some of them end the process on an array of another shape.
        """
        if inputs.keys() != {spec.name for spec in self.inputs}:
            raise InputError(
                f"The file takes the inputs {', '.join(spec.name for spec in self.inputs)}.",
                received=", ".join(inputs) or "none",
            )
        arrays = []
        for spec in self.inputs:
            array = np.asarray(inputs[spec.name])
            if len(array.shape) != len(spec.shape) or any(
                wanted not in (None, size) for wanted, size in zip(spec.shape, array.shape, strict=True)
            ):
                raise InputError(
                    f"The input {spec.name!r} has the shape {spec.shape}; None stands for a free axis.",
                    received=f"an array of shape {array.shape}",
                )
            if array.dtype != spec.dtype and not np.can_cast(array.dtype, spec.dtype, "same_kind"):
                raise InputError(
                    f"The input {spec.name!r} is of dtype {spec.dtype}.", received=f"an array of dtype {array.dtype}"
                )
            arrays.append(np.ascontiguousarray(array, dtype=spec.dtype))
        return arrays


def open_file(runtime: Runtime, path: Path | str, *, threads: int, precision: RuntimePrecision) -> LoadedFile:
    """Loads an exported file.

    Args:
        runtime: which one; the file is of its kind: a SavedModel's folder, .tflite, .onnx, or OpenVINO's .xml.
        path: the file or folder.
        threads: CPU threads, 0 for every core, or as many as a CPU quota allows.
        precision: what the file was converted to. OpenVINO takes bfloat16 from here and not from the file.

    Raises:
        ArtifactError: the file is missing, damaged or of another kind.
        UnavailableError: the runtime is not installed.
    """
    path = Path(path)
    module = _module(runtime)
    if not path.exists():
        raise ArtifactError(
            f"The {runtime} runtime opens an exported file.",
            received=f"{path}, which is not there",
            remedy="Convert the model again.",
        )
    return cast(LoadedFile, module.load(path, threads, precision))


def runtime_version(runtime: Runtime) -> str:
    """Version of a runtime. Raises UnavailableError where it is not installed."""
    return str(_module(runtime).version())


def _module(runtime: Runtime) -> ModuleType:
    package = _PACKAGES.get(runtime)
    try:
        if package is not None:
            importlib.import_module(package)
    except ImportError as error:
        raise UnavailableError(
            f"The {runtime} runtime needs the package {package}.",
            received=f"an environment without it ({error})",
            remedy=f"Install it: pip install 'kcost[{EXTRAS[runtime]}]'",
        ) from error
    return importlib.import_module(_MODULES[runtime])


@contextmanager
def refusals(kind: type[InputError], rule: str, path: Path, remedy: str) -> Iterator[None]:
    """Turns what a runtime raises, whose classes are its own, into an error of kcost; no memory stays MemoryError."""
    try:
        yield
    except (MemoryError, InputError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        message = lines[-1] if lines else type(error).__name__
        if any(sign in str(error).lower() for sign in ("bad_alloc", "failed to allocate memory", "out of memory")):
            raise MemoryError(message) from error
        raise kind(rule, f"{path}: {message[:300]}", remedy) from error


DAMAGED = "The file is damaged, cut short or of another kind. Convert the model again."
"""What to do about a file that a runtime cannot load."""

"""A runtime in the place of a Keras backend, so that the same loop measures both."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kcost.backends.base import Driver, Inputs, Step, Subject, as_host_array
from kcost.core.conversion import Conversion, Runtime, read_conversion
from kcost.core.errors import InputError, UnavailableError
from kcost.core.profile import Trace
from kcost.runtimes.base import LoadedFile, open_file, runtime_version


class ConvertedModel:
    """A converted model that is loaded: what the measuring loop asks of a Keras model, and the file itself."""

    jit_compile = False

    def __init__(self, conversion: Conversion, loaded: LoadedFile) -> None:
        self.conversion = conversion
        self.loaded = loaded
        self._names = {tensor.name: tensor.model_name for tensor in conversion.inputs}
        order = [tensor.name for tensor in conversion.outputs]
        self._positions = [loaded.outputs.index(name) for name in order]

    def count_params(self) -> int:
        """Parameters of the Keras model that was converted."""
        return self.conversion.parameters

    def named(self, inputs: Inputs) -> Inputs:
        """Inputs by the names of the file, for inputs by the names that Keras knows."""
        return {name: inputs[model_name] for name, model_name in self._names.items()}

    def run(self, inputs: Inputs) -> list[np.ndarray]:
        """Outputs in the order of the Keras model, for inputs by the names that Keras knows."""
        outputs = self.loaded.run(self.named(inputs))
        return [outputs[position] for position in self._positions]


class RuntimeDriver(Driver):
    """Runs converted models on the CPU. Imports neither Keras nor a framework.

    Args:
        runtime: which one.

    Raises:
        UnavailableError: it is not installed.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.name = runtime
        self._runtime: Runtime = runtime
        self._version = runtime_version(runtime)
        self._threads = 0

    def version(self) -> str:
        """Version of the runtime."""
        return self._version

    def devices(self) -> dict[str, list[str]]:
        """The CPU alone: kcost runs exported files there."""
        return {"cpu": [platform.processor() or platform.machine()], "gpu": [], "tpu": []}

    def set_threads(self, threads: int) -> None:
        """Takes effect for files that are loaded from now on."""
        self._threads = threads

    def load(self, keras_file: Path, precision: Any) -> ConvertedModel:
        """A converted model.

        Args:
            keras_file: the folder of the conversion; the name is that of the interface.
            precision: what it was converted to.

        Raises:
            ArtifactError: the folder or its file is missing or damaged.
            InputError: it was converted for another runtime or precision.
        """
        conversion = read_conversion(keras_file)
        if (conversion.runtime, conversion.precision) != (self._runtime, precision):
            raise InputError(
                f"A {self._runtime} cell in {precision} measures a model that was converted so.",
                received=f"{keras_file}, for {conversion.runtime} in {conversion.precision}",
                remedy="Convert the model again.",
            )
        path = keras_file / conversion.file
        return ConvertedModel(
            conversion, open_file(self._runtime, path, threads=self._threads, precision=conversion.precision)
        )

    def computed_dtype(self, model: ConvertedModel) -> str:
        """The precision that the model was converted to."""
        return model.conversion.precision

    def compile_forward(self, model: ConvertedModel, method: str) -> Step:
        """The file's own forward pass; a runtime has one method, `run`."""
        return model.run

    def predict_step(self, model: ConvertedModel, batch: int) -> Step:
        """Raises UnavailableError: `predict` is Keras's."""
        raise self._lacks("predict")

    def train_step(self, model: ConvertedModel, loss: Any) -> NoReturn:
        """Raises UnavailableError: an exported file holds the forward pass alone."""
        raise self._lacks("training")

    def int8_matmul(self, x: Any, w: Any) -> NoReturn:
        """Raises UnavailableError: a runtime runs whole files."""
        raise self._lacks("products of its own")

    def to_host(self, outputs: Any) -> list[np.ndarray]:
        """The outputs, which lie on the host already, with bfloat16 as float32."""
        return [as_host_array(output) for output in outputs]

    def device_kind(self, outputs: Any) -> str:
        """Always cpu."""
        return "cpu"

    def trace_steps(self, subject: Subject, steps: int) -> Trace:
        """The operations of the file, by the runtime's own profiler. Raises as `LoadedFile.trace_steps` does."""
        model: ConvertedModel = subject.model
        return model.loaded.trace_steps([model.named(batch) for batch in subject.batches], steps)

    def _lacks(self, what: str) -> UnavailableError:
        return UnavailableError("A runtime runs the forward pass of an exported file.", f"{self._runtime}, {what}")


def runtime_driver(runtime: Runtime) -> RuntimeDriver:
    """The driver of a runtime, as `kcost.backends.driver` gives that of a backend."""
    return RuntimeDriver(runtime)

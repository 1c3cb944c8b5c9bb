"""A .tflite file through LiteRT's interpreter with XNNPACK, its CPU library."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kcost.core.artifact import TensorSpec
from kcost.core.conversion import RuntimePrecision
from kcost.core.cpu_quota import default_threads
from kcost.core.errors import ArtifactError, InputError
from kcost.runtimes.base import DAMAGED, LoadedFile, refusals


class LoadedTflite(LoadedFile):
    """The only signature of a .tflite file.

    An interpreter plans its memory for one set of shapes. Inputs of other shapes are allowed: it then plans again,
    which takes about as long as a step.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        with refusals(ArtifactError, "LiteRT opens a .tflite file.", path, DAMAGED):
            # As bytes: given a path, the interpreter ends the process on some damaged files.
            self._interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads or default_threads())
            signatures = self._interpreter.get_signature_list()
        if len(signatures) != 1:
            raise ArtifactError(
                "A .tflite file has one signature, which names its inputs.",
                received=f"{path} with {len(signatures)}",
                remedy="Convert the model again.",
            )
        runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        details = runner.get_input_details()
        self._indices = {name: int(detail["index"]) for name, detail in details.items()}
        self.inputs = tuple(
            TensorSpec(
                name=name,
                shape=tuple(None if size < 0 else int(size) for size in detail["shape_signature"]),
                dtype=np.dtype(detail["dtype"]).name,
            )
            for name, detail in details.items()
        )
        details_by_name = runner.get_output_details()
        self.outputs = tuple(details_by_name)
        self._output_indices = [int(detail["index"]) for detail in details_by_name.values()]
        self._shapes: list[tuple[int, ...]] = []

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """See LoadedFile.run."""
        if self._interpreter is None:
            raise ValueError("A closed file cannot run.")
        arrays = self.ordered(inputs)
        indices = [self._indices[spec.name] for spec in self.inputs]
        with refusals(InputError, "A .tflite file runs on inputs that its operations take.", self._path, DAMAGED):
            if self._shapes != [array.shape for array in arrays]:
                for index, array in zip(indices, arrays, strict=True):
                    self._interpreter.resize_tensor_input(index, array.shape)
                self._interpreter.allocate_tensors()
                self._shapes = [array.shape for array in arrays]
            for index, array in zip(indices, arrays, strict=True):
                self._interpreter.set_tensor(index, array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._output_indices]

    def close(self) -> None:
        """See LoadedFile.close."""
        self._interpreter = None


def load(path: Path, threads: int, precision: RuntimePrecision) -> LoadedTflite:
    """A .tflite file; the precision is in it."""
    return LoadedTflite(path, threads)


def version() -> str:
    """Version of LiteRT."""
    return importlib.metadata.version("ai_edge_litert")

"""A SavedModel through libtensorflow, behind the interface of all runtimes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kcost.core.artifact import TensorSpec
from kcost.core.conversion import RuntimePrecision
from kcost.core.cpu_quota import default_threads
from kcost.runtimes.base import LoadedFile
from kcost.runtimes.saved_model import SavedModelSession
from kcost.runtimes.tensorflow_library import library_version


class LoadedSavedModel(LoadedFile):
    """A SavedModel's `serving_default`, without XLA."""

    def __init__(self, path: Path, threads: int) -> None:
        self._session = SavedModelSession(path, threads or default_threads())
        self.inputs = tuple(
            TensorSpec(name=name, shape=tensor.shape or (), dtype=tensor.dtype)
            for name, tensor in self._session.signature.inputs.items()
        )
        self.outputs = tuple(self._session.signature.outputs)
        self.xla_operations = self._session.xla_operations

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """See LoadedFile.run; the session checks the inputs itself."""
        return list(self._session.run(inputs).values())

    def close(self) -> None:
        """See LoadedFile.close."""
        self._session.close()


def load(path: Path, threads: int, precision: RuntimePrecision) -> LoadedSavedModel:
    """A SavedModel; the precision is in its graph."""
    os.environ.pop("TF_XLA_FLAGS", None)  # it would overrule the session's settings
    return LoadedSavedModel(path, threads)


def version() -> str:
    """Version of the TensorFlow library."""
    return library_version()

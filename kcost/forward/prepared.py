"""A model that is ready to answer, prepared as the measuring worker prepares it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, final

import numpy as np

from kcost.backends import driver
from kcost.backends.base import Driver, Inputs, LoadedPrecision
from kcost.core.artifact import open_model
from kcost.core.conversion import INDEX_FILE, read_conversion
from kcost.core.errors import InputError
from kcost.core.plan import BACKENDS, INFERENCE_METHODS
from kcost.core.process import chosen_backend, require
from kcost.core.signature import InputSpec, Signature, input_structure, match_inputs, signature_of_structure
from kcost.core.suggestion import did_you_mean
from kcost.forward.runtime_driver import ConvertedModel, runtime_driver


@final
class PreparedModel:
    """A model that is ready to answer: what `kcost.load` gives. Call it with inputs.

    Attributes:
        signature: name of each input -> its shape and dtype, in the order of the model.
        method: how it runs.
    """

    def __init__(self, backend: Driver, model: Any, method: str, batch: int) -> None:
        self.method = method
        self._backend = backend
        self._step = backend.forward(model, method, batch)
        self.signature = _signature_of(model)
        structure = getattr(model, "output", None)
        self._output_keys = tuple(sorted(structure)) if isinstance(structure, Mapping) else None
        # What is the same at each call is looked up here: a step of a small model takes 0.1 ms.
        self._ready_as = {name: _ReadyAs.of(spec) for name, spec in self.signature.items()}

    def __call__(self, inputs: Any) -> Any:
        """The model's outputs.

        Args:
            inputs: rows on axis 0: an array for a model of one input, arrays in the order of the inputs, or by their
                names or the keys of the model's dictionary. numpy arrays, or tensors of the backend's own, which are
                not copied.

        Returns:
            numpy arrays in the model's structure: one array for one output, a dictionary where the model gives one,
            else a list. bfloat16 and float16 come as float32.

        Raises:
            InputError: other inputs than the model's.
        """
        outputs = self._backend.to_host(self._step(self._named(inputs)))
        if self._output_keys is not None and len(self._output_keys) == len(outputs):
            return dict(zip(self._output_keys, outputs, strict=True))
        return outputs[0] if len(outputs) == 1 else outputs

    def _named(self, inputs: Any) -> Inputs:
        ready_as = self._ready_as
        if type(inputs) is dict and inputs.keys() == ready_as.keys():
            if all(ready_as[name].holds(array) for name, array in inputs.items()):
                return inputs
        elif type(inputs) is np.ndarray and len(ready_as) == 1:
            ((name, wanted),) = ready_as.items()
            if wanted.holds(inputs):
                return {name: inputs}
        return self._matched(inputs)

    def _matched(self, inputs: Any) -> Inputs:
        names = list(self.signature)
        named: dict[str, Any]
        if isinstance(inputs, Mapping):
            by_key = {spec.key: name for name, spec in self.signature.items() if spec.key is not None}
            named = {name if name in names else by_key.get(name, str(name)): array for name, array in inputs.items()}
        elif len(names) == 1:
            is_list_of_it = isinstance(inputs, list | tuple) and len(inputs) == 1
            alone = is_list_of_it and getattr(inputs[0], "ndim", None) == len(self.signature[names[0]].shape)
            named = {names[0]: inputs[0] if alone else inputs}
        elif isinstance(inputs, list | tuple) and len(inputs) == len(names):
            named = dict(zip(names, inputs, strict=True))
        else:
            named = {}
        if set(named) != set(names):
            given = ", ".join(map(str, inputs)) if isinstance(inputs, Mapping) else f"{_count(inputs)} array(s)"
            wanted = ", ".join(f"{name} {spec}" for name, spec in self.signature.items())
            raise InputError("A model is called with an array for each of its inputs.", given, f"They are: {wanted}.")
        if all(ready.holds(named[name]) for name, ready in self._ready_as.items()):
            return named
        arrays = {name: np.asarray(array) for name, array in named.items()}
        return match_inputs(arrays, self.signature, source="the call", remedy="Give arrays of these shapes and dtypes.")


def load(
    model: str | Path,
    *,
    backend: str | None = None,
    method: str | None = None,
    batch: int = 32,
    threads: int = 0,
    precision: LoadedPrecision = "float32",
) -> PreparedModel:
    """A model as a function, prepared in this process exactly as a cell of `kcost bench` is.

    A plain `tf.function` or `model(x)` over a file with kcost's layers is slower: the backend's compiled form turns
    weights into constants, which its int8 kernels need.

    Args:
        model: a `.keras` file, an artifact folder, or the folder of a conversion (`converted/...` in a run folder).
        backend: tensorflow, jax or torch; default: KERAS_BACKEND, else the first installed. A process has one: where
            Keras is imported already, it is that one. A conversion needs none.
        method: one of the backend's (`graph`, `xla`, `jit`, `eager`, `compile`, `predict`); default: its plain compiled
            forward (graph, jit, eager).
        batch: rows of a call that it is made ready for: it answers one such call, of made-up rows, before it is given.
        threads: CPU threads, as a worker of that many has; 0 leaves this process as it is. More than 0 pins the process
            to as many cores, since XLA on a CPU goes by that.
        precision: as `precisions` of a plan: float32, bfloat16, or saved.

    Raises:
        InputError: this process has another backend already, or there is no such method.
        UnavailableError: the backend is not installed, or the model cannot be had at that precision.
        ArtifactError: the file cannot be loaded.

    Examples:
        >>> model = kcost.load("digits.keras", batch=4)
        >>> model(np.zeros((4, 28, 28, 1), "float32")).shape
        (4, 10)
    """
    path = Path(model)
    if (path / INDEX_FILE).is_file():
        conversion = read_conversion(path)
        runtime = runtime_driver(conversion.runtime)
        runtime.set_threads(_pinned(threads))
        return PreparedModel(runtime, runtime.load(path, conversion.precision), "run", batch)
    name = _backend_of_this_process(backend)
    known = INFERENCE_METHODS[name]
    if method is not None and method not in known:
        raise InputError(
            f"{name} runs a model by one of {', '.join(known)}.",
            repr(method),
            f"{did_you_mean(method, known)}Name one of them, or none.",
        )
    own = driver(name)
    if count := _pinned(threads):
        own.set_threads(count)
    loaded = own.load(open_model(path).keras_file, precision)
    prepared = PreparedModel(own, loaded, method or known[0], batch)
    _warm_up(prepared, loaded, batch)
    return prepared


def _backend_of_this_process(named: str | None) -> Any:
    keras = sys.modules.get("keras")
    if keras is None:
        name = chosen_backend() if named is None else require(named)
        os.environ["KERAS_BACKEND"] = name
        return name
    there = keras.backend.backend()
    if named is not None and named not in BACKENDS:
        require(named)  # which says what there is
    if named not in (None, there):
        raise InputError(
            "A process has one backend: the one that Keras was imported with.",
            f"{named!r}, in a process with {there}",
            f"Set KERAS_BACKEND={named} before Keras is imported, or leave `backend` out.",
        )
    if there not in BACKENDS:
        raise InputError(f"A backend is one of {', '.join(BACKENDS)}.", repr(there), "Set KERAS_BACKEND to one.")
    return there


def _pinned(threads: int) -> int:
    """Pins this process to as many cores; the count, 0 for no wish."""
    if threads < 0:
        raise InputError("Threads are counted from 0 on; 0 leaves them as they are.", str(threads))
    if threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return threads


def _warm_up(prepared: PreparedModel, model: Any, batch: int) -> None:
    """Compiles what is compiled for a batch, on made-up rows."""
    from kcost.models.probing import recipe_of

    prepared(recipe_of(model).make(batch, 0))


def _signature_of(model: Any) -> Signature:
    if isinstance(model, ConvertedModel):
        return {i.model_name: InputSpec(i.shape, i.dtype, i.key) for i in model.conversion.inputs}
    return signature_of_structure(input_structure(model))


class _ReadyAs(NamedTuple):
    """What goes into an input as it is: an array of these axes and dtype, or a tensor of a framework."""

    axes: int
    sizes: tuple[tuple[int, int], ...]
    """Of the axes that are not free: which one, and its size."""
    dtype: np.dtype[Any] | None
    """None where numpy has no such dtype: an array of it never goes in as it is."""

    @classmethod
    def of(cls, spec: InputSpec) -> Self:
        sizes = tuple((axis, size) for axis, size in enumerate(spec.shape) if axis and size is not None)
        try:
            dtype = np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype)
        except TypeError:
            dtype = None
        return cls(len(spec.shape), sizes, dtype)

    def holds(self, value: Any) -> bool:
        if isinstance(value, np.ndarray):
            if self.dtype is None or value.dtype != self.dtype or value.ndim != self.axes:
                return False
            shape = value.shape
            return all(shape[axis] == size for axis, size in self.sizes)
        return not isinstance(value, Sequence | np.generic | int | float)


def _count(inputs: Any) -> int:
    return len(inputs) if isinstance(inputs, list | tuple) else 1

"""Runs a SavedModel through TensorFlow's C library: no Keras, no `import tensorflow`, and never XLA.

The wheel of TensorFlow carries the library that TensorFlow Serving is built from. Loading it with ctypes takes
a third of a second, where importing the Python package takes several.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from kcost.core.cpu_instructions import INT8_OPERATIONS, no_int8_cpu
from kcost.core.errors import ArtifactError, InputError, UnavailableError, first_line
from kcost.runtimes import meta_graph
from kcost.runtimes.denormals import DenormalsAreZero
from kcost.runtimes.meta_graph import DTYPES, Signature, Tensor
from kcost.runtimes.protobuf import encode
from kcost.runtimes.tensorflow_library import Output, Pointer, library

SERVING_SIGNATURE = "serving_default"
"""The signature that TensorFlow Serving uses where a request names none."""

_TAG = b"serve"
_DATA_TYPES = {name: number for number, name in DTYPES.items()}
_REFERENCE = 100
"""What the number of a dtype is greater by where a variable of TensorFlow 1 itself is given, and not a copy of it:
tensorflow/core/framework/types.proto."""

_RESOURCE_EXHAUSTED = 8
_JIT_OFF = -1

_STRING = np.dtype(object)

_STRING_BYTES = 24
"""Size of a TF_TString, the same on every platform with 64 bits: tensorflow/core/platform/ctstring.h."""

_SMALL_BYTES = 1 << 14
"""Of an array. Up to so many it takes longer to ask numpy where an array lies than to copy the array once more."""

_KEPT_SHAPES = 256


class _Column:
    """An input of a signature that is bound: what a run would have to find out each time."""

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.name = name
        self.tensor = tensor
        self.dtype = _numpy_dtype(tensor.dtype)
        self.data_type = _DATA_TYPES[tensor.dtype]
        """TensorFlow's number of the dtype."""
        self._axes: dict[tuple[int, ...], ctypes.Array[ctypes.c_int64]] = {}

    def axes(self, shape: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
        """A shape as the library takes it. Raises InputError where it does not fit."""
        axes = self._axes.get(shape)
        if axes is None:
            if self.tensor.shape is not None and not _fits(shape, self.tensor.shape):
                raise InputError(
                    f"The input {self.name!r} has the shape {_shape_text(self.tensor.shape)}.",
                    received=f"an array of shape {_shape_text(shape)}",
                    remedy="The first axis is the batch; an axis written as `any` is free.",
                )
            if len(self._axes) >= _KEPT_SHAPES:
                self._axes.clear()
            axes = self._axes[shape] = (ctypes.c_int64 * len(shape))(*shape)
        return axes


class _Bound(NamedTuple):
    """A signature whose tensors were looked up."""

    names: frozenset[str]
    inputs: tuple[_Column, ...]
    outputs: tuple[tuple[str, np.dtype[Any]], ...]
    graph_inputs: ctypes.Array[Output]
    graph_outputs: ctypes.Array[Output]
    feeds: type[ctypes.Array[Pointer]]
    """Of the tensors that a run is given, as many as there are inputs."""
    fetches: type[ctypes.Array[Pointer]]
    """Of those that it gives."""


class SavedModelSession:
    """A loaded SavedModel. Use it as a context manager, or call `close`; it holds the weights until then.

    XLA is off in the session's settings; the environment variable TF_XLA_FLAGS would overrule them, so a process
    that must not use XLA starts without it. A graph may still carry operations that are compiled by XLA wherever
    they run: `xla_operations` names them.

    Args:
        path: the folder with saved_model.pb.
        threads: CPU threads, 0 for every core. TensorFlow sizes its pools once a process, at the first session.
        signature: which of the model's signatures `run` runs.
        strings: whether tensors of strings are taken and given, as numpy arrays of `bytes` objects. Without it, a
            signature that has some is refused.
        caller_thread: with one thread, run in the thread that calls, and not in a pool of one. That saves two switches
            of threads a run. The thread takes denormal numbers for 0 meanwhile, as those of the pool do. With more
            threads it changes nothing, since operations would no longer run side by side.

    Raises:
        ArtifactError: no SavedModel is there, it is damaged, or it has no such signature.
        UnavailableError: the TensorFlow library is not installed, or the graph has int8 products, and this machine has
            no instructions by which they are exact.
    """

    def __init__(
        self,
        path: Path | str,
        threads: int = 0,
        signature: str | None = SERVING_SIGNATURE,
        strings: bool = False,
        *,
        caller_thread: bool = False,
    ) -> None:
        self._tf = library()
        self._path = Path(path)
        self._graph = Pointer(self._tf.TF_NewGraph())
        self._session: ctypes.c_void_p | None = None
        self._statuses: list[Any] = []
        """Those that no run has now. Each thread that runs takes one, or makes it."""
        try:
            description = meta_graph.parse(self._load(_config(threads, caller_thread=caller_thread)))
            self._refuse_inexact(description.operations)
            self.signatures: dict[str, Signature] = description.signatures
            self.xla_operations: tuple[str, ...] = description.xla
            self._strings = strings
            self._bound: dict[str, _Bound] = {}
            self._around_run = DenormalsAreZero if caller_thread and threads == 1 else contextlib.nullcontext
            self._signature = signature
            if signature is not None:
                self.bind(signature)
        except BaseException:
            self.close()
            raise

    def _refuse_inexact(self, operations: frozenset[str]) -> None:
        """Raises UnavailableError for int8 products that are not exact on this machine.

        That was looked at where the graph was made, which may be another machine. Processors of x86 cut sums off.
        """
        int8, reason = sorted(operations & INT8_OPERATIONS), no_int8_cpu()
        if int8 and reason is not None and platform.machine().lower() in ("x86_64", "amd64"):
            raise UnavailableError(
                "A graph with int8 products of oneDNN runs on a CPU with VNNI or AMX: elsewhere their sums are cut off "
                "at 16 bits, and answers are wrong.",
                received=f"{self._path} with {', '.join(int8)}; {reason}",
                remedy="Export a portable version (kcost export --portable), or on a machine of this kind.",
            )

    @property
    def signature(self) -> Signature:
        """The one that `run` runs. Raises ArtifactError for a session that was opened with none."""
        return self._named(self._signature or "")

    def bind(self, signature: str) -> None:
        """Looks up the tensors of a signature, so that `run_signature` runs it.

        Raises:
            ArtifactError: there is no such signature, or a tensor of it is sparse, composite or of strings.
        """
        named = self._named(signature)
        graph_inputs, graph_outputs = self._outputs_of(named.inputs), self._outputs_of(named.outputs)
        self._bound[signature] = _Bound(
            frozenset(named.inputs),
            tuple(_Column(name, tensor) for name, tensor in named.inputs.items()),
            tuple((name, self._dtype(name, output)) for name, output in zip(named.outputs, graph_outputs, strict=True)),
            graph_inputs,
            graph_outputs,
            Pointer * len(graph_inputs),
            Pointer * len(graph_outputs),
        )

    def _named(self, signature: str) -> Signature:
        if signature not in self.signatures:
            raise ArtifactError(
                f"The SavedModel has the signature {signature!r}.",
                received=f"{self._path} with the signatures {', '.join(sorted(self.signatures)) or 'none'}",
                remedy="Name one of its own signatures, or export the model with that one.",
            )
        return self.signatures[signature]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the signature once.

        Args:
            inputs: one array for each input of the signature, of its shape. A dtype of the same kind is
                converted (int64 to int32, float64 to float32).

        Returns:
            One new array for each output of the signature.

        Raises:
            InputError: an input is missing, unknown, or of another dtype or shape.
            MemoryError: TensorFlow ran out of memory.
        """
        return self.run_signature(self._signature or "", inputs)

    def run_signature(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature that `bind` was called with, once. As `run` otherwise."""
        if self._session is None:
            raise ValueError("A closed session cannot run.")
        bound, tf = self._bound[name], self._tf
        if inputs.keys() != bound.names:
            raise InputError(
                f"The signature takes the inputs {', '.join(column.name for column in bound.inputs)}.",
                received=", ".join(inputs) or "none",
            )
        arrays = [_as_input(inputs[column.name], column) for column in bound.inputs]
        feeds, fetches = bound.feeds(), bound.fetches()
        try:
            status = self._statuses.pop()
        except IndexError:
            status = tf.TF_NewStatus()
        try:
            for i, (array, column) in enumerate(zip(arrays, bound.inputs, strict=True)):
                feeds[i] = self._new_tensor(array, column)
            with self._around_run():
                tf.TF_SessionRun(
                    *(self._session, None, bound.graph_inputs, feeds, len(feeds)),
                    *(bound.graph_outputs, fetches, len(fetches), None, 0, None, status),
                )
            self._check(
                *(status, InputError, "A SavedModel runs on inputs of its signature's shapes."),
                "Give inputs of those shapes, and values that the model knows.",
            )
            return {
                name: self._to_array(tensor, dtype)
                for (name, dtype), tensor in zip(bound.outputs, fetches, strict=True)
            }
        finally:
            for feed, array, column in zip(feeds, arrays, bound.inputs, strict=True):
                if feed and column.dtype is _STRING:
                    self._free_strings(feed, array.size)
            for tensor in (*feeds, *fetches):
                if tensor:
                    tf.TF_DeleteTensor(tensor)
            if self._session is None:  # closed meanwhile
                tf.TF_DeleteStatus(status)
            else:
                self._statuses.append(status)  # the next run sets it anew

    def close(self) -> None:
        """Frees the session and its weights. Calling it again does nothing."""
        if self._session is not None:
            while self._statuses:
                self._tf.TF_DeleteStatus(self._statuses.pop())
            status = Pointer(self._tf.TF_NewStatus())
            self._tf.TF_CloseSession(self._session, status)
            self._tf.TF_DeleteSession(self._session, status)
            self._tf.TF_DeleteStatus(status)
            self._session = None
        if self._graph:
            self._tf.TF_DeleteGraph(self._graph)
            self._graph = Pointer()

    def __enter__(self) -> SavedModelSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self, config: bytes) -> bytes:
        """Loads graph and weights into `_graph` and `_session`; returns the serialized MetaGraphDef."""
        tf = self._tf
        status, options = Pointer(tf.TF_NewStatus()), Pointer(tf.TF_NewSessionOptions())
        buffer = tf.TF_NewBuffer()
        try:
            tf.TF_SetConfig(options, config, len(config), status)
            self._check(status, ArtifactError, "TensorFlow takes the session's settings.", None)
            tags = (ctypes.c_char_p * 1)(_TAG)
            session = tf.TF_LoadSessionFromSavedModel(
                options, None, os.fsencode(self._path), tags, 1, self._graph, buffer, status
            )
            self._check(
                *(status, ArtifactError, "A SavedModel is a folder with saved_model.pb and variables/."),
                "Give the version folder of an export, or export the model again.",
            )
            self._session = Pointer(session)
            return ctypes.string_at(buffer.contents.data, buffer.contents.length)
        finally:
            tf.TF_DeleteBuffer(buffer)
            tf.TF_DeleteSessionOptions(options)
            tf.TF_DeleteStatus(status)

    def _outputs_of(self, tensors: Mapping[str, Tensor]) -> ctypes.Array[Output]:
        """The TF_Output of each tensor, looked up once."""
        outputs = (Output * len(tensors))()
        for i, (name, tensor) in enumerate(tensors.items()):
            is_text = tensor.dtype == "string" and not self._strings
            if tensor.operation is None or is_text or tensor.dtype not in _DATA_TYPES:
                kind = "sparse or composite" if tensor.operation is None else tensor.dtype
                raise ArtifactError(
                    "kcost runs SavedModels on dense tensors of numbers and booleans.",
                    received=f"{self._path}, where {name!r} is {kind}",
                    remedy="Export the model without the layers that read text or sparse tensors.",
                )
            operation = self._tf.TF_GraphOperationByName(self._graph, tensor.operation.encode())
            if not operation or not 0 <= tensor.output < self._tf.TF_OperationNumOutputs(operation):
                raise ArtifactError(
                    "The tensors of a signature are in the graph.",
                    received=f"{self._path}, where {name!r} is '{tensor.operation}:{tensor.output}', which is not",
                    remedy="The file is damaged. Export the model again.",
                )
            outputs[i] = Output(operation, tensor.output)
        return outputs

    def _dtype(self, name: str, output: Output) -> np.dtype[Any]:
        """Of what a graph gives, whatever the signature says of it."""
        number = self._tf.TF_OperationOutputType(output)
        dtype = DTYPES.get(number - _REFERENCE if number > _REFERENCE else number)
        if dtype is None or (dtype == "string" and not self._strings):
            raise ArtifactError(
                "kcost runs SavedModels on dense tensors of numbers and booleans.",
                received=f"{self._path}, whose graph gives {dtype or f'TensorFlow type {number}'} for {name!r}",
                remedy="Export the model again: its signature says something else.",
            )
        return _numpy_dtype(dtype)

    def _new_tensor(self, array: np.ndarray, column: _Column) -> int:
        tf, is_text = self._tf, column.dtype is _STRING
        size = array.size * _STRING_BYTES if is_text else array.nbytes
        tensor: int | None = tf.TF_AllocateTensor(column.data_type, column.axes(array.shape), array.ndim, size)
        if not tensor:
            raise MemoryError(f"TensorFlow allocates {size} bytes for an input.")
        start = tf.TF_TensorData(tensor)
        if not is_text:
            ctypes.memmove(start, array.tobytes() if size <= _SMALL_BYTES else _address(array), size)
            return tensor
        for i, text in enumerate(array.ravel()):
            place = start + i * _STRING_BYTES
            tf.TF_StringInit(place)
            tf.TF_StringCopy(place, text, len(text))
        return tensor

    def _free_strings(self, tensor: int, count: int) -> None:
        """Frees what the strings of an input hold: TensorFlow does so for tensors of its own alone."""
        start = self._tf.TF_TensorData(tensor)
        for i in range(count):
            self._tf.TF_StringDealloc(start + i * _STRING_BYTES)

    def _read_strings(self, tensor: int, shape: tuple[int, ...]) -> np.ndarray:
        tf, array = self._tf, np.empty(shape, object)
        start = tf.TF_TensorData(tensor)
        flat = array.reshape(-1)
        for i in range(array.size):
            place = start + i * _STRING_BYTES
            size = tf.TF_StringGetSize(place)
            flat[i] = ctypes.string_at(tf.TF_StringGetDataPointer(place), size) if size else b""
        return array

    def _to_array(self, tensor: int, dtype: np.dtype[Any]) -> np.ndarray:
        tf = self._tf
        shape = tuple([tf.TF_Dim(tensor, i) for i in range(tf.TF_NumDims(tensor))])
        if dtype is _STRING:
            return self._read_strings(tensor, shape)
        size, start = math.prod(shape) * dtype.itemsize, tf.TF_TensorData(tensor)
        if 0 < size <= _SMALL_BYTES:
            return np.frombuffer(bytearray(ctypes.string_at(start, size)), dtype).reshape(shape)
        array = np.empty(shape, dtype)
        ctypes.memmove(_address(array), start, size)
        return array

    def _check(self, status: Any, kind: type[InputError], rule: str, remedy: str | None) -> None:
        code = self._tf.TF_GetCode(status)
        if code == 0:
            return
        reason = first_line(self._tf.TF_Message(status).decode(errors="replace")) or f"TensorFlow error {code}"
        if code == _RESOURCE_EXHAUSTED:
            raise MemoryError(reason)
        raise kind(rule, f"{self._path}: {reason}", remedy)


def _config(threads: int, *, caller_thread: bool) -> bytes:
    """A serialized tensorflow.ConfigProto: the number of threads, and XLA's automatic clustering off."""
    optimizer_options = encode(5, _JIT_OFF)  # global_jit_level
    config = encode(10, encode(3, optimizer_options))  # graph_options.optimizer_options
    if threads:
        # intra_op and inter_op_parallelism_threads; a negative number of the latter is the caller's thread.
        config += encode(2, threads) + encode(5, -1 if caller_thread and threads == 1 else threads)
    return config


@functools.cache
def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name == "string":
        return _STRING
    if name == "bfloat16":
        import ml_dtypes  # comes with tensorflow, which is there where this is called

        name = ml_dtypes.bfloat16
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def _address(array: np.ndarray) -> int:
    """Where the numbers of an array lie. `array.ctypes.data` makes an object of Python's for it."""
    address: int = array.__array_interface__["data"][0]
    return address


def _as_input(value: np.ndarray, column: _Column) -> np.ndarray:
    """`value` in the tensor's dtype, contiguous.

    The shape is checked here, because TensorFlow does not: an image without its batch axis ends the process
    in oneDNN's convolution.
    """
    name, wanted = column.name, column.dtype
    array = np.asarray(value)
    if wanted is _STRING and not all(isinstance(text, bytes) for text in array.ravel()):
        raise InputError(f"The input {name!r} is an array of bytes objects.", received=f"an array of {array.dtype}")
    column.axes(array.shape)
    if array.dtype == wanted:
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise InputError(
            f"The input {name!r} is of dtype {column.tensor.dtype}.",
            received=f"an array of dtype {array.dtype}",
            remedy=f"Convert it: array.astype({column.tensor.dtype!r})",
        )
    return np.asarray(array, dtype=wanted, order="C")


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or w == s for s, w in zip(shape, wanted, strict=True))


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"

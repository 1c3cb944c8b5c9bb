"""Runs a model for a server: arrays come and go on a socket, through the library of one runtime alone."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kcost.core import frames
from kcost.core.artifact import TensorSpec
from kcost.core.conversion import INDEX_FILE, Conversion, Runtime, read_conversion
from kcost.core.errors import ArtifactError, InputError
from kcost.core.frames import Kind, Message
from kcost.core.serving import ServeAnswer, ServedModel, ServedSignature, ServedTensor, ServeRequest
from kcost.runtimes.base import open_file, runtime_version
from kcost.runtimes.denormals import DenormalsAreZero
from kcost.runtimes.meta_graph import Signature, Tensor
from kcost.worker.lengths import with_padding
from kcost.worker.warm_up import warm_up

if TYPE_CHECKING:
    from kcost.runtimes.saved_model import SavedModelSession

INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL = 3, 8, 13
"""Status codes of TensorFlow: tsl/protobuf/error_codes.proto."""

_READ_BYTES = 1 << 18

PRIMITIVES_VARIABLE, MOST_PRIMITIVES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", 8192
"""oneDNN prepares each product for its very shape, and keeps 1024 of them unless it is told otherwise. Batches have
more shapes than that has room for, and to prepare the products of a step takes as long as the step."""


def run(request: ServeRequest) -> ServeAnswer:
    """Loads the model, says READY on the socket, and answers RUN messages until the other side closes it.

    Before it is READY the model is tried, unless the request leaves that out: whether its rows may be padded, and so
    that it is warm. These calls are nobody's request, and may end the process or never return. LOADED comes before
    them, so that the server knows what was to blame.

    Raises:
        ArtifactError: the folder holds no model that the runtime loads, or one that does not say its signature.
        UnavailableError: the runtime is not installed.
    """
    os.sched_setaffinity(0, request.cores)
    with socket.socket(fileno=request.socket_fd) as connection:
        served = _open(request.runtime, request.folder, request.threads)
        try:
            if request.tries:
                _send(connection, 0, Kind.LOADED, [])
                served.model = with_padding(served.model, served.run, request.threads)
                warm_up(served.model, served.run)
            ready = served.model.model_dump_json().encode()
            _send(connection, 0, Kind.READY, [ready])
            runs, reader = 0, frames.MessageReader()
            while piece := connection.recv(_READ_BYTES):
                for message in reader.read(piece):
                    _answer(connection, served, message)
                    runs += 1
        finally:
            served.close()
        return ServeAnswer(runs=runs)


class Served(ABC):
    """A model that is loaded, and what it says of itself."""

    model: ServedModel
    path: Path
    """That the runtime opened: its errors begin with it."""

    @abstractmethod
    def run(self, signature: ServedSignature, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of a signature in its order. Raises InputError for inputs that it cannot take."""

    @abstractmethod
    def close(self) -> None:
        """Frees it."""


def _open(runtime: Runtime, folder: Path, threads: int) -> Served:
    if runtime == "saved_model":
        os.environ.pop("TF_XLA_FLAGS", None)  # it would overrule the session's settings
        os.environ.setdefault(PRIMITIVES_VARIABLE, str(MOST_PRIMITIVES))
        return ServedSavedModel(folder, threads)
    return ServedConversion(runtime, folder, threads)


class ServedSavedModel(Served):
    """A SavedModel with all its signatures.

    Args:
        folder: with saved_model.pb.
        threads: CPU threads.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        from kcost.runtimes.saved_model import SavedModelSession

        self.path = folder
        self._session = SavedModelSession(folder, threads, signature=None, strings=True, caller_thread=True)
        self.model = describe(self._session)
        # The session has this thread do so for each run, and finds that it does already, which takes less.
        self._around_runs = contextlib.ExitStack()
        if threads == 1:
            self._around_runs.enter_context(DenormalsAreZero())

    def run(self, signature: ServedSignature, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """See Served.run."""
        outputs = self._session.run_signature(signature.name, inputs)
        return [_plain(outputs[tensor.name], tensor.dtype) for tensor in signature.outputs]

    def close(self) -> None:
        """See Served.close."""
        self._around_runs.close()
        self._session.close()


PLATFORMS: dict[Runtime, str] = {"litert": "tensorflow_lite", "onnx": "onnx_onnxv1", "openvino": "openvino_ir"}
ONE_SCALE = "its activations have one scale over all rows of a batch: an answer would depend on other requests"


class ServedConversion(Served):
    """A converted file, whose one signature is what conversion.json says of it.

    Args:
        runtime: that opens it.
        folder: with conversion.json.
        threads: CPU threads.

    Raises:
        ArtifactError: conversion.json is not there, of another runtime, or says something else than the file.
    """

    def __init__(self, runtime: Runtime, folder: Path, threads: int) -> None:
        remedy = f"Convert the model anew: kcost export ARTIFACT --out DIR --name NAME --to {runtime}"
        if not (folder / INDEX_FILE).is_file():
            raise ArtifactError(
                f"A converted model says its signature, shapes and dtypes of inputs and outputs, in {INDEX_FILE}.",
                received=f"{folder} without it",
                remedy=remedy,
            )
        about = read_conversion(folder)
        if about.runtime != runtime:
            raise ArtifactError(
                f"A version of the backend {runtime} is a conversion to it.",
                received=f"{folder} with one to {about.runtime}",
                remedy=f"Serve it with --backend {about.runtime}, or convert the model to {runtime}.",
            )
        self.path = folder / about.file
        self._file = open_file(runtime, self.path, threads=threads, precision=about.precision)
        ours = ([_text(i) for i in about.inputs], [o.name for o in about.outputs])
        theirs = ([_text(i) for i in self._file.inputs], list(self._file.outputs))
        if ours != theirs:
            self._file.close()
            raise ArtifactError(
                f"{INDEX_FILE} says what the file beside it takes and gives.",
                received=f"{folder}: {ours}, where the file has {theirs}",
                remedy=remedy,
            )
        self._names = list(self._file.outputs)
        self.model = ServedModel(
            signatures=(_signature_of(about),),
            library_version=f"{runtime} {runtime_version(runtime)}",
            platform=PLATFORMS[runtime],
        )

    def run(self, signature: ServedSignature, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """See Served.run."""
        outputs = dict(zip(self._names, self._file.run(inputs), strict=True))
        return [_plain(outputs[tensor.name], tensor.dtype) for tensor in signature.outputs]

    def close(self) -> None:
        """See Served.close."""
        self._file.close()


def _signature_of(about: Conversion) -> ServedSignature:
    def tensors(specs: Sequence[TensorSpec]) -> tuple[ServedTensor, ...]:
        named = sorted(specs, key=lambda spec: spec.name)
        return tuple(ServedTensor(name=s.name, dtype=s.dtype, shape=s.shape, graph_name=s.name) for s in named)

    one_scale = (about.runtime, about.precision) == ("onnx", "int8_dynamic")
    return ServedSignature(
        name="serving_default",
        method="tensorflow/serving/predict",
        inputs=tensors(about.inputs),
        outputs=tensors(about.outputs),
        alone_because=ONE_SCALE if one_scale else None,
    )


def _text(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} ({', '.join('any' if size is None else str(size) for size in spec.shape)})"


def describe(session: SavedModelSession) -> ServedModel:
    """The signatures of a model, each bound where it can be run."""
    from kcost.runtimes.tensorflow_library import library_version

    signatures = []
    for name, signature in sorted(session.signatures.items()):
        reason = None
        try:
            session.bind(name)
        except ArtifactError as error:
            reason = str(error.received)
        signatures.append(_described(name, signature, reason))
    return ServedModel(signatures=tuple(signatures), library_version=library_version())


def _described(name: str, signature: Signature, reason: str | None) -> ServedSignature:
    def tensors(named: dict[str, Tensor]) -> tuple[ServedTensor, ...]:
        return tuple(
            ServedTensor(
                name=key,
                dtype=tensor.dtype,
                shape=tensor.shape,
                graph_name="" if tensor.operation is None else f"{tensor.operation}:{tensor.output}",
            )
            for key, tensor in sorted(named.items())
        )

    return ServedSignature(
        name=name,
        method=signature.method,
        inputs=tensors(signature.inputs),
        outputs=tensors(signature.outputs),
        refused_because=reason,
    )


def _answer(connection: socket.socket, served: Served, message: Message) -> None:
    """Answers one RUN message. Whatever goes wrong is the answer: other requests wait behind this one."""
    try:
        (place,) = struct.unpack_from("<H", message.body)
        signature = served.model.signatures[place]
        arrays = frames.decode_arrays(message.body[2:])
        inputs = {tensor.name: array for tensor, array in zip(signature.inputs, arrays, strict=True)}
        start = time.perf_counter_ns()
        outputs = served.run(signature, inputs)
        run_ns = time.perf_counter_ns() - start
        parts = [struct.pack("<Q", run_ns), *frames.encode_arrays(outputs)]
    except InputError as error:
        # Without the path of the model, which is no business of a client's.
        text = str(error.received).removeprefix(f"{served.path}: ").encode()
        _send(connection, message.number, Kind.ERROR, [bytes([INVALID_ARGUMENT]), text])
    except MemoryError as error:
        _send(connection, message.number, Kind.ERROR, [bytes([RESOURCE_EXHAUSTED]), str(error).encode()])
    except Exception as error:
        text = f"{type(error).__name__}: {error}".encode()
        _send(connection, message.number, Kind.ERROR, [bytes([INTERNAL]), text])
    else:
        _send(connection, message.number, Kind.ANSWER, parts)


def _plain(array: np.ndarray, dtype: str) -> np.ndarray:
    """bfloat16, which numpy knows only with a package of TensorFlow's, as float32; all else as it is.

    Args:
        array: an output.
        dtype: of it, by the signature: numpy works out the name of a dtype in Python each time.
    """
    return array.astype(np.float32) if dtype == "bfloat16" else array


def _send(connection: socket.socket, number: int, kind: Kind, parts: list[bytes | memoryview]) -> None:
    connection.sendall(b"".join(frames.encode(number, kind, parts)))

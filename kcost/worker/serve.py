"""Runs a SavedModel for a server: arrays come and go on a socket, through TensorFlow's C library alone."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

import numpy as np

from kcost.core import frames
from kcost.core.errors import ArtifactError, InputError
from kcost.core.frames import Kind, Message
from kcost.core.serving import ServeAnswer, ServedModel, ServedSignature, ServedTensor, ServeRequest
from kcost.runtimes.meta_graph import Signature, Tensor
from kcost.runtimes.saved_model import SavedModelSession, library_version

INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL = 3, 8, 13
"""Status codes of TensorFlow: tsl/protobuf/error_codes.proto."""

_READ_BYTES = 1 << 18


def run(request: ServeRequest) -> ServeAnswer:
    """Loads the model, says READY on the socket, and answers RUN messages until the other side closes it.

    Raises:
        ArtifactError: the folder holds no SavedModel that TensorFlow loads.
        UnavailableError: the TensorFlow library is not installed.
    """
    os.sched_setaffinity(0, request.cores)
    os.environ.pop("TF_XLA_FLAGS", None)  # it would overrule the session's settings
    threads = request.threads or len(request.cores)
    connection = socket.socket(fileno=request.socket_fd)
    with (
        connection,
        SavedModelSession(request.folder, threads, signature=None, strings=True, caller_thread=True) as session,
    ):
        served = describe(session)
        ready = served.model_dump_json().encode()
        _send(connection, 0, Kind.READY, [ready])
        runs, buffer = 0, bytearray()
        while chunk := connection.recv(_READ_BYTES):
            buffer += chunk
            for message in frames.take_messages(buffer):
                _answer(connection, session, served, message, request.folder)
                runs += 1
        return ServeAnswer(runs=runs)


def describe(session: SavedModelSession) -> ServedModel:
    """The signatures of a model, each bound where it can be run."""
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


def _answer(
    connection: socket.socket, session: SavedModelSession, served: ServedModel, message: Message, folder: Path
) -> None:
    """Answers one RUN message. Whatever goes wrong is the answer: other requests wait behind this one."""
    try:
        (place,) = struct.unpack_from("<H", message.body)
        signature = served.signatures[place]
        arrays = frames.decode_arrays(message.body[2:])
        inputs = {tensor.name: array for tensor, array in zip(signature.inputs, arrays, strict=True)}
        start = time.perf_counter_ns()
        outputs = session.run_signature(signature.name, inputs)
        run_ns = time.perf_counter_ns() - start
        ordered = [_plain(outputs[tensor.name]) for tensor in signature.outputs]
        parts = [struct.pack("<Q", run_ns), *frames.encode_arrays(ordered)]
    except InputError as error:
        # Without the path of the model, which is no business of a client's.
        text = str(error.received).removeprefix(f"{folder}: ").encode()
        _send(connection, message.number, Kind.ERROR, [bytes([INVALID_ARGUMENT]), text])
    except MemoryError as error:
        _send(connection, message.number, Kind.ERROR, [bytes([RESOURCE_EXHAUSTED]), str(error).encode()])
    except Exception as error:
        text = f"{type(error).__name__}: {error}".encode()
        _send(connection, message.number, Kind.ERROR, [bytes([INTERNAL]), text])
    else:
        _send(connection, message.number, Kind.ANSWER, parts)


def _plain(array: np.ndarray) -> np.ndarray:
    """bfloat16, which numpy knows only with a package of TensorFlow's, as float32; all else as it is."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _send(connection: socket.socket, number: int, kind: Kind, parts: list[bytes | memoryview]) -> None:
    connection.sendall(b"".join(frames.encode(number, kind, parts)))

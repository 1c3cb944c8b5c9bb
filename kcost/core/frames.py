"""Messages between a server and the process that runs its model: bytes on a socket, arrays as they lie in memory.

A message is its length (uint32, of what follows), a number that the answer repeats (uint64), a kind (uint8) and a
body. Integers are little-endian. An array is a dtype, its axes, its size in bytes and its bytes; one of strings has the
length of each string in front of them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

HEADER = struct.Struct("<IQB")
"""Length of what follows the first four bytes, number, kind."""

_COUNT = struct.Struct("<H")
_ARRAY = struct.Struct("<BB")
_SIZE = struct.Struct("<Q")

DTYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "string"),
)
"""The place in this tuple is a dtype on the wire; strings are numpy arrays of `bytes` objects."""

_STRING = np.dtype(object)
_NUMPY_DTYPES = tuple(_STRING if name == "string" else np.dtype(name) for name in DTYPES)
_CODES = {dtype: code for code, dtype in enumerate(_NUMPY_DTYPES)}
_STRING_CODE = DTYPES.index("string")
_SMALL_BYTES = 1 << 14
"""Of an array. Up to so many it takes longer to make a view of an array than to copy it once more."""

LONGEST = (1 << 32) - 1
"""Most bytes of a message behind its length."""


class Kind(IntEnum):
    """What a message is."""

    READY = 0
    """The model is loaded, and takes what is asked; the body describes it in JSON."""
    RUN = 1
    """The place of a signature (uint16), and its inputs in order."""
    ANSWER = 2
    """Nanoseconds that the model ran (uint64), and the outputs in order."""
    ERROR = 3
    """A status code (uint8) and a sentence in UTF-8."""
    LOADED = 4
    """The model is loaded, and tried before it is READY; without a body."""


class Message(NamedTuple):
    """A message that came."""

    number: int
    kind: Kind
    body: memoryview


def encode(number: int, kind: Kind, parts: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """The pieces of a message, to be written one after the other.

    Raises:
        ValueError: the message is longer than 4 GiB.
    """
    length = HEADER.size - 4 + sum(len(part) for part in parts)
    if length > LONGEST:
        raise ValueError(f"A message has at most {LONGEST} bytes. Received: {length}")
    return [HEADER.pack(length, number, kind), *parts]


class MessageReader:
    """Messages from pieces of a stream.

    Examples:
        >>> reader = MessageReader()
        >>> sent = b"".join(encode(7, Kind.RUN, [b"body"]))
        >>> reader.read(sent[:9])
        []
        >>> [(message.number, bytes(message.body)) for message in reader.read(sent[9:])]
        [(7, b'body')]
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        """The beginning of a message that is not whole."""

    def read(self, piece: bytes) -> list[Message]:
        """The messages that are whole with a further piece."""
        if not self._rest and len(piece) >= HEADER.size:
            length, number, kind = HEADER.unpack_from(piece)
            if len(piece) == length + 4:  # one that comes by itself is not copied
                return [Message(number, Kind(kind), memoryview(piece)[HEADER.size :])]
        self._rest += piece
        messages, at = [], 0
        while len(self._rest) - at >= HEADER.size:
            length, number, kind = HEADER.unpack_from(self._rest, at)
            if len(self._rest) - at < length + 4:
                break
            body = bytes(memoryview(self._rest)[at + HEADER.size : at + 4 + length])
            messages.append(Message(number, Kind(kind), memoryview(body)))
            at += 4 + length
        if at:
            del self._rest[:at]
        return messages


def encode_arrays(arrays: Sequence[np.ndarray]) -> list[bytes | memoryview]:
    """Arrays as the pieces of a body; each is contiguous and of one of DTYPES.

    Raises:
        ValueError: an array is of another dtype.
    """
    parts: list[bytes | memoryview] = [_COUNT.pack(len(arrays))]
    for array in arrays:
        code = _CODES.get(array.dtype)  # by the dtype itself: numpy works out its name in Python each time
        if code is None:
            raise ValueError(f"An array is of one of {', '.join(DTYPES)}. Received: {array.dtype}")
        content = _strings_to_bytes(array) if code == _STRING_CODE else _content(array)
        axes = struct.pack(f"<{array.ndim}Q", *array.shape)
        parts += [_ARRAY.pack(code, array.ndim) + axes + _SIZE.pack(len(content)), content]
    return parts


def decode_arrays(body: memoryview) -> list[np.ndarray]:
    """The arrays of a body, as views of its bytes where they are numbers.

    Raises:
        ValueError: the bytes are cut short, or no arrays.
    """
    try:
        (count,) = _COUNT.unpack_from(body)
        at, arrays = _COUNT.size, []
        for _ in range(count):
            code, rank = _ARRAY.unpack_from(body, at)
            at += _ARRAY.size
            shape = struct.unpack_from(f"<{rank}Q", body, at)
            at += 8 * rank
            (size,) = _SIZE.unpack_from(body, at)
            at += _SIZE.size
            content = body[at : at + size]
            at += size
            dtype = _NUMPY_DTYPES[code]
            if dtype is _STRING:
                arrays.append(_strings_from_bytes(content, shape))
            else:
                arrays.append(np.frombuffer(content, dtype).reshape(shape))
    except (struct.error, IndexError) as error:
        raise ValueError(f"Arrays end within their message: {error}") from error
    if at != len(body):
        raise ValueError(f"Arrays end with their message. Received: {at} of {len(body)} bytes")
    return arrays


def _content(array: np.ndarray) -> bytes | memoryview:
    if array.nbytes <= _SMALL_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _strings_to_bytes(array: np.ndarray) -> bytes:
    strings = array.ravel().tolist()
    return struct.pack(f"<{len(strings)}I", *map(len, strings)) + b"".join(strings)


def _strings_from_bytes(content: memoryview, shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(shape, object)
    flat = array.reshape(-1)
    lengths = struct.unpack_from(f"<{array.size}I", content)
    at = 4 * array.size
    for i, length in enumerate(lengths):
        flat[i] = bytes(content[at : at + length])
        at += length
    return array

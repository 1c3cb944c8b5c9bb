"""The wire format of protocol buffers: enough to read a SavedModel's description and to write a ConfigProto.

Source: https://protobuf.dev/programming-guides/encoding/. The generated classes for these messages are inside the
tensorflow package, whose import takes seconds and hundreds of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def fields(message: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one message in the order of the bytes: (field number, value).

    A varint or a fixed-width value comes as an unsigned integer (see `signed`), everything with a length
    (strings, bytes, packed values, embedded messages) as a view of its bytes.

    Raises:
        ValueError: the bytes are cut short, or no message.
    """
    view = memoryview(message)
    at, end = 0, len(view)
    while at < end:
        key, at = _varint(view, at)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ValueError(f"A field number is at least 1. Received: 0 at byte {at}")
        if wire_type == VARINT:
            value, at = _varint(view, at)
            yield number, value
            continue
        if wire_type == LENGTH_DELIMITED:
            size, at = _varint(view, at)
        elif wire_type in (FIXED64, FIXED32):
            size = 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"A wire type is 0, 1, 2 or 5. Received: {wire_type} at byte {at}")
        if at + size > end:
            raise ValueError(f"A field of {size} bytes at byte {at} ends within the message of {end} bytes.")
        content = view[at : at + size]
        yield number, content if wire_type == LENGTH_DELIMITED else int.from_bytes(content, "little")
        at += size


def signed(value: int) -> int:
    """The int32 or int64 that a varint stands for: negative numbers are stored as 64-bit two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value


def encode(number: int, value: int | bytes) -> bytes:
    """One field: an int as a varint (negative ones in 64-bit two's complement), bytes with their length."""
    if isinstance(value, bytes):
        return _encode_varint(number << 3 | LENGTH_DELIMITED) + _encode_varint(len(value)) + value
    return _encode_varint(number << 3 | VARINT) + _encode_varint(value & (1 << 64) - 1)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(view[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & (1 << 64) - 1, at + i + 1
    raise ValueError(f"A varint ends within {_MAX_VARINT_BYTES} bytes and within the message. Received: one at {at}")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)

"""The process that watches: frames on its standard input, lines on its standard output. No request waits for it.

A frame is three lengths (header, request, answer; unsigned 32 bits each) and their bytes; the header is JSON. The first
frame is the setting: its header holds the settings, the references, and how often two versions have agreed before.
Everything that was read at a time is synced to disk once; then labels are answered.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import sys
import time
from typing import Any, NamedTuple

import orjson

from kcost.risk.drift_reference import Reference
from kcost.risk.rollout import RolloutCounts
from kcost.serving.bodies import Body
from kcost.serving.monitor.settings import MonitorSettings
from kcost.serving.monitor.watch import Watch

LENGTHS = struct.Struct("<III")
SNAPSHOT_S = 1.0
NICENESS = 10
READ_BYTES = 1 << 20


class Frame(NamedTuple):
    """One message."""

    header: dict[str, Any]
    request: bytes
    answer: bytes


def packed(header: dict[str, Any], request: Body = b"", answer: bytes = b"") -> bytes:
    """A frame as bytes."""
    head = orjson.dumps(header)
    return b"".join((LENGTHS.pack(len(head), len(request), len(answer)), head, request, answer))


def take_frames(buffer: bytearray) -> list[Frame]:
    """The whole frames at the start of a buffer, which keeps the rest.

    Examples:
        >>> buffer = bytearray(packed({"a": 1}, b"x") + b"rest")
        >>> take_frames(buffer), bytes(buffer)
        ([Frame(header={'a': 1}, request=b'x', answer=b'')], b'rest')
    """
    frames, start = [], 0
    while len(buffer) - start >= LENGTHS.size:
        head, request, answer = LENGTHS.unpack_from(buffer, start)
        first = start + LENGTHS.size
        end = first + head + request + answer
        if len(buffer) < end:
            break
        body = bytes(buffer[first:end])
        frames.append(Frame(orjson.loads(body[:head]), body[head : head + request], body[head + request :]))
        start = end
    del buffer[:start]
    return frames


def main() -> None:
    """Watches until standard input ends."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)  # requests go first
    source, buffer = sys.stdin.fileno(), bytearray()
    watch: Watch | None = None
    told_s, changed = 0.0, False
    while True:
        wait_s = max(0.0, told_s + SNAPSHOT_S - time.monotonic()) if changed else None
        ready, _, _ = select.select([source], [], [], wait_s)
        if ready:
            piece = os.read(source, READ_BYTES)
            if not piece:
                break
            buffer += piece
            for frame in take_frames(buffer):
                if watch is None:
                    watch = _start(frame)
                    _tell({"started": True})
                else:
                    handle(watch, frame)
                changed = True
            if watch is not None:
                watch.sync()
                _answer_labels(watch)
        if watch is not None and changed and time.monotonic() >= told_s + SNAPSHOT_S:
            _tell({"watched": watch.watched().model_dump(mode="json")})
            told_s, changed = time.monotonic(), False
    if watch is not None:
        watch.close()


def _start(frame: Frame) -> Watch:
    references = {name: Reference.model_validate(r) for name, r in frame.header["references"].items()}
    agreed = {name: RolloutCounts.model_validate(counts) for name, counts in frame.header["agreed"].items()}
    return Watch(MonitorSettings.model_validate(frame.header["settings"]), references, agreed=agreed)


_waiting: list[tuple[int, dict[str, Any]]] = []
"""Answers to labels that are told when what they were stored with is on disk."""


def handle(watch: Watch, frame: Frame) -> None:
    """Does what one message asks."""
    if frame.header["kind"] == "labels":
        _waiting.append((frame.header["number"], watch.label(frame.request, frame.header["at_s"])))
    else:
        try:
            if frame.header["kind"] == "pair":
                watch.compared(frame.header, frame.request, frame.answer)
            elif frame.header["kind"] == "event":
                watch.tell(frame.header["event"])
            else:
                watch.request(frame.header, frame.request, frame.answer)
        except Exception as error:  # a client that finds such an input must not end the watching; the report tells it
            watch.unforeseen(error)


def _answer_labels(watch: Watch) -> None:
    for number, answer in _waiting:
        if watch.failed is not None and answer.get("stored"):
            answer["stored"] = False
        _tell({"labels": number, "answer": answer})
    _waiting.clear()


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""Rows of a request and its answer as arrays, in the four ways in which TensorFlow Serving's JSON has them."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np

from kcost.risk.drift_features import (
    class_columns,
    log_probabilities_of,
    tag_columns,
    token_columns,
    vector_columns,
    word_starts,
)
from kcost.risk.drift_reference import Reference
from kcost.serving.documents import parse
from kcost.serving.status import RequestError

MOST_UNPACKED = 256 << 20


class UnreadableError(Exception):
    """A request or an answer that features cannot be taken of; says why."""


class Rows(NamedTuple):
    """What is known of the rows of one request."""

    columns: dict[str, np.ndarray]
    """Feature -> a value of each row, shape (n,)."""
    predicted: np.ndarray
    """Class numbers, shape (n,), or of each position (n, length)."""
    starts: np.ndarray | None
    """Where words begin, shape (n, length), bool; None of classifiers."""

    @property
    def confidence(self) -> np.ndarray:
        """Shape (n,), float64."""
        return self.columns["confidence"]


def read_rows(reference: Reference, request: dict[str, Any], answer: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Features of the rows of one request.

    Raises:
        UnreadableError: they are of another form than the reference's.
    """
    reading = reference.reading
    outputs, logs, predicted = _answers(reference, answer)
    given: dict[str, np.ndarray] = {}
    starts = None
    if reading.form == "tokens":
        assert reading.pieces is not None
        ids = _numbers(_values(request, "instances", "inputs", reading.input), "the token ids")
        mask = _numbers(_values(request, "instances", "inputs", reading.mask), "the mask")
        if ids.ndim != 2 or ids.shape != mask.shape or len(ids) != len(outputs):
            raise UnreadableError(f"token ids have shape {ids.shape}, the mask {mask.shape}, {len(outputs)} answers")
        given = token_columns(ids, mask, reading.pieces)
        if reading.kind == "tags":
            if ids.shape != outputs.shape[:2]:
                raise UnreadableError(f"token ids have shape {ids.shape}, the answer {outputs.shape}")
            starts = word_starts(ids, mask, reading.pieces)
    elif reading.shape:
        values = _numbers(_values(request, "instances", "inputs", reading.input), "the input")
        width = int(np.prod(reading.shape))
        if len(values) != len(outputs) or values.size != width * len(outputs):
            raise UnreadableError(f"the input has shape {values.shape}, {len(outputs)} answers, {width} numbers a row")
        given = vector_columns(values.reshape(len(outputs), width), reading.basis)
    if starts is not None:
        columns = tag_columns(
            logs[starts],
            predicted[starts],
            np.nonzero(starts)[0],
            len(outputs),
            reference.label_names,
            rng.random(len(outputs)),
        )
    else:
        columns = class_columns(logs, predicted, reference.label_names)
    return Rows({**columns, **{f"input {name}": v for name, v in given.items()}}, predicted, starts)


def read_predicted(reference: Reference, answer: dict[str, Any]) -> np.ndarray:
    """Class numbers of an answer, shape (n,), or of a tagger (n, length).

    Raises:
        UnreadableError: it is of another form than the reference's.
    """
    return _answers(reference, answer)[2]


def _answers(reference: Reference, answer: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers of an answer, their logarithms as probabilities, and the classes decided for."""
    reading, classes = reference.reading, len(reference.label_names)
    outputs = _numbers(_values(answer, "predictions", "outputs", reading.output), "the answer")
    if outputs.ndim == 0 or not outputs.size:
        raise UnreadableError("the answer has no rows")
    logs, predicted = log_probabilities_of(outputs, reading)
    if logs.shape[-1] != classes or logs.ndim != (3 if reading.kind == "tags" else 2):
        raise UnreadableError(f"the answer has shape {outputs.shape}, the reference {classes} classes")
    return outputs, logs, predicted


def document(body: bytes, encoding: str) -> dict[str, Any]:
    """A body as a JSON object, unpacked where it is compressed.

    Raises:
        UnreadableError: it is neither.
    """
    if encoding in ("gzip", "x-gzip"):
        inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            body = inflater.decompress(body, MOST_UNPACKED)
        except zlib.error as error:
            raise UnreadableError(f"a body is not compressed by gzip: {error}") from error
    elif encoding not in ("", "identity"):
        raise UnreadableError(f"a body is compressed by {encoding}")
    try:
        return parse(body)
    except RequestError as error:
        raise UnreadableError(error.message) from error


def _values(whole: dict[str, Any], row_key: str, column_key: str, name: str | None) -> Any:
    """The values of one tensor, a row each."""
    if row_key in whole:
        rows = whole[row_key]
        if not isinstance(rows, list):
            raise UnreadableError(f"`{row_key}` is no list")
        if rows and isinstance(rows[0], dict):
            return [_named(row, name) for row in rows]
        return rows
    if column_key not in whole:
        raise UnreadableError(f"neither `{row_key}` nor `{column_key}` is there")
    values = whole[column_key]
    return _named(values, name) if isinstance(values, dict) else values


def _named(values: Any, name: str | None) -> Any:
    if isinstance(values, dict):
        if name in values:
            return values[name]
        if name is None and len(values) == 1:
            return next(iter(values.values()))
    raise UnreadableError(f"no tensor {name or ''} among {', '.join(list(values)[:5]) if values else 'none'}")


def _numbers(values: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise UnreadableError(f"{what} is no array of numbers") from error
    return array

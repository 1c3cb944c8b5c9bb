"""Bodies of requests as JSON documents, with the tokens NaN and Infinity that TensorFlow Serving allows."""

from __future__ import annotations

import json
from typing import Any

import orjson

from kcost.serving.status import RequestError, invalid

DEEPEST = 64
"""Most lists within one another: as many axes as an array of numpy has."""

_TOKENS = (b"NaN", b"Infinity")
_SHOWN = 300


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """The object that a body holds.

    Raises:
        RequestError: the body is no JSON, no object, or nested too deep: status 400.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # The tokens are no JSON. Where they are in the body, the standard library, which knows them, has a try.
        if not any(token in body for token in _TOKENS):
            raise _parse_error(error.msg, error.pos) from error
        document = _parse_with_tokens(body)
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def _parse_with_tokens(body: bytes | bytearray) -> Any:
    try:
        document = json.loads(body.decode("utf-8"), parse_float=_finite)
        if b"\\u" in body:  # half of a surrogate pair, which is no text, and which orjson refuses
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeEncodeError as error:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from error
    except UnicodeDecodeError as error:
        raise _parse_error("str is not valid UTF-8", error.start) from error
    except json.JSONDecodeError as error:
        raise _parse_error(error.msg, error.pos) from error
    except RecursionError as error:
        raise invalid("JSON Parse error: The document is nested too deep") from error
    except ValueError as error:  # a whole number of thousands of digits, which Python does not convert
        raise invalid(f"JSON Parse error: Number too big to be stored in double. ({error})") from error


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise invalid("JSON Parse error: Number too big to be stored in double.")
    return number


def _parse_error(message: str, place: int) -> RequestError:
    return invalid(f"JSON Parse error: Invalid value. {message.partition(':')[0]} at offset: {place}")


def shown(value: Any) -> str:
    """A value as it stood in the body, cut to 300 characters: an answer is never as long as what it refuses."""
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = f"({kind(value)})"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def kind(value: Any) -> str:
    """The type of a JSON value, in the words of TensorFlow Serving."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names = ((dict, "Object"), (list, "Array"), (str, "String"))
    return next((name for of_type, name in names if isinstance(value, of_type)), "Number")

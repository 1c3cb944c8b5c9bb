"""Statuses as TensorFlow Serving's REST interface answers them; gRPC's have the same names and numbers.

Source: tsl/protobuf/error_codes.proto of TensorFlow for the codes, and model_servers/http_server.cc of TensorFlow
Serving for the HTTP status of each. 413 and 415 are HTTP's own: TensorFlow Serving reads bodies of any size.
"""

from __future__ import annotations

from enum import IntEnum

from kcost.core.unforeseen import logged, place_of


class Code(IntEnum):
    """A canonical code."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


class RequestError(Exception):
    """Why a request gets no answer of a model. It goes to the client, and never ends the server.

    Args:
        code: the status.
        message: what the client is told under `error`.
        http_status: where it is another than that of the code.
        headers: of the HTTP answer, beside those that each has.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        http_status: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.code = code
        # A client is told what it sent, which may be half of a surrogate pair: no text that JSON or gRPC can hold.
        self.message = message.encode(errors="backslashreplace").decode()
        self.http_status = HTTP_STATUS[code] if http_status is None else http_status
        self.headers = headers
        super().__init__(self.message)


def invalid(message: str) -> RequestError:
    """What a client did wrong: status 400."""
    return RequestError(Code.INVALID_ARGUMENT, message)


def unforeseen(error: Exception) -> RequestError:
    """What is told of an error that nobody foresaw: status 500. Its traceback is logged."""
    return RequestError(Code.INTERNAL, f"kcost did not foresee this: {place_of(error)}. {logged(error)}")

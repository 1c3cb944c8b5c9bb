"""One request and its answer, on a connection of its own."""

from __future__ import annotations

import asyncio

from kcost.core.errors import InputError
from kcost.serving.http_client import Connection, Target


async def ask(
    target: Target, body: bytes, *, method: str = "POST", path: str | None = None, timeout_s: float = 30
) -> tuple[int | None, bytes]:
    """Sends a request; returns the status, None where no whole answer came in time, and the body.

    Raises:
        InputError: nobody accepts connections there.
    """
    loop = asyncio.get_running_loop()
    status: asyncio.Future[int | None] = loop.create_future()

    def answered(code: int | None) -> None:
        if not status.done():
            status.set_result(code)

    try:
        _, connection = await loop.create_connection(lambda: Connection(lambda _: None), target.address, target.port)
    except OSError as error:
        raise InputError(
            "A server accepts connections.",
            received=f"{target.host}:{target.port}: {error}",
            remedy="Start one: kcost serve DIR --port P",
        ) from error
    try:
        connection.send(target.request(body, method, path), answered)
        code = await asyncio.wait_for(status, timeout_s)
    except TimeoutError:
        code = None
    finally:
        answer = connection.body
        connection.close()
    return code, answer

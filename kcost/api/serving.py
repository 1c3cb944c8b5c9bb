"""Verbs that serve models."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.core.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from kcost.serving.server import Serving

_NEEDED = ("httptools", "orjson", "google.protobuf", "uvicorn", "uvloop")


def serve_models(
    folder: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    processes: int = 1,
    threads: int = 0,
    queue: int = 1024,
    batch_rows: int = 64,
    deadline_s: float = 30.0,
    poll_s: float = 1.0,
    most_bytes: int = 64 << 20,
    client_timeout_s: float = 30.0,
    stop_s: float = 30.0,
    on_start: Callable[[Serving], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> None:
    """Serves exported models by TensorFlow Serving's REST interface, until SIGTERM or SIGINT.

    Args:
        folder: with models.config, or with model base paths (NAME/VERSION/saved_model.pb); or one of these.
        host: 127.0.0.1 is reached from this machine alone. The server asks nobody for a password.
        port: 0 for any that is free.
        processes: that run each version of a model.
        threads: CPU threads of each process, 0 for every core.
        queue: requests that wait for a version; one more is answered with 429.
        batch_rows: most rows that are run together.
        deadline_s: a request without an answer by then is answered with 504.
        poll_s: how often the folder is looked at for new versions.
        most_bytes: of the body of a request, decompressed.
        client_timeout_s: a request that is not there by then, since its first byte, is answered with 408.
        stop_s: what was accepted is answered within this time after SIGTERM.
        on_start: called once, when the models are loaded and the port is open.
        log: told what changes, a sentence at a time.

    Raises:
        InputError: the folder serves nothing, a file in it cannot be read, or the port is taken.
        UnavailableError: a package of the extra `serve`, or the TensorFlow library, is not installed.
        ArtifactError: not one model could be loaded.

    Example:
        >>> kcost.serve_models("serving", port=8501)  # doctest: +SKIP
    """
    require_extra()
    for name, value in (("processes", processes), ("queue", queue), ("batch_rows", batch_rows)):
        if value < 1:
            raise InputError(f"`{name}` is at least 1.", received=value)
    for name, seconds in (
        *(("deadline_s", deadline_s), ("poll_s", poll_s), ("client_timeout_s", client_timeout_s), ("stop_s", stop_s)),
    ):
        if not 0 < seconds <= 3600:
            raise InputError(f"`{name}` is more than 0 and at most an hour.", received=f"{seconds:g}")
    if threads < 0 or most_bytes < 1:
        raise InputError("`threads` is at least 0, `most_bytes` at least 1.", received=f"{threads}, {most_bytes}")
    from kcost.serving.model_version import Limits
    from kcost.serving.server import Server, ServerSettings

    limits = Limits(
        processes=processes, threads=threads, queue=queue, batch_rows=batch_rows, deadline_s=deadline_s
    )
    settings = ServerSettings(
        host=host,
        port=port,
        limits=limits,
        poll_s=poll_s,
        most_bytes=most_bytes,
        client_timeout_s=client_timeout_s,
        stop_s=stop_s,
    )
    server = Server(Path(folder), settings, log or _nothing)
    with asyncio.Runner(loop_factory=_fast_loop) as runner:
        runner.run(server.serve(on_start or _nothing))


def require_extra() -> None:
    """Raises UnavailableError where a package of the extra `serve` is not installed."""
    missing = [name for name in _NEEDED if _is_missing(name)]
    if missing:
        raise UnavailableError(
            "Serving and loading a server need the packages of the extra `serve`.",
            received=f"an environment without {', '.join(missing)}",
            remedy="Install them: pip install 'kcost[serve]'",
        )


def _is_missing(name: str) -> bool:
    if name in sys.modules:
        return False
    try:
        return importlib.util.find_spec(name) is None
    except ModuleNotFoundError:  # the package around it is not there
        return True


def _fast_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def _nothing(_: object) -> None:
    pass

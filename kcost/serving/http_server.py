"""An ASGI application on a port: uvicorn with limits, and an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.serving.at_once import Take
from kcost.serving.http_limits import KEEP_ALIVE_S, RESERVED_CONNECTIONS, limited_protocol

LOOPBACK = "127.0.0.1"
MOST_CONNECTIONS = 16_384
"""Unless more are requested for: that of requests which wait is the queue of a model, not this."""

_OTHER_FILES = 256
"""That are open beside connections: of the processes with models, of what is watched and stored."""


def allowed_connections(requested: int | None, files_each: int = 1) -> int:
    """How many connections are taken; raises this process's limit of open files for them, as far as it may.

    Args:
        requested: None for MOST_CONNECTIONS, or as many as the limit leaves.
        files_each: that a connection takes.

    Raises:
        InputError: none were asked for, or more than the limit of open files leaves.
    """
    if requested is not None and requested < 1:
        raise InputError("A server takes at least 1 connection.", received=requested)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = requested or MOST_CONNECTIONS
    needed = _OTHER_FILES + files_each * (wanted + RESERVED_CONNECTIONS)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        fit = (soft - _OTHER_FILES) // files_each - RESERVED_CONNECTIONS
        if fit < (requested or 1):
            raise InputError(
                "A connection is an open file, and those of a process are limited.",
                received=f"{wanted:,} connections under a limit of {soft:,} files, which leaves {max(0, fit):,}",
                remedy="Raise the limit (ulimit -n), or ask for fewer: --connections N",
            )
        return min(wanted, fit)
    return wanted


class HttpSettings(Record):
    """How requests are taken."""

    host: str = LOOPBACK
    port: int = 8501
    most_bytes: int = 64 << 20
    client_timeout_s: float = 30.0
    connections: int = MOST_CONNECTIONS
    stop_s: float = 30.0

    @property
    def end_s(self) -> int:
        """`stop_s` in the whole seconds that uvicorn takes, at least 1."""
        return int(self.stop_s) or 1


class HttpServer:
    """Serves an application.

    Args:
        application: takes scope, receive and send.
        settings: see HttpSettings; `most_bytes` is for the application to hold.
        take: see `Take`; None where all requests go to the application.

    Raises:
        InputError: the port is taken, or the host is none of this machine's.
    """

    def __init__(
        self,
        application: Callable[[Any, Any, Any], Awaitable[None]],
        settings: HttpSettings,
        take: Take | None = None,
    ) -> None:
        self.stopping = asyncio.Event()
        """Set when `stop` was called."""
        self._socket = _listen(settings.host, settings.port)
        config = uvicorn.Config(
            application,
            http=limited_protocol(settings.client_timeout_s, settings.connections, settings.end_s, take),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=settings.end_s,
            timeout_keep_alive=int(KEEP_ALIVE_S),
        )
        self._uvicorn = _QuietServer(config)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def is_at(self, address: str, port: int) -> bool:
        """Whether it is what listens there, as far as an address tells."""
        own, own_port = self._socket.getsockname()[:2]
        is_every = ipaddress.ip_address(own).is_unspecified
        return own_port == port and (address == own or (is_every and ipaddress.ip_address(address).is_loopback))

    def stop_on_signals(self) -> None:
        """Ends at SIGTERM and SIGINT from now on. Called in the event loop of the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # another thread than the main one
                asyncio.get_running_loop().add_signal_handler(number, self.stop)

    async def serve(self) -> None:
        """Serves until `stop`; then answers what it has accepted, and returns."""
        await self._uvicorn.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Ends `serve`: no further connection is accepted, and what was accepted is answered."""
        self._uvicorn.should_exit = True
        self.stopping.set()

    def close(self) -> None:
        """Frees the port."""
        self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(
            "kcost serves on a free port of this machine.",
            received=f"{host}:{port}: {error}",
            remedy="Name another one: --port P --host HOST",
        ) from error
    listening.setblocking(False)
    return listening


class _QuietServer(uvicorn.Server):
    """Leaves signals to the one who runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield

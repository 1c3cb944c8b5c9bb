"""The server: models, application and HTTP together, from its start to an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.serving.application import Application
from kcost.serving.config import read_metrics_path
from kcost.serving.http_limits import limited_protocol
from kcost.serving.model_version import Limits
from kcost.serving.models import Models, NewRunner

LOOPBACK = "127.0.0.1"


class ServerSettings(Record):
    """How a server serves."""

    host: str = LOOPBACK
    port: int = 8501
    limits: Limits = Limits()
    poll_s: float = 1.0
    most_bytes: int = 64 << 20
    client_timeout_s: float = 30.0
    connections: int = 1024
    stop_s: float = 30.0


class ServedVersion(Record):
    """A version that is served."""

    model: str
    version: int
    state: str


class Serving(Record):
    """A server that has started."""

    url: str
    metrics_url: str | None
    versions: tuple[ServedVersion, ...]


class Server:
    """A server of the models in a folder.

    Args:
        folder: with models.config or model base paths.
        settings: see ServerSettings.
        log: told what changes, a sentence at a time.
        new_runner: what runs a model; a process where it is None.

    Raises:
        InputError: the folder serves nothing, or a file in it cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        settings: ServerSettings,
        log: Callable[[str], None],
        new_runner: NewRunner | None = None,
    ) -> None:
        self._settings = settings
        self._home = tempfile.TemporaryDirectory(prefix="kcost-serve-")
        self._metrics_path = read_metrics_path(folder)
        self.models = Models(folder, settings.limits, Path(self._home.name) / "workers.log", log, new_runner)
        self.application = Application(self.models, self._metrics_path, settings.most_bytes)
        self._uvicorn: uvicorn.Server | None = None

    async def serve(self, on_start: Callable[[Serving], None]) -> None:
        """Serves until SIGTERM, SIGINT or `stop`; then answers what it has accepted, and returns.

        Args:
            on_start: called once, when the models are loaded and the port is open.

        Raises:
            InputError: the port is taken, or the host is none of this machine's.
            KcostError: not one model could be loaded.
        """
        listening = self._listen()
        config = uvicorn.Config(
            self.application,
            http=limited_protocol(self._settings.client_timeout_s),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=self._settings.connections,
            timeout_graceful_shutdown=int(self._settings.stop_s) or 1,
            timeout_keep_alive=int(self._settings.client_timeout_s) or 1,
        )
        self._uvicorn = _QuietServer(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(number, self.stop)
        keeping_up = None
        try:
            await self.models.load_first()
            keeping_up = loop.create_task(self.models.keep_up(self._settings.poll_s))
            on_start(self._started(listening))
            await self._uvicorn.serve(sockets=[listening])
        finally:
            if keeping_up is not None:
                keeping_up.cancel()
            await self.models.close()
            listening.close()
            self._home.cleanup()

    def stop(self) -> None:
        """Ends `serve`: no further connection is accepted, and what was accepted is answered."""
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self._settings.host, self._settings.port))
            listening.listen(2048)
        except (OSError, OverflowError) as error:
            listening.close()
            raise InputError(
                "kcost serves on a free port of this machine.",
                received=f"{self._settings.host}:{self._settings.port}: {error}",
                remedy="Name another one: --port P --host HOST",
            ) from error
        listening.setblocking(False)
        return listening

    def _started(self, listening: socket.socket) -> Serving:
        host, port = listening.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        return Serving(
            url=url,
            metrics_url=None if self._metrics_path is None else url + self._metrics_path,
            versions=tuple(
                ServedVersion(model=v.name, version=v.version, state=v.state) for v in self.models.all_versions()
            ),
        )


class _QuietServer(uvicorn.Server):
    """Leaves signals to the one who runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield

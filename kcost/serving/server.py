"""The server: models, application and HTTP together, from its start to an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from kcost.core.schema import Record
from kcost.serving.application import Application
from kcost.serving.config import read_metrics_path
from kcost.serving.http_server import HttpServer, HttpSettings
from kcost.serving.model_version import Limits
from kcost.serving.models import Models, NewRunner


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
        http: how requests are taken.
        limits: of each version of a model.
        poll_s: how often the folder is looked at.
        log: told what changes, a sentence at a time.
        new_runner: what runs a model; a process where it is None.

    Raises:
        InputError: the folder serves nothing, or a file in it cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        http: HttpSettings,
        limits: Limits,
        poll_s: float,
        log: Callable[[str], None],
        new_runner: NewRunner | None = None,
    ) -> None:
        self._http = http
        self._poll_s = poll_s
        self._home = tempfile.TemporaryDirectory(prefix="kcost-serve-")
        self._metrics_path = read_metrics_path(folder)
        self._models = Models(folder, limits, Path(self._home.name) / "workers.log", log, new_runner)

    async def serve(self, on_start: Callable[[Serving], None]) -> None:
        """Serves until SIGTERM or SIGINT; then answers what it has accepted, and returns.

        Args:
            on_start: called once, when the models are loaded and the port is open.

        Raises:
            InputError: the port is taken, or the host is none of this machine's.
            KcostError: not one model could be loaded.
        """
        server = HttpServer(Application(self._models, self._metrics_path, self._http.most_bytes), self._http)
        server.stop_on_signals()
        keeping_up = None
        try:
            await self._models.load_first()
            keeping_up = asyncio.get_running_loop().create_task(self._models.keep_up(self._poll_s))
            on_start(self._started(server.url))
            await server.serve()
        finally:
            if keeping_up is not None:
                keeping_up.cancel()
            await self._models.close()
            server.close()
            self._home.cleanup()

    def _started(self, url: str) -> Serving:
        return Serving(
            url=url,
            metrics_url=None if self._metrics_path is None else url + self._metrics_path,
            versions=tuple(
                ServedVersion(model=v.name, version=v.version, state=v.state) for v in self._models.all_versions()
            ),
        )

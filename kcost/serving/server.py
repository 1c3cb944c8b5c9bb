"""The server: models, HTTP and gRPC together, from its start to an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.core.conversion import Runtime
from kcost.core.schema import Record
from kcost.core.unforeseen import harmless
from kcost.serving.application import Application
from kcost.serving.bodies import Bodies
from kcost.serving.config import read_metrics_path
from kcost.serving.http_server import HttpServer, HttpSettings
from kcost.serving.metrics import Metrics
from kcost.serving.model_version import Limits
from kcost.serving.models import Models, NewRunner
from kcost.serving.status import Code, RequestError

if TYPE_CHECKING:
    from kcost.serving.grpc_server import GrpcServer


_REFUSED_S, _REFUSED_SHARE = 1.0, 0.9
"""So long before the end, and not before this share of the time until then, what has no answer is refused."""


class ServedVersion(Record):
    """A version that is served."""

    model: str
    version: int
    state: str


class Serving(Record):
    """A server that has started."""

    url: str
    grpc_address: str | None = None
    metrics_url: str | None
    versions: tuple[ServedVersion, ...]


class Server:
    """A server of the models in a folder.

    Args:
        folder: with models.config or model base paths.
        http: how requests are taken.
        limits: of each version of a model.
        poll_s: how often the folder is looked at.
        log: told what changes, a sentence at a time. What it raises ends nothing.
        new_runner: what runs a model; a process where it is None.
        grpc_port: None for no gRPC, 0 for any port that is free.
        runtime: that the models run in.

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
        grpc_port: int | None = None,
        runtime: Runtime = "saved_model",
    ) -> None:
        self._http = http
        self._grpc_port = grpc_port
        self._poll_s = poll_s
        self._home = tempfile.TemporaryDirectory(prefix="kcost-serve-")
        self._metrics_path = read_metrics_path(folder)
        worker_log = Path(self._home.name) / "workers.log"
        self._models = Models(folder, limits, worker_log, harmless(log), new_runner, runtime)

    async def serve(self, on_start: Callable[[Serving], None]) -> None:
        """Serves until SIGTERM or SIGINT; then answers what it has accepted, and returns.

        Args:
            on_start: called once, when the models are loaded and the ports are open.

        Raises:
            InputError: the port is taken, or the host is none of this machine's.
            KcostError: not one model could be loaded.
        """
        metrics, bodies = Metrics(), Bodies(self._http.most_bytes)
        application = Application(self._models, self._metrics_path, bodies, metrics)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._home.cleanup)
            server = HttpServer(application, self._http, application.take)
            stack.callback(server.close)
            stack.push_async_callback(self._models.close)
            stack.callback(self._models.fail_all, _server_ends)  # nobody is left who would get an answer
            grpc_server = None if self._grpc_port is None else self._grpc_server(metrics, bodies, self._grpc_port)
            if grpc_server is not None:
                stack.push_async_callback(grpc_server.stop)
            server.stop_on_signals()
            if not await self._loaded(server):
                return
            for task in (self._models.keep_up(self._poll_s), self._refuse_what_is_left(server)):
                stack.callback(asyncio.create_task(task).cancel)
            if grpc_server is not None:
                await grpc_server.start()
            on_start(self._started(server.url, None if grpc_server is None else grpc_server.address))
            async with asyncio.TaskGroup() as ends:
                ends.create_task(server.serve())
                if grpc_server is not None:
                    await server.stopping.wait()
                    ends.create_task(grpc_server.stop())

    async def _loaded(self, server: HttpServer) -> bool:
        """Loads what is wanted; False where the server is to end before."""
        loading = asyncio.create_task(self._models.load_first())
        stopping = asyncio.create_task(server.stopping.wait())
        try:
            await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
            return not server.stopping.is_set()
        finally:
            loading.cancel()
            stopping.cancel()

    async def _refuse_what_is_left(self, server: HttpServer) -> None:
        """Refuses requests that have no answer shortly before the end: clients that are cut off know less."""
        await server.stopping.wait()
        await asyncio.sleep(max(_REFUSED_SHARE * self._http.end_s, self._http.end_s - _REFUSED_S))
        self._models.fail_all(_server_ends)

    def _grpc_server(self, metrics: Metrics, bodies: Bodies, port: int) -> GrpcServer:
        from kcost.serving.grpc_server import GrpcServer
        from kcost.serving.grpc_services import Services

        return GrpcServer(Services(self._models, metrics, self._http.most_bytes), bodies, self._http, port)

    def _started(self, url: str, grpc_address: str | None) -> Serving:
        return Serving(
            url=url,
            grpc_address=grpc_address,
            metrics_url=None if self._metrics_path is None else url + self._metrics_path,
            versions=tuple(
                ServedVersion(model=v.name, version=v.version, state=v.state) for v in self._models.all_versions()
            ),
        )


def _server_ends() -> RequestError:
    """What those are told who have no answer when the server ends."""
    text = "The server ends, and the model gave no answer. Send the request again."
    return RequestError(Code.UNAVAILABLE, text, headers=((b"retry-after", b"1"),))

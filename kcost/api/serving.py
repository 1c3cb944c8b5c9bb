"""Verbs that serve models."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.core.conversion import RUNTIMES, Runtime
from kcost.core.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from kcost.cost.invoice import Invoice
    from kcost.serving.load_report import LoadReport
    from kcost.serving.load_test import LoadSettings
    from kcost.serving.proxy import Proxying
    from kcost.serving.rate_search import RateReport, RateTrial
    from kcost.serving.server import Serving

_NEEDED = ("httptools", "orjson", "google.protobuf", "uvicorn", "uvloop")


def serve_models(
    folder: Path | str,
    *,
    backend: Runtime = "saved_model",
    host: str = "127.0.0.1",
    port: int = 8501,
    grpc_port: int | None = None,
    processes: int = 1,
    threads: int = 0,
    queue: int = 1024,
    batch_rows: int = 64,
    deadline_s: float = 30.0,
    trial_s: float = 60.0,
    poll_s: float = 1.0,
    most_bytes: int = 64 << 20,
    client_timeout_s: float = 30.0,
    connections: int | None = None,
    stop_s: float = 30.0,
    on_start: Callable[[Serving], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> None:
    """Serves exported models until SIGTERM or SIGINT.

    It speaks TensorFlow Serving's REST interface and the Open Inference Protocol, and TensorFlow Serving's gRPC where
    it has a port for it.

    Args:
        folder: with models.config, or with model base paths (NAME/VERSION/saved_model.pb); or one of these.
        backend: saved_model, or litert, onnx or openvino: what runs the models. The last three serve the converted
            files that `kcost.export` writes beside the SavedModel of a version with `to`.
        host: 127.0.0.1 is reached from this machine alone. The server asks nobody for a password.
        port: of HTTP, 0 for any that is free.
        grpc_port: of gRPC, 0 for any that is free; None for no gRPC.
        processes: that run each version of a model.
        threads: CPU threads of each process, 0 for every core, or as many as a CPU quota allows.
        queue: requests that wait for a version; one more is answered with 429.
        batch_rows: most rows that are run together.
        deadline_s: a request without an answer by then is answered with 504.
        trial_s: a model is called at loading, so that it is warm before it is served; a process that is at these calls
            by then is ended, and the version is served without them. 0 makes none.
        poll_s: how often the folder is looked at for new versions.
        most_bytes: of the body of a request, decompressed.
        client_timeout_s: a request that is not there by then, since its first byte, is answered with 408. A client that
            takes nothing of its answer for as long is given up.
        connections: at a time, and calls of gRPC; None for 16,384, or fewer where the limit of open files is lower.
            Beyond, predictions are answered with 503, or RESOURCE_EXHAUSTED; states, metrics and health as before.
        stop_s: what was accepted is answered within this time after SIGTERM, if only with 503.
        on_start: called once, when the models are loaded and the port is open.
        log: told what changes, a sentence at a time. What it raises ends nothing.

    Raises:
        InputError: the folder serves nothing, a file in it cannot be read, or the port is taken.
        UnavailableError: a package of the extra `serve` or `grpc`, or the TensorFlow library or another runtime, is not
            installed.
        ArtifactError: not one model could be loaded.

    Examples:
        >>> kcost.serve_models("serving", port=8501)  # doctest: +SKIP
    """
    require_extra()
    if backend not in RUNTIMES:
        raise InputError(f"A backend of kcost serve is one of {', '.join(RUNTIMES)}.", received=backend)
    if grpc_port is not None and _is_missing("grpc"):
        raise UnavailableError(
            "Serving gRPC needs the package of the extra `grpc`.",
            received="an environment without grpcio",
            remedy="Install it: pip install 'kcost[grpc]'",
        )
    for name, value in (("processes", processes), ("queue", queue), ("batch_rows", batch_rows)):
        if value < 1:
            raise InputError(f"`{name}` is at least 1.", received=value)
    _check_seconds(deadline_s=deadline_s, poll_s=poll_s, client_timeout_s=client_timeout_s, stop_s=stop_s)
    if not 0 <= trial_s <= 3600:
        raise InputError("`trial_s` is at least 0 and at most an hour.", received=f"{trial_s:g}")
    if threads < 0 or most_bytes < 1:
        raise InputError("`threads` is at least 0, `most_bytes` at least 1.", received=f"{threads}, {most_bytes}")
    from kcost.serving.http_server import HttpSettings, allowed_connections
    from kcost.serving.model_version import Limits
    from kcost.serving.server import Server

    limits = Limits(
        processes=processes,
        threads=threads,
        queue=queue,
        batch_rows=batch_rows,
        deadline_s=deadline_s,
        trial_s=trial_s,
    )
    http = HttpSettings(
        host=host,
        port=port,
        most_bytes=most_bytes,
        client_timeout_s=client_timeout_s,
        connections=allowed_connections(connections),
        stop_s=stop_s,
    )
    server = Server(Path(folder), http, limits, poll_s, log or _nothing, grpc_port=grpc_port, runtime=backend)
    with asyncio.Runner(loop_factory=_fast_loop) as runner:
        runner.run(server.serve(on_start or _nothing))


def _check_seconds(**seconds: float) -> None:
    for name, value in seconds.items():
        if not 0 < value <= 3600:
            raise InputError(f"`{name}` is more than 0 and at most an hour.", received=f"{value:g}")


def serve_proxy(
    upstream: str,
    *,
    usd_per_hour: float,
    caller_header: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8501,
    deadline_s: float = 30.0,
    most_bytes: int = 64 << 20,
    client_timeout_s: float = 30.0,
    connections: int | None = None,
    stop_s: float = 30.0,
    remote: bool = False,
    monitor: Path | str | None = None,
    references: Sequence[str] = (),
    usd_per_error: float | None = None,
    forecasts: Sequence[str] = (),
    on_start: Callable[[Proxying], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Invoice:
    """Passes requests to a server of models, untouched; says what they cost, and whether they have drifted.

    Requests + overhead + idle time are the price of the machine x time, always: see `kcost.cost.invoice`. The bill so
    far is at /kcost/invoice, a live page at /kcost/, metrics at /kcost/metrics.

    Args:
        upstream: http://HOST:PORT of TensorFlow Serving's REST interface, or of `kcost serve`.
        usd_per_hour: the price of the machine that the models run on.
        caller_header: a header whose value says who asks.
        remote: allow an upstream that is not on this machine.
        monitor: monitor.toml, which says what is watched, stored and told.
        references: NAME=FILE of what each model's traffic is held against; FILE alone, or the artifact folder that it
            is in, where the model is served by its own name.
        usd_per_error: what one wrong answer costs; None leaves what `monitor` says.
        forecasts: [NAME[/VERSION]=]FILE[@WAY] of what each model was forecast to cost: a budget, as
            `kcost cost RUN --qps Q --p99-ms T --json` prints it, or the folder of a run. WAY is a part of the name of
            the way of serving that is meant.
        log: told of decisions on shadows and canaries, a sentence at a time. What it raises ends nothing.

    Returns:
        The last bill, after SIGTERM or SIGINT.

    Raises:
        InputError: the URL, the price, the port or a file cannot be used.
        UnavailableError: a package of the extra `serve` is not installed.
    """
    require_extra()
    _check_seconds(deadline_s=deadline_s, client_timeout_s=client_timeout_s, stop_s=stop_s)
    if not 0 < usd_per_hour < 1e6:
        raise InputError("The price of a machine is positive, in dollars an hour.", received=f"{usd_per_hour:g}")
    if caller_header is not None and re.fullmatch(r"[A-Za-z0-9-]+", caller_header) is None:
        raise InputError("A header's name is made of letters, digits and `-`.", received=repr(caller_header))
    from kcost.api.forecasts import read_forecasts
    from kcost.api.monitoring import monitor_settings
    from kcost.serving.http_server import HttpSettings, allowed_connections
    from kcost.serving.monitor.monitor import Monitor
    from kcost.serving.proxy import serve_proxy as serve

    settings, read = monitor_settings(None if monitor is None else Path(monitor), list(references), usd_per_error)
    budgets = read_forecasts(forecasts, usd_per_hour)
    http = HttpSettings(
        host=host,
        port=port,
        most_bytes=most_bytes,
        client_timeout_s=client_timeout_s,
        connections=allowed_connections(connections, files_each=2),  # one to the client, one to the server behind it
        stop_s=stop_s,
    )
    started = on_start or _nothing
    with asyncio.Runner(loop_factory=_fast_loop) as runner:
        proxy = serve(
            *(upstream, usd_per_hour, caller_header, deadline_s, http, started),
            remote=remote,
            monitor=Monitor(upstream, settings, read, log),
            forecasts=budgets,
        )
        return runner.run(proxy)


def run_loadtest(
    url: str,
    *,
    rate_per_s: float = 50.0,
    duration_s: float = 10.0,
    log: Path | str | None = None,
    body: Path | str | None = None,
    seed: int = 0,
    connections: int = 256,
    timeout_s: float = 30.0,
    remote: bool = False,
) -> LoadReport:
    """Sends requests to a server when they are due, whether or not it keeps up, and says how long each took since then.

    Args:
        url: http://HOST:PORT/v1/models/NAME:predict, or any other that takes a JSON body by POST.
        rate_per_s: of Poisson arrivals.
        duration_s: over which requests are due; at most an hour, and a million requests.
        log: JSON lines with `at_s` and perhaps `body`: requests as they were recorded, in the place of Poisson's.
        body: a file with one JSON document, or one a line, which take turns; made up from the model's metadata else.
        connections: most at a time.
        timeout_s: a request is given up so long after it was due.
        remote: allow a server that is not on this machine.

    Raises:
        InputError: something of these cannot be used, or the server accepts no connection.
        UnavailableError: a package of the extra `serve` is not installed.

    Examples:
        >>> report = kcost.run_loadtest("http://127.0.0.1:8501/v1/models/digits:predict")  # doctest: +SKIP
        >>> report.latency.p99_ms  # doctest: +SKIP
        4.2
    """
    require_extra()
    from kcost.serving.load_test import run_load

    settings = _load_settings(
        rate_per_s, duration_s, log, body, seed, connections, timeout_s, remote=remote, bound_ms=1.0
    )
    with asyncio.Runner(loop_factory=_fast_loop) as runner:
        return runner.run(run_load(url, settings))


def find_rate(
    url: str,
    *,
    p99_ms: float,
    first_rate_per_s: float = 50.0,
    trial_s: float = 5.0,
    body: Path | str | None = None,
    seed: int = 0,
    connections: int = 256,
    timeout_s: float = 30.0,
    remote: bool = False,
    on_trial: Callable[[RateTrial], None] | None = None,
) -> RateReport:
    """Looks for the highest rate of Poisson arrivals at which the p99 is within a bound and no request fails.

    Args:
        p99_ms: the bound, from when a request is due until its answer.
        first_rate_per_s: that is tried first; it is doubled or halved from there.
        trial_s: the least time of each trial; one has at least 662 requests.
        on_trial: told of each trial.

    Raises:
        InputError: as of `run_loadtest`.
    """
    require_extra()
    from kcost.serving.load_test import find_rate as search

    settings = _load_settings(
        first_rate_per_s, trial_s, None, body, seed, connections, timeout_s, remote=remote, bound_ms=p99_ms
    )
    with asyncio.Runner(loop_factory=_fast_loop) as runner:
        return runner.run(search(url, settings, on_trial or _nothing))


def _load_settings(
    rate_per_s: float,
    duration_s: float,
    log: Path | str | None,
    body: Path | str | None,
    seed: int,
    connections: int,
    timeout_s: float,
    *,
    remote: bool,
    bound_ms: float,
) -> LoadSettings:
    from kcost.serving.http_server import allowed_connections
    from kcost.serving.load_test import LoadSettings

    if not 1 <= connections <= 4096:
        raise InputError("A load test has 1 to 4096 connections.", received=connections)
    for name, value in (("timeout", timeout_s), ("bound", bound_ms), ("rate", rate_per_s), ("duration", duration_s)):
        if not 0 < value <= 1e6:
            raise InputError(f"The {name} of a load test is positive and at most a million.", received=f"{value:g}")
    allowed_connections(connections)  # else those beyond the limit of open files would look like the server's failures
    return LoadSettings(
        rate_per_s=rate_per_s,
        duration_s=duration_s,
        log=None if log is None else Path(log),
        body=None if body is None else Path(body),
        bound_ms=bound_ms,
        seed=seed,
        connections=connections,
        timeout_s=timeout_s,
        remote=remote,
    )


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

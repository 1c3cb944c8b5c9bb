"""Commands that serve models and load a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kcost.cli.shared import (
    ADDRESS,
    MEASURING,
    PROXY,
    SERVING,
    TRAFFIC,
    All,
    Json,
    Quiet,
    app,
    examples,
    print_answer,
    stage,
    tell,
)

if TYPE_CHECKING:
    from kcost.serving.proxy import Proxying
    from kcost.serving.rate_search import RateTrial
    from kcost.serving.server import Serving


_OF_A_PROXY = ("usd_per_hour", "caller_header", "remote", "reference", "usd_per_error", "forecast", "monitor")
_OF_A_SERVER = ("backend", "grpc_port", "processes", "threads", "queue", "batch_rows", "trial_s", "poll_s")


@app.command(
    epilog=examples(
        "kcost serve serving",
        "kcost serve serving --grpc-port 8500 --processes 2 --threads 1",
        "kcost serve serving --backend onnx",
        "kcost serve --upstream http://127.0.0.1:8501 --usd-per-hour 0.09 --port 8502",
    )
)
def serve(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="What `kcost export` wrote: models.config, or NAME/VERSION folders."),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="What runs the models: saved_model; litert, onnx, openvino: files of kcost export --to.",
            rich_help_panel=SERVING,
        ),
    ] = "saved_model",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of HTTP; 0 for any that is free.", rich_help_panel=ADDRESS)
    ] = 8501,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve gRPC, too, on this port; 0 for any that is free. Default: none.",
            rich_help_panel=ADDRESS,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Beyond this machine, put a proxy with a password before it.",
            rich_help_panel=ADDRESS,
        ),
    ] = "127.0.0.1",
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that run each version of a model.", rich_help_panel=SERVING)
    ] = 1,
    threads: Annotated[
        int,
        typer.Option(
            min=0,
            help="CPU threads of each process; 0 for every core, or as many as a CPU quota allows.",
            rich_help_panel=SERVING,
        ),
    ] = 0,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that wait for a version; then 429.", rich_help_panel=SERVING)
    ] = 1024,
    batch_rows: Annotated[
        int, typer.Option(min=1, help="Most rows that are run together.", rich_help_panel=SERVING)
    ] = 64,
    deadline_s: Annotated[
        float, typer.Option(help="A request is answered by then, if with 504.", rich_help_panel=SERVING)
    ] = 30.0,
    trial_s: Annotated[
        float,
        typer.Option(help="A new version's calls to warm up end by then; 0 for none.", rich_help_panel=SERVING),
    ] = 60.0,
    poll_s: Annotated[
        float, typer.Option(help="How often the folder is looked at for new versions.", rich_help_panel=SERVING)
    ] = 1.0,
    most_mib: Annotated[
        int, typer.Option(min=1, help="Largest body of a request; then 413.", rich_help_panel=SERVING)
    ] = 64,
    client_timeout_s: Annotated[
        float, typer.Option(help="A request is sent within this time; then 408.", rich_help_panel=SERVING)
    ] = 30.0,
    connections: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At a time; then 503 for predictions. Default: 16384, or what the limit of open files leaves.",
            rich_help_panel=SERVING,
        ),
    ] = None,
    stop_s: Annotated[
        float, typer.Option(help="Time to answer what was accepted, after Ctrl-C or SIGTERM.", rich_help_panel=SERVING)
    ] = 30.0,
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Serve no models: pass requests to that server, and write its invoice.",
            rich_help_panel=PROXY,
        ),
    ] = None,
    usd_per_hour: Annotated[
        float | None,
        typer.Option(help="With --upstream: price of its machine; see kcost prices list.", rich_help_panel=PROXY),
    ] = None,
    caller_header: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --upstream: the header that says who asks.", rich_help_panel=PROXY),
    ] = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="The upstream is not on this machine.", rich_help_panel=PROXY)
    ] = False,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="With --upstream: what kcost monitor reference wrote; repeatable.",
            rich_help_panel=PROXY,
        ),
    ] = None,
    usd_per_error: Annotated[
        float | None,
        typer.Option(
            help="With --upstream: what a wrong answer costs: drift is told in dollars.", rich_help_panel=PROXY
        ),
    ] = None,
    forecast: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="With --upstream: a budget (kcost cost --json) or a run folder to put beside the invoice; repeatable.",
            rich_help_panel=PROXY,
        ),
    ] = None,
    monitor: Annotated[
        Path | None,
        typer.Option(help="With --upstream: TOML file of what is watched, stored and told.", rich_help_panel=PROXY),
    ] = None,
    json_: Json = False,
) -> None:
    """Serve exported models by TensorFlow Serving's REST and gRPC; or stand before a server and write its invoice."""
    import kcost
    from kcost.report import serving_terminal

    given = _given(context)
    if upstream is not None:
        if folder is not None:
            raise typer.BadParameter("a proxy serves no models: leave DIR out", param_hint="--upstream")
        if grpc_port is not None:
            raise typer.BadParameter("a proxy passes HTTP alone: leave it out", param_hint="--grpc-port")
        if usd_per_hour is None:
            raise typer.BadParameter("an invoice needs the price of the machine", param_hint="--usd-per-hour")
        _refuse(given, _OF_A_SERVER, "is of the server behind the proxy: give it there")

        def on_proxy(proxying: Proxying) -> None:
            text = f"{proxying.url} passes requests to {proxying.upstream}; live page and invoice: {proxying.page_url}"
            tell(text)

        bill = kcost.serve_proxy(
            upstream,
            usd_per_hour=usd_per_hour,
            caller_header=caller_header,
            host=host,
            port=port,
            deadline_s=deadline_s,
            most_bytes=most_mib << 20,
            client_timeout_s=client_timeout_s,
            connections=connections,
            stop_s=stop_s,
            remote=remote,
            monitor=monitor,
            references=reference or (),
            usd_per_error=usd_per_error,
            forecasts=forecast or (),
            on_start=on_proxy,
            log=tell,
        )
        print_answer(json_, bill, lambda console: serving_terminal.show_invoice(console, bill))
        return
    if folder is None:
        raise typer.BadParameter("name the folder that `kcost export` wrote", param_hint="DIR")
    _refuse(given, _OF_A_PROXY, "is of a proxy: it goes with --upstream URL, in the place of DIR")

    def on_start(serving: Serving) -> None:
        print_answer(json_, serving, lambda console: serving_terminal.show_serving(console, serving))

    kcost.serve_models(
        folder,
        backend=backend,  # type: ignore[arg-type]  # checked there
        host=host,
        port=port,
        grpc_port=grpc_port,
        processes=processes,
        threads=threads,
        queue=queue,
        batch_rows=batch_rows,
        deadline_s=deadline_s,
        trial_s=trial_s,
        poll_s=poll_s,
        most_bytes=most_mib << 20,
        client_timeout_s=client_timeout_s,
        connections=connections,
        stop_s=stop_s,
        on_start=on_start,
        log=tell,
    )


def _given(context: typer.Context) -> list[str]:
    """The parameters that the user said."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name != "DEFAULT"]


def _refuse(given: Sequence[str], others: Sequence[str], why: str) -> None:
    """Refuses options that would do nothing."""
    wrong = [name for name in given if name in others]
    if wrong:
        raise typer.BadParameter(why, param_hint=f"--{wrong[0].replace('_', '-')}")


@app.command(
    epilog=examples(
        "kcost loadtest http://127.0.0.1:8501/v1/models/digits:predict --rate 50 --duration 30",
        "kcost loadtest http://127.0.0.1:8501/v1/models/digits:predict --find-rate --p99-ms 50",
    )
)
def loadtest(
    context: typer.Context,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Of a model on a server; it ends in /v1/models/NAME:predict")
    ],
    rate: Annotated[
        float,
        typer.Option(help="Requests a second; with --find-rate, the first that is tried.", rich_help_panel=TRAFFIC),
    ] = 50.0,
    duration: Annotated[
        float, typer.Option(help="Seconds; with --find-rate, the least of each trial.", rich_help_panel=TRAFFIC)
    ] = 10.0,
    find_rate: Annotated[
        bool,
        typer.Option("--find-rate", help="Look for the highest rate that holds --p99-ms.", rich_help_panel=TRAFFIC),
    ] = False,
    p99_ms: Annotated[float, typer.Option(help="The bound of --find-rate.", rich_help_panel=TRAFFIC)] = 50.0,
    body: Annotated[
        Path | None,
        typer.Option(
            help="File with one JSON body, or one a line; else made up from the metadata.", rich_help_panel=TRAFFIC
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help="Recorded arrivals in the place of Poisson's: JSON lines of at_s and body.", rich_help_panel=TRAFFIC
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the arrivals, and of a body that is made up.", rich_help_panel=TRAFFIC)
    ] = 0,
    connections: Annotated[int, typer.Option(min=1, max=4096, help="Most at a time.", rich_help_panel=MEASURING)] = 256,
    timeout_s: Annotated[
        float, typer.Option(help="A request is given up so long after it was due.", rich_help_panel=MEASURING)
    ] = 30.0,
    remote: Annotated[
        bool, typer.Option("--remote", help="The server is not on this machine, and yours.", rich_help_panel=MEASURING)
    ] = False,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Load a server in open loop: latencies count from when requests were due, and the client's own delay is told."""
    import kcost
    from kcost.report import serving_terminal

    given = _given(context)
    if not find_rate:
        _refuse(given, ("p99_ms",), "is the bound of --find-rate")
    elif log is not None:
        raise typer.BadParameter("a rate is found with Poisson arrivals", param_hint="--log")
    if log is not None:
        _refuse(given, ("rate", "duration"), "is of Poisson arrivals, in whose place --log has recorded ones")
    if find_rate:

        def on_trial(trial: RateTrial) -> None:
            text = f"{trial.rate_per_s:.4g}/s: p99 {trial.p99_ms:.3g} ms, {trial.failed} failed"
            if not quiet:
                tell(text)

        highest = kcost.find_rate(
            url,
            p99_ms=p99_ms,
            first_rate_per_s=rate,
            trial_s=duration,
            body=body,
            seed=seed,
            connections=connections,
            timeout_s=timeout_s,
            remote=remote,
            on_trial=on_trial,
        )
        print_answer(json_, highest, lambda console: serving_terminal.show_rate(console, highest, everything=all_))
        if highest.rate_per_s is None:
            raise typer.Exit(1)
        return
    with stage(f"loading {url}", quiet):
        report = kcost.run_loadtest(
            url,
            rate_per_s=rate,
            duration_s=duration,
            log=log,
            body=body,
            seed=seed,
            connections=connections,
            timeout_s=timeout_s,
            remote=remote,
        )
    print_answer(json_, report, lambda console: serving_terminal.show_load(console, report, everything=all_))
    if report.failed == report.requests:
        raise typer.Exit(1)

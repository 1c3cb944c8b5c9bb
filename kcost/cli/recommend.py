"""The command that answers with one decision: which way of running a model, at what price, and how sure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kcost.cli.shared import (
    DATA,
    LIMITS,
    MEASURING,
    MODEL,
    OUTPUT,
    PRICES,
    TRAFFIC,
    All,
    InstanceOption,
    Json,
    PricesOption,
    ProviderOption,
    Quiet,
    RegionOption,
    app,
    examples,
    fraction,
    numbers,
    parts,
    print_answer,
    progress,
    tell,
)


@app.command(
    epilog=examples(
        "kcost recommend my.keras --data my-data --qps 200 --p99-ms 50 --provider aws",
        "kcost recommend digits-cnn --qps 200 --p99-ms 50 --gates gates.toml --minutes 5 --export serving",
        "kcost recommend --watch my-recommend --qps 400 --monitor http://127.0.0.1:8502",
    )
)
def recommend(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="An artifact folder, or any .keras file.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set by name or path, or an .npz with an array for each input and `labels`; default: the "
            "artifact's own samples.",
            rich_help_panel=DATA,
        ),
    ] = None,
    qps: Annotated[float | None, typer.Option(help="Requests a second.", rich_help_panel=TRAFFIC)] = None,
    daily: Annotated[str | None, typer.Option(help="24 rates, comma-separated.", rich_help_panel=TRAFFIC)] = None,
    weekly: Annotated[str | None, typer.Option(help="168 rates, one an hour.", rich_help_panel=TRAFFIC)] = None,
    log: Annotated[Path | None, typer.Option(help="A log with a time in each line.", rich_help_panel=TRAFFIC)] = None,
    p99_ms: Annotated[
        float | None, typer.Option(help="Most that the p99 may be, arrival to answer.", rich_help_panel=LIMITS)
    ] = None,
    max_drop: Annotated[
        str, typer.Option(help="Most that the score may drop, held against a 95% bound.", rich_help_panel=LIMITS)
    ] = "0.01",
    gates: Annotated[
        Path | None, typer.Option(help="TOML file of limits; exit code 1 where one fails.", rich_help_panel=LIMITS)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 where it can't tell, too.", rich_help_panel=LIMITS)
    ] = False,
    provider: ProviderOption = None,
    region: RegionOption = None,
    instance: InstanceOption = None,
    prices: PricesOption = None,
    work_hours: Annotated[
        float | None,
        typer.Option(help="Of an engineer, to move from plain Keras; default 8.", rich_help_panel=PRICES),
    ] = None,
    horizon_days: Annotated[float | None, typer.Option(help="Default 365.", rich_help_panel=PRICES)] = None,
    min_replicas: Annotated[int | None, typer.Option(help="Default 1.", rich_help_panel=PRICES)] = None,
    minutes: Annotated[float, typer.Option(help="To spend on measuring.", rich_help_panel=MEASURING)] = 20.0,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="Get everything ready that can win at all, not only what is expected to save 5%.",
            rich_help_panel=MEASURING,
        ),
    ] = False,
    variants: Annotated[
        bool,
        typer.Option(
            "--variants/--no-variants",
            help="Make the model cheaper as well: with half of its units, and with Keras's layers in int8.",
            rich_help_panel=MODEL,
        ),
    ] = True,
    probe: Annotated[
        Path | None,
        typer.Option(help="A file of `kcost probe` of this machine, to bound steps by.", rich_help_panel=MEASURING),
    ] = None,
    backends: Annotated[
        str | None, typer.Option(help="Comma-separated; default: all that are installed.", rich_help_panel=MODEL)
    ] = None,
    batches: Annotated[str, typer.Option(help="Comma-separated batch sizes.", rich_help_panel=MODEL)] = "1,8,32",
    device: Annotated[str, typer.Option(help="cpu, gpu or tpu.", rich_help_panel=MODEL)] = "cpu",
    to: Annotated[
        str | None,
        typer.Option(help="Instances or accelerators to project the winner to, such as L4.", rich_help_panel=PRICES),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of draws, order and sampled rows.", rich_help_panel=MEASURING)] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the answer; one that is there goes on. Default: recommend in an artifact, or "
            "NAME-recommend.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write a folder for TensorFlow Serving here.", rich_help_panel=OUTPUT)
    ] = None,
    card: Annotated[
        bool,
        typer.Option("--card/--no-card", help="Write a model card, where labels are there.", rich_help_panel=OUTPUT),
    ] = True,
    watch: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an earlier answer: price it again as traffic, prices and the model are now, measure "
            "nothing; exit code 1 where it holds no more.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    monitor: Annotated[
        str | None,
        typer.Option(
            help="With --watch: URL of a live proxy, or a file of `kcost monitor --json`: drift ends the answer, too.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Choose the cheapest way of running a model that holds its limits: what to run, where, its price, how sure."""
    import kcost
    from kcost.report.recommend_terminal import show_recommendation, show_watched

    traffic: dict[str, Any] = {
        "qps": qps,
        "daily": None if daily is None else numbers(daily),
        "weekly": None if weekly is None else numbers(weekly),
        "log": log,
    }
    if watch is not None:
        if model is not None:
            raise typer.BadParameter("--watch names the folder of an earlier answer: leave the model out")
        watched = kcost.watch_recommendation(watch, **traffic, prices_file=prices, monitor=monitor)
        print_answer(json_, watched, lambda console: show_watched(console, watched))
        if not watched.holds or (strict and watched.undecided):
            raise typer.Exit(1)
        return
    if monitor is not None:
        raise typer.BadParameter("--monitor goes with --watch: it says whether an earlier answer still holds")
    if model is None:
        raise typer.BadParameter("name a model, or the folder of an earlier answer with --watch")
    if p99_ms is None:
        raise typer.BadParameter("a recommendation holds a limit on the p99 latency, such as --p99-ms 50")

    with progress(quiet) as on_progress:
        answer = kcost.run_recommend(
            model,
            data=data,
            **traffic,
            p99_ms=p99_ms,
            max_drop=fraction(max_drop),
            provider=provider,
            region=region,
            instance=instance,
            prices_file=prices,
            minutes=minutes,
            thorough=thorough,
            variants=variants,
            probe=probe,
            gates=gates,
            out=out,
            export=export,
            backends=parts(backends) or (),
            batches=_batches(batches),
            device=device,  # type: ignore[arg-type]  # the plan checks it
            to=parts(to) or (),
            assumptions={"work_hours": work_hours, "horizon_days": horizon_days, "min_replicas": min_replicas},
            card=card,
            seed=seed,
            on_progress=on_progress,
            tell=(lambda _: None) if quiet else tell,
        )
    folder = kcost.recommendation_folder(model) if out is None else out
    print_answer(json_, answer, lambda console: show_recommendation(console, answer, folder, everything=all_))
    if answer.failed or (strict and answer.undecided):
        raise typer.Exit(1)
    if answer.undecided:
        tell("warning: it can't tell yet; --strict makes that exit code 1")


def _batches(text: str) -> tuple[int, ...]:
    sizes = numbers(text)
    if not sizes or any(size != int(size) or size < 1 for size in sizes):
        raise typer.BadParameter(f"{text!r} are not batch sizes such as 1,8,32")
    return tuple(int(size) for size in sizes)

"""Commands that measure models, and say what that means in dollars."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kcost.cli.shared import Json, app, parts, print_answer, progress


@app.command()
def bench(
    what: Annotated[list[str], typer.Argument(metavar="PLAN|ARTIFACT...", help="A .toml plan, or models to measure.")],
    out: Annotated[Path, typer.Option(help="Run folder; one that is there goes on where it stopped.")],
    backends: Annotated[str | None, typer.Option(help="Comma-separated; default: all that are installed.")] = None,
    devices: Annotated[str | None, typer.Option(help="Comma-separated: cpu, gpu, tpu. Default: cpu.")] = None,
    precisions: Annotated[str | None, typer.Option(help="Comma-separated: float32, bfloat16.")] = None,
    batches: Annotated[str | None, typer.Option(help="Comma-separated batch sizes. Default: 1,32.")] = None,
    phases: Annotated[str | None, typer.Option(help="Comma-separated: inference, training.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Comma-separated: predict, eager, graph, xla, jit, compile, train_on_batch.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a worker; 0 is every core.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds in which each cell has one turn.")] = None,
    json_: Json = False,
) -> None:
    """Measure models over backends, devices, precisions and batch sizes."""
    from kcost import api
    from kcost.report import answers

    axes = {
        "backends": parts(backends),
        "devices": parts(devices),
        "precisions": parts(precisions),
        "batches": parts(batches),
        "phases": parts(phases),
        "methods": parts(methods),
        "threads": threads,
    }
    plan = api.make_plan(what, rounds=rounds, **axes)
    with progress() as on_progress:
        run = api.run_bench(plan, out, on_progress=on_progress)
    if json_:
        print_answer(True, run, None)
    else:
        costed = api.estimate_cost(out)
        print_answer(False, costed, lambda console: answers.show_cost(console, costed))


@app.command()
def cost(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    provider: Annotated[str | None, typer.Option(help="aws, gcp, azure, ...")] = None,
    region: str | None = None,
    instance: Annotated[str | None, typer.Option(help="Instance type; default: the closest to the machine.")] = None,
    p99_ms: Annotated[float | None, typer.Option(help="Rank only cells whose p99 latency holds this limit.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Largest drop of the score allowed; default 0.01.")] = None,
    prices: Annotated[Path | None, typer.Option(help="A price book of your own (CSV).")] = None,
    json_: Json = False,
) -> None:
    """Turn measured times into dollars, and say which cell is the cheapest."""
    from kcost import api
    from kcost.report import answers

    costed = api.estimate_cost(
        run,
        provider=provider,
        region=region,
        instance=instance,
        p99_ms=p99_ms,
        max_drop=max_drop,
        prices_file=prices,
    )
    print_answer(json_, costed, lambda console: answers.show_cost(console, costed))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page here.")] = None,
    json_: Json = False,
) -> None:
    """Show a run: ranking, verdicts, parity, warnings; as tables, and as a page."""
    from kcost import api
    from kcost.report import answers

    costed = api.make_report(run, html=html)
    print_answer(json_, costed, lambda console: answers.show_cost(console, costed))
    if html is not None:
        print(f"page: {html}", file=sys.stderr)  # noqa: T201 -- progress


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that the demo makes.")] = Path("demo"),
    json_: Json = False,
) -> None:
    """Run the whole flow on the built-in data: train, bench, cost, verdict, export, report."""
    from kcost import api
    from kcost.report import answers

    with progress() as on_progress:
        made = api.run_demo(out, on_progress=on_progress)
    print_answer(json_, made, lambda console: answers.show_demo(console, made))

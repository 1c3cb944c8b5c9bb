"""Commands that measure models, and say what that means in dollars."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from kcost.cli.shared import Json, app, fraction, parts, print_answer, progress


@app.command()
def bench(
    what: Annotated[list[str], typer.Argument(metavar="PLAN|ARTIFACT...", help="A .toml plan, or models to measure.")],
    out: Annotated[Path, typer.Option(help="Run folder; one that is there goes on where it stopped.")],
    backends: Annotated[str | None, typer.Option(help="Comma-separated; default: all that are installed.")] = None,
    devices: Annotated[str | None, typer.Option(help="Comma-separated: cpu, gpu, tpu. Default: cpu.")] = None,
    precisions: Annotated[
        str | None, typer.Option(help="Comma-separated: float32, bfloat16; of runtimes also int8, int8_dynamic.")
    ] = None,
    batches: Annotated[str | None, typer.Option(help="Comma-separated batch sizes. Default: 1,32.")] = None,
    phases: Annotated[str | None, typer.Option(help="Comma-separated: inference, training.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: predict, eager, graph, xla, jit, compile, train_on_batch; "
            "saved_model, litert, onnx, openvino."
        ),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Comma-separated CPU threads of a worker; 0 is every core. Default: 0.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE.npz", help="Inputs for any model: an array each, by name, and `labels` if known."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds in which each cell has one turn, at least.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Such as 3%: rounds go on until each ratio is known this closely.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="No round begins after this, once each cell has its own.")
    ] = None,
    scenarios: Annotated[
        str | None, typer.Option(help="Comma-separated: single-stream, offline, server; measured after the rounds.")
    ] = None,
    latency_bound_ms: Annotated[
        float | None, typer.Option(help="Scenario server: find the highest rate whose p99 latency is within this.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="After the rounds, look into each cell: where its time goes.")
    ] = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Measure each cell against itself, and beside busy neighbours.")
    ] = False,
    short: Annotated[bool, typer.Option("--short", help="A short self-test, for continuous integration.")] = False,
    json_: Json = False,
) -> None:
    """Measure models over backends, devices, precisions and batch sizes; or test the measuring itself."""
    import kcost
    from kcost.cli import answers

    axes = {
        "backends": parts(backends),
        "devices": parts(devices),
        "precisions": parts(precisions),
        "batches": parts(batches),
        "phases": parts(phases),
        "methods": parts(methods),
        "threads": parts(threads),
        "data": data,
    }
    settings = {
        "rounds": rounds,
        "precision": None if precision is None else fraction(precision),
        "minutes": minutes,
        "scenarios": parts(scenarios),
        "latency_bound_ms": latency_bound_ms,
    }
    plan = kcost.make_plan(what, settings=settings, profile=profile, **axes)
    if self_test:
        from kcost.report.bench_terminal import show_self_test

        with progress() as on_progress:
            found = kcost.run_self_test(plan, short=short, out=out, on_progress=on_progress)
        print_answer(json_, found, lambda console: show_self_test(console, found))
        if not found.passed:
            raise typer.Exit(1)
        return
    with progress() as on_progress:
        run = kcost.run_bench(plan, out, on_progress=on_progress)
    if json_:
        print_answer(True, run, None)
    else:
        costed = kcost.estimate_cost(out)
        print_answer(False, costed, lambda console: answers.show_cost(console, costed))
        if plan.settings.profile:
            from kcost.report.profile_terminal import show_profiles

            print_answer(False, run, lambda console: show_profiles(console, run))


@app.command()
def cost(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    provider: Annotated[str | None, typer.Option(help="aws, gcp, azure, ...")] = None,
    region: str | None = None,
    instance: Annotated[str | None, typer.Option(help="Instance type; default: the closest to the machine.")] = None,
    p99_ms: Annotated[float | None, typer.Option(help="Rank only cells whose p99 latency holds this limit.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Largest drop of the score allowed; default 0.01.")] = None,
    prices: Annotated[Path | None, typer.Option(help="A price book of your own (CSV), or a prices.toml.")] = None,
    pay: Annotated[Literal["on-demand", "spot", "committed"], typer.Option(help="How the instance is paid for.")] =
    "on-demand",
    json_: Json = False,
) -> None:
    """Turn measured times into dollars, and say which cell is the cheapest."""
    import kcost
    from kcost.cli import answers

    costed = kcost.estimate_cost(
        run,
        provider=provider,
        region=region,
        instance=instance,
        p99_ms=p99_ms,
        max_drop=max_drop,
        prices_file=prices,
        pay=pay,
    )
    print_answer(json_, costed, lambda console: answers.show_cost(console, costed))


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="Run folder: before.")],
    run_b: Annotated[Path, typer.Argument(help="Run folder: after.")],
    fail_if: Annotated[
        str | None, typer.Option(help="Such as 'usd_per_million>3%,median_ms>5%': exit 1 where that is significant.")
    ] = None,
    allow_different: Annotated[
        bool, typer.Option("--allow-different", help="Compare although the environments differ.")
    ] = False,
    json_: Json = False,
) -> None:
    """Hold two runs against each other, cell by cell."""
    import kcost
    from kcost.report.bench_terminal import show_comparison

    found = kcost.compare_runs(run_a, run_b, fail_if=fail_if, allow_different=allow_different)
    print_answer(json_, found, lambda console: show_comparison(console, found))
    if found.failed:
        raise typer.Exit(1)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page here.")] = None,
    json_: Json = False,
) -> None:
    """Show a run: ranking, verdicts, parity, warnings; as tables, and as a page."""
    import kcost
    from kcost.cli import answers

    costed = kcost.make_report(run, html=html)
    print_answer(json_, costed, lambda console: answers.show_cost(console, costed))
    if html is not None:
        print(f"page: {html}", file=sys.stderr)  # noqa: T201 -- progress


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that the demo makes.")] = Path("demo"),
    json_: Json = False,
) -> None:
    """Run the whole flow on the built-in data: train, bench, cost, verdict, export, report."""
    from kcost import run_demo
    from kcost.cli import answers

    with progress() as on_progress:
        made = run_demo(out, on_progress=on_progress)
    print_answer(json_, made, lambda console: answers.show_demo(console, made))

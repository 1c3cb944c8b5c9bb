"""Commands that measure models, and say what that means in dollars."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kcost.cli.shared import (
    DATA,
    LIMITS,
    MEASURING,
    MODEL,
    OUTPUT,
    All,
    Json,
    Quiet,
    app,
    examples,
    fraction,
    parts,
    print_answer,
    print_text,
    progress,
    tell,
)

PAGE = "report.html"
"""Of a run, in its folder."""


@app.command(
    epilog=examples(
        "kcost bench my.keras --out run",
        "kcost bench a.keras b.keras --backends jax,torch --batches 1,32 --minutes 5 --out run",
        "kcost bench plan.toml --out run",
    )
)
def bench(
    what: Annotated[list[str], typer.Argument(metavar="PLAN|ARTIFACT", help="A .toml plan, or models to measure.")],
    out: Annotated[
        Path, typer.Option(help="Run folder; one that is there goes on where it stopped.", rich_help_panel=OUTPUT)
    ],
    backends: Annotated[
        str | None, typer.Option(help="Comma-separated; default: all that are installed.", rich_help_panel=MODEL)
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Comma-separated: cpu, gpu, tpu. Default: cpu.", rich_help_panel=MODEL)
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: float32, bfloat16, saved (as the file was saved); of runtimes also int8, "
            "int8_dynamic. Default: float32,bfloat16,saved.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    batches: Annotated[
        str | None, typer.Option(help="Comma-separated batch sizes. Default: 1,32.", rich_help_panel=MODEL)
    ] = None,
    phases: Annotated[
        str | None, typer.Option(help="Comma-separated. Default: inference,training.", rich_help_panel=MODEL)
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: predict, eager, graph, xla, jit, compile, train_on_batch; "
            "saved_model, litert, onnx, openvino. Default: all of the first but compile.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated CPU threads of a worker; 0 is every core, or as many as a CPU quota allows. "
            "Default: 0.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npz",
            help="Inputs for any model: an array each, by name, and `labels` if known.",
            rich_help_panel=DATA,
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(help="Rounds in which each cell has one turn, at least. Default: 10.", rich_help_panel=MEASURING),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Such as 3%: rounds go on until each ratio is known this closely.", rich_help_panel=MEASURING
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="No round begins after this, once each cell has its own.", rich_help_panel=MEASURING),
    ] = None,
    scenarios: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: single-stream, offline, after-idle, server; measured after the rounds.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    latency_bound_ms: Annotated[
        float | None,
        typer.Option(
            help="Scenario server: find the highest rate whose p99 latency is within this.", rich_help_panel=MEASURING
        ),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="After the rounds, look into each cell: where its time goes.", rich_help_panel=MEASURING
        ),
    ] = False,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="Measure each cell against itself, and beside busy neighbours.",
            rich_help_panel=MEASURING,
        ),
    ] = False,
    short: Annotated[
        bool, typer.Option("--short", help="A short self-test, for continuous integration.", rich_help_panel=MEASURING)
    ] = False,
    all_: All = False,
    quiet: Quiet = False,
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

        with progress(quiet) as on_progress:
            report = kcost.run_self_test(plan, short=short, out=out, on_progress=on_progress)
        print_answer(json_, report, lambda console: show_self_test(console, report, everything=all_))
        if not report.passed:
            raise typer.Exit(1)
        return
    with progress(quiet) as on_progress:
        run = kcost.run_bench(plan, out, on_progress=on_progress)
    if json_:
        print_answer(True, run, None)
    else:
        costed = kcost.estimate_cost(out)
        print_answer(False, costed, lambda console: answers.show_cost(console, costed, out, everything=all_))
        if plan.settings.profile:
            from kcost.report.profile_terminal import show_profiles

            print_answer(False, run, lambda console: show_profiles(console, run, everything=all_))


@app.command(epilog=examples("kcost compare before after --fail-if 'usd_per_million>3%'"))
def compare(
    run_a: Annotated[Path, typer.Argument(help="Run folder: before.")],
    run_b: Annotated[Path, typer.Argument(help="Run folder: after.")],
    fail_if: Annotated[
        str | None,
        typer.Option(
            help="Such as 'usd_per_million>3%,median_ms>5%': exit 1 where that is significant.", rich_help_panel=LIMITS
        ),
    ] = None,
    allow_different: Annotated[
        bool,
        typer.Option("--allow-different", help="Compare although the environments differ.", rich_help_panel=LIMITS),
    ] = False,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Hold two runs against each other, cell by cell."""
    import kcost
    from kcost.report.bench_terminal import show_comparison

    comparison = kcost.compare_runs(run_a, run_b, fail_if=fail_if, allow_different=allow_different)
    print_answer(json_, comparison, lambda console: show_comparison(console, comparison, everything=all_))
    if comparison.failed:
        raise typer.Exit(1)


@app.command(epilog=examples("kcost report run --html page.html"))
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    html: Annotated[
        Path | None, typer.Option(help="Write one self-contained page here.", rich_help_panel=OUTPUT)
    ] = None,
    open_: Annotated[
        bool,
        typer.Option("--open", help="Open the page, RUN/report.html unless --html names one.", rich_help_panel=OUTPUT),
    ] = False,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Show a run: ranking, verdicts, parity, warnings; as tables, and as a page."""
    import kcost
    from kcost.cli import answers

    page = run / PAGE if html is None and open_ else html
    costed = kcost.make_report(run, html=page)
    print_answer(json_, costed, lambda console: answers.show_cost(console, costed, run, everything=all_))
    if page is not None:
        tell(f"page: {page}")
    if open_ and page is not None:
        _open(page)


@app.command(epilog=examples("kcost code run > winner.py", "kcost code run --model digits-cnn --cell 3f2a"))
def code(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    model: Annotated[
        str | None, typer.Option(help="Of the run; needed where it holds several.", rich_help_panel=MODEL)
    ] = None,
    cell: Annotated[
        str | None, typer.Option(help="cell_id, or its beginning; default: the cheapest.", rich_help_panel=MODEL)
    ] = None,
    json_: Json = False,
) -> None:
    """Print the shortest program that runs a model as it was measured."""
    import kcost

    made = kcost.program(run, model=model, cell=cell)
    if json_:
        print_answer(True, made, None)
    else:
        print_text(made.text, end="")


@app.command("open", epilog=examples("kcost open run"))
def open_run(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write the page of a run, RUN/report.html, and open it in the browser."""
    import kcost

    kcost.make_report(run, html=run / PAGE)
    print_text(str(run / PAGE))
    _open(run / PAGE)


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.absolute().as_uri()):
        tell(f"no browser could be started: open {page.absolute()}")


@app.command(epilog=examples("kcost demo --out demo"))
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that the demo makes.", rich_help_panel=OUTPUT)] = Path(
        "demo"
    ),
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Run the whole flow on the built-in data: train, recommend with int8 and pruning, export."""
    from kcost import run_demo
    from kcost.cli import answers

    with progress(quiet) as on_progress:
        made = run_demo(out, on_progress=on_progress, tell=(lambda _: None) if quiet else tell)
    print_answer(json_, made, lambda console: answers.show_demo(console, made, everything=all_))

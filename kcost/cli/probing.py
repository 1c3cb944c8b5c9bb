"""The command that measures what a machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kcost.cli.shared import (
    MEASURING,
    OUTPUT,
    All,
    BackendOption,
    Json,
    Quiet,
    app,
    examples,
    print_answer,
    progress,
    whole_numbers,
)


@app.command(
    "probe", epilog=examples("kcost probe --out here.json", "kcost probe --backend torch --seconds 30 --threads 1")
)
def probe(
    out: Annotated[Path, typer.Option(help="The file to write.", rich_help_panel=OUTPUT)] = Path("probe.json"),
    backend: BackendOption = None,
    seconds: Annotated[float, typer.Option(help="Most time of all, at most 120.", rich_help_panel=MEASURING)] = 120.0,
    threads: Annotated[
        str | None,
        typer.Option(
            help="Numbers of threads; default: 1, every core (or as many as a CPU quota allows), and at most two "
            "between.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Measure what this machine can do: products, memory, calls, at 1 to all threads; two minutes at most."""
    import kcost
    from kcost.report import probe_terminal

    named: Any = backend  # the API refuses what is no backend
    with progress(quiet) as on_progress:
        made = kcost.run_probe(
            out,
            backend=named,
            seconds=seconds,
            threads=whole_numbers(threads, "numbers of threads such as 1,2"),
            on_progress=on_progress,
        )
    print_answer(json_, made, lambda console: probe_terminal.show_probe(console, made, out, everything=all_))

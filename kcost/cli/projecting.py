"""The command that says what a measured model would cost elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kcost.cli.shared import (
    MACHINES,
    MODEL,
    PRICES,
    All,
    Json,
    PricesOption,
    ProviderOption,
    RegionOption,
    app,
    examples,
    parts,
    print_answer,
    whole_numbers,
)


@app.command(
    "project",
    epilog=examples(
        "kcost project run --to L4,c7g.large",
        "kcost project run --to c7i.2xlarge=there.json --probe here.json",
    ),
)
def project(
    run: Annotated[Path, typer.Argument(help="Run folder, measured with --profile.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="INSTANCE,...",
            help="Instances or accelerators of the price book; INSTANCE=FILE with a probe that was made on it.",
            rich_help_panel=MACHINES,
        ),
    ],
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="FILE,...", help="Probes of the machine that measured, one a backend.", rich_help_panel=MACHINES
        ),
    ] = None,
    provider: ProviderOption = None,
    region: RegionOption = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="fp32, tf32, fp16, bf16 or int8; default: what the framework computes in there.", rich_help_panel=MODEL
        ),
    ] = None,
    batches: Annotated[
        str | None, typer.Option(help="Batch sizes there; default: those measured.", rich_help_panel=MODEL)
    ] = None,
    pay: Annotated[
        Literal["on-demand", "spot", "committed"], typer.Option(help="How it is paid for.", rich_help_panel=PRICES)
    ] = "on-demand",
    prices: PricesOption = None,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Say what a measured model would cost on machines that are not at hand: projected, with an interval."""
    import kcost
    from kcost.report import projection_terminal

    # What is no precision is refused by the API, which lists those that are.
    precision: Any = dtype
    report = kcost.project_run(
        run,
        parts(to) or [],
        probes=parts(probe) or [],
        provider=provider,
        region=region,
        precision=precision,
        batches=whole_numbers(batches, "batch sizes such as 1,32") or [],
        pay=pay,
        prices_file=prices,
    )
    print_answer(json_, report, lambda console: projection_terminal.show_projection(console, report, everything=all_))

"""The command on what to pay for next: labels, a bigger model, more epochs, or a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kcost.cli.shared import (
    DATA,
    OUTPUT,
    PRICES,
    SERVING,
    All,
    Json,
    PricesOption,
    app,
    examples,
    fraction,
    print_answer,
    tell,
)


@app.command(
    "next-dollar",
    epilog=examples(
        "kcost next-dollar now quarter half small longer --usd-per-label 0.05",
        "kcost next-dollar tagger-* --annotator-usd-per-hour 15 --html next.html",
    ),
)
def next_dollar(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT",
            help="Artifacts of one data set; the first is the model that there is, the others show what else gives.",
        ),
    ],
    gain: Annotated[str | None, typer.Option(help="Of the score; default 1%, a point.", rich_help_panel=DATA)] = None,
    usd_per_label: Annotated[
        float | None, typer.Option(help="Price of one more labelled example.", rich_help_panel=PRICES)
    ] = None,
    annotator_usd_per_hour: Annotated[
        float | None, typer.Option(help="In its place: an annotator's hour.", rich_help_panel=PRICES)
    ] = None,
    label_seconds: Annotated[
        float | None,
        typer.Option(
            help="Of one person for one example; default for entities: as measured in tweets.", rich_help_panel=PRICES
        ),
    ] = None,
    redundancy: Annotated[
        float | None, typer.Option(help="Persons to an example; default 2.", rich_help_panel=PRICES)
    ] = None,
    prices: PricesOption = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder in which these models were measured: what serving a bigger one costs.",
            rich_help_panel=SERVING,
        ),
    ] = None,
    qps: Annotated[float | None, typer.Option(help="Requests a second.", rich_help_panel=SERVING)] = None,
    horizon_days: Annotated[float, typer.Option(help="That serving is paid for.", rich_help_panel=SERVING)] = 365.0,
    html: Annotated[
        Path | None, typer.Option(help="Write one self-contained page here.", rich_help_panel=OUTPUT)
    ] = None,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Say what a point of score costs by more labels, a bigger model, longer training or distilling: the cheapest."""
    import kcost
    from kcost.report.next_dollar_terminal import show_next_dollar

    if qps is not None and run is None:
        raise typer.BadParameter("--qps is of serving: name the --run in which the models were measured")
    answer = kcost.next_dollar(
        artifacts,
        gain=None if gain is None else fraction(gain),
        usd_per_label=usd_per_label,
        annotator_usd_per_hour=annotator_usd_per_hour,
        label_seconds=label_seconds,
        redundancy=redundancy,
        run=run,
        qps=qps,
        horizon_days=horizon_days,
        prices_file=prices,
    )
    if html is not None:
        kcost.write_next_dollar_page(answer, html)
    print_answer(json_, answer, lambda console: show_next_dollar(console, answer, everything=all_))
    if html is not None:
        tell(f"page: {html}")

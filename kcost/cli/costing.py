"""The commands on cost: a ranking of measured cells or a budget for some traffic; what training costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kcost.cli.shared import (
    LIMITS,
    OUTPUT,
    PRICES,
    TRAFFIC,
    TRAINING,
    All,
    InstanceOption,
    Json,
    PayOption,
    PricesOption,
    ProviderOption,
    RegionOption,
    app,
    examples,
    fraction,
    numbers,
    parts,
    print_answer,
    tell,
)

ASSUMPTIONS = "Assumptions"


@app.command(
    epilog=examples(
        "kcost cost run",
        "kcost cost run --provider aws --instance c7i.large --p99-ms 50",
        "kcost cost run --qps 200 --p99-ms 50 --xlsx budget.xlsx",
    )
)
def cost(
    run: Annotated[Path | None, typer.Argument(help="Run folder.")] = None,
    provider: ProviderOption = None,
    region: RegionOption = None,
    instance: InstanceOption = None,
    p99_ms: Annotated[
        float | None,
        typer.Option(
            help="Most that the p99 may be: of the steps one after another, or with traffic, under that.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest drop of the score allowed; default 0.01.", rich_help_panel=LIMITS)
    ] = None,
    prices: PricesOption = None,
    pay: PayOption = "on-demand",
    qps: Annotated[
        float | None, typer.Option(help="Requests a second: make a budget.", rich_help_panel=TRAFFIC)
    ] = None,
    daily: Annotated[
        str | None, typer.Option(help="24 rates, one an hour, comma-separated.", rich_help_panel=TRAFFIC)
    ] = None,
    weekly: Annotated[str | None, typer.Option(help="168 rates, one an hour.", rich_help_panel=TRAFFIC)] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="A log with a time in each line; nothing else of it is read.", rich_help_panel=TRAFFIC),
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(help="A TOML file with traffic, assumptions and options.", rich_help_panel=TRAFFIC)
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Comma-separated: models of the run that stand for each other.", rich_help_panel=LIMITS),
    ] = None,
    horizon_days: Annotated[float | None, typer.Option(help="Default 365.", rich_help_panel=ASSUMPTIONS)] = None,
    headroom: Annotated[
        str | None, typer.Option(help="Capacity above the busiest hour; default 20%.", rich_help_panel=ASSUMPTIONS)
    ] = None,
    min_replicas: Annotated[int | None, typer.Option(help="Default 1.", rich_help_panel=ASSUMPTIONS)] = None,
    zones: Annotated[
        int | None,
        typer.Option(
            help="Zones that instances are spread over; all but one hold the traffic. Default 1.",
            rich_help_panel=ASSUMPTIONS,
        ),
    ] = None,
    max_replicas: Annotated[int | None, typer.Option(help="Default 1000.", rich_help_panel=ASSUMPTIONS)] = None,
    autoscale: Annotated[
        bool | None,
        typer.Option(
            "--autoscale/--no-autoscale", help="Replicas follow the hours of the profile.", rich_help_panel=ASSUMPTIONS
        ),
    ] = None,
    cold_start_s: Annotated[
        float | None, typer.Option(help="Paid before a new replica answers; default 180.", rich_help_panel=ASSUMPTIONS)
    ] = None,
    spot_share: Annotated[
        str | None, typer.Option(help="Part of the instances on spot; default 0.", rich_help_panel=ASSUMPTIONS)
    ] = None,
    spot_interruptions_per_month: Annotated[
        float | None, typer.Option(help="Of an instance on spot; default 0.05.", rich_help_panel=ASSUMPTIONS)
    ] = None,
    hand_over_ms: Annotated[
        float | None,
        typer.Option(
            help="Of each step, in which the server keeps the model waiting; default 0.", rich_help_panel=ASSUMPTIONS
        ),
    ] = None,
    work_hours: Annotated[
        float | None,
        typer.Option(
            help="Of an engineer, to move from plain Keras to another way; default 8.", rich_help_panel=ASSUMPTIONS
        ),
    ] = None,
    work_usd_per_hour: Annotated[
        float | None, typer.Option(help="Of that engineer; default 100.", rich_help_panel=ASSUMPTIONS)
    ] = None,
    traffic_spread: Annotated[
        str | None, typer.Option(help="Either way, with 90%; default 20%.", rich_help_panel=ASSUMPTIONS)
    ] = None,
    price_spread: Annotated[
        str | None, typer.Option(help="The same of prices; default 5%.", rich_help_panel=ASSUMPTIONS)
    ] = None,
    capacity_spread: Annotated[
        str | None, typer.Option(help="A real server's rate; default 15%.", rich_help_panel=ASSUMPTIONS)
    ] = None,
    work_spread: Annotated[
        str | None, typer.Option(help="Of the hours of work; default 50%.", rich_help_panel=ASSUMPTIONS)
    ] = None,
    scaling_spread: Annotated[
        str | None,
        typer.Option(
            help="Of a step beside each doubling of workers on one instance; default 10%.", rich_help_panel=ASSUMPTIONS
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated instances or accelerators to put on the page's map, projected.",
            rich_help_panel=PRICES,
        ),
    ] = None,
    xlsx: Annotated[
        Path | None,
        typer.Option(help="Write the calculation as a workbook with live formulas.", rich_help_panel=OUTPUT),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the budget as one self-contained page here.", rich_help_panel=OUTPUT)
    ] = None,
    next_dollar: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --html: what `kcost next-dollar --json` printed; its learning curve joins the page.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Turn measured times into dollars, and say which cell is the cheapest; with --qps, which budget holds a limit."""
    import kcost
    from kcost.cli import answers

    assumptions = {
        "horizon_days": horizon_days,
        "headroom": _share(headroom),
        "min_replicas": min_replicas,
        "zones": zones,
        "max_replicas": max_replicas,
        "autoscale": autoscale,
        "cold_start_s": cold_start_s,
        "spot_share": _share(spot_share),
        "spot_interruptions_per_month": spot_interruptions_per_month,
        "hand_over_ms": hand_over_ms,
        "work_hours": work_hours,
        "work_usd_per_hour": work_usd_per_hour,
        "traffic_spread": _share(traffic_spread),
        "price_spread": _share(price_spread),
        "capacity_spread": _share(capacity_spread),
        "work_spread": _share(work_spread),
        "scaling_spread": _share(scaling_spread),
    }
    if next_dollar is not None and html is None:
        raise typer.BadParameter("--next-dollar is shown on a page: name one with --html")
    if any(v is not None for v in (qps, daily, weekly, log, scenario)):
        budget = kcost.estimate_budget(
            run,
            qps=qps,
            daily=None if daily is None else numbers(daily),
            weekly=None if weekly is None else numbers(weekly),
            log=log,
            p99_ms=p99_ms,
            scenario=scenario,
            provider=provider,
            region=region,
            instance=instance,
            models=parts(models) or (),
            max_drop=max_drop,
            prices_file=prices,
            project_to=parts(to) or (),
            assumptions=assumptions,
        )
        if xlsx is not None:
            kcost.write_workbook(budget, xlsx)
        if html is not None:
            kcost.write_budget_page(budget, html, next_dollar)
        from kcost.report.budget_terminal import show_budget

        print_answer(json_, budget, lambda console: show_budget(console, budget, everything=all_))
        for kind, path in (("workbook", xlsx), ("page", html)):
            if path is not None:
                tell(f"{kind}: {path}")
        return
    others = {"models": models, "to": to, "xlsx": xlsx, "html": html}
    of_budget = [n for n, v in {**assumptions, **others}.items() if v is not None]
    if of_budget:
        names = ", ".join(f"--{n.replace('_', '-')}" for n in of_budget)
        raise typer.BadParameter(f"{names} belongs to a budget: give its traffic too, such as --qps 200")
    if run is None:
        raise typer.BadParameter("name a run folder, or a --scenario that gives the figures of every option")
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
    print_answer(json_, costed, lambda console: answers.show_cost(console, costed, run, everything=all_))


@app.command(
    "training-cost",
    epilog=examples(
        "kcost training-cost run --instance g6.xlarge --trials 20",
        "kcost training-cost run --pay spot --storage-gib 50 --usd-per-gib-month 0.08",
    ),
)
def training_cost(
    run: Annotated[Path, typer.Argument(help="Run folder with cells of the phase training.")],
    epochs: Annotated[
        int | None, typer.Option(help="Of a training; default: those of the model's own.", rich_help_panel=TRAINING)
    ] = None,
    examples: Annotated[
        int | None, typer.Option(help="Of the training split; default: the model's own.", rich_help_panel=TRAINING)
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Trainings one after another, as a search makes them.", rich_help_panel=TRAINING)
    ] = 1,
    provider: ProviderOption = None,
    region: RegionOption = None,
    instance: InstanceOption = None,
    pay: PayOption = "on-demand",
    storage_gib: Annotated[
        float, typer.Option(help="Storage that is paid for as long as it lasts.", rich_help_panel=PRICES)
    ] = 0.0,
    usd_per_gib_month: Annotated[
        float | None, typer.Option(help="What that costs; no price of storage is known.", rich_help_panel=PRICES)
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest drop of the score allowed; default 0.01.", rich_help_panel=LIMITS)
    ] = None,
    prices: PricesOption = None,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Say what training a model, or a search over many, costs: steps, what is beside them, restarts, storage."""
    import kcost
    from kcost.report.training_terminal import show_training

    report = kcost.estimate_training(
        run,
        epochs=epochs,
        examples=examples,
        trials=trials,
        provider=provider,
        region=region,
        instance=instance,
        pay=pay,
        storage_gib=storage_gib,
        usd_per_gib_month=usd_per_gib_month,
        max_drop=max_drop,
        prices_file=prices,
    )
    print_answer(json_, report, lambda console: show_training(console, report, everything=all_))


def _share(text: str | None) -> float | None:
    return None if text is None else fraction(text)

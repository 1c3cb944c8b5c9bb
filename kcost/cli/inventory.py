"""Commands on what kcost works with: this machine, data sets and prices."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from kcost.cli.shared import (
    MEASURING,
    OUTPUT,
    PRICES,
    All,
    Json,
    ProviderOption,
    RegionOption,
    app,
    command_group,
    examples,
    print_answer,
    print_text,
)

data_app = command_group(help="Data sets: where from, licence, size, checksum.")
prices_app = command_group(help="The price book.")
app.add_typer(data_app, name="data")
app.add_typer(prices_app, name="prices")


@app.command(epilog=examples("kcost doctor", "kcost doctor --no-devices"))
def doctor(
    json_: Json = False,
    devices: Annotated[
        bool, typer.Option(help="Start each backend to list its devices.", rich_help_panel=MEASURING)
    ] = True,
) -> None:
    """Say what is installed, what this machine is, and what works on it."""
    import kcost
    from kcost.cli import answers

    report = kcost.run_doctor(devices=devices)
    print_answer(json_, report, lambda console: answers.show_doctor(console, report))


@data_app.command("list", epilog=examples("kcost data list", "kcost data list --all"))
def data_list(all_: All = False, json_: Json = False) -> None:
    """List the data sets that are known by name."""
    import kcost
    from kcost.cli import answers

    entries = kcost.data_sets()
    print_answer(json_, entries, lambda console: answers.show_data_sets(console, entries, everything=all_))


@data_app.command("fetch", epilog=examples("kcost data fetch fashion_mnist"))
def data_fetch(name: Annotated[str, typer.Argument(help="As `kcost data list` has it.")]) -> None:
    """Find a data set, or download and check it; print the folder."""
    import kcost

    for part, path in kcost.fetch_data(name).items():
        print_text(f"{part}\t{path}")


@prices_app.command("list", epilog=examples("kcost prices list --provider aws --region us-east-1"))
def prices_list(
    file: Annotated[Path | None, typer.Argument(help="A price book; default: the one in the package.")] = None,
    provider: ProviderOption = None,
    region: RegionOption = None,
    all_: All = False,
    json_: Json = False,
) -> None:
    """List prices, each with its source and date."""
    import kcost
    from kcost.cli import answers

    rows = kcost.prices(file).find(provider=provider, region=region)
    print_answer(json_, list(rows), lambda console: answers.show_prices(console, rows, everything=all_))


@prices_app.command("update", epilog=examples("kcost prices update vms.csv --provider aws --out prices.csv"))
def prices_update(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="SkyPilot's vms.csv, or a Karpenter table.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the book here; without it nothing is written.", rich_help_panel=OUTPUT)
    ] = None,
    book: Annotated[
        Path | None, typer.Option(help="The book to update; default: the package's own.", rich_help_panel=PRICES)
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Whose prices these are, where the list does not say.", rich_help_panel=PRICES)
    ] = None,
    as_of: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day of the prices.", rich_help_panel=PRICES)
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Also take instances that the book does not have.", rich_help_panel=PRICES)
    ] = False,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Read a newer price list into a book, and show what changed."""
    import kcost
    from kcost.report import price_terminal

    day = None if as_of is None else as_of.date()
    changes = kcost.update_prices(source, book=book, out=out, provider=provider, as_of=day, add=add)
    print_answer(
        json_, changes, lambda console: price_terminal.show_price_diff(console, changes, updating=True, everything=all_)
    )


@prices_app.command("diff", epilog=examples("kcost prices diff prices.csv"))
def prices_diff(
    before: Annotated[Path, typer.Argument(help="A price book, or a prices.toml.")],
    after: Annotated[Path | None, typer.Argument(help="Another; default: the book that is in use here.")] = None,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Show what changed from one price book to another."""
    import kcost
    from kcost.report import price_terminal

    changes = kcost.diff_prices(before, after)
    print_answer(
        json_,
        changes,
        lambda console: price_terminal.show_price_diff(console, changes, updating=False, everything=all_),
    )


@prices_app.command("check", epilog=examples("kcost prices check", "kcost prices check prices.csv"))
def prices_check(
    file: Annotated[Path | None, typer.Argument(help="A price book; default: the one in the package.")] = None,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Refuse a price book with rows that cannot be trusted, and warn of rows to look at again."""
    import kcost
    from kcost.cli import answers

    checked = kcost.check_prices(file)
    print_answer(json_, checked, lambda console: answers.show_price_check(console, checked, everything=all_))
    if checked.problems:
        raise typer.Exit(2)

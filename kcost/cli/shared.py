"""What the commands share: the application, common options, and how answers and progress are printed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from kcost.core.output import say
from kcost.core.progress import OnProgress, shown_on, silent, stage as stage_of

PIPE_COLUMNS = 160
F = TypeVar("F", bound=Callable[..., Any])

NARROW = 100
"""Columns of a terminal below which panels of options would cut names."""


@contextmanager
def _plain_where_narrow(command: Any) -> Iterator[None]:
    """Help in panels; on a narrow terminal the same as plain text, of which nothing is cut."""
    mode = command.rich_markup_mode
    if shutil.get_terminal_size().columns < NARROW:
        command.rich_markup_mode = None
    try:
        yield
    finally:
        command.rich_markup_mode = mode


def tell(text: str) -> None:
    """Says on standard error what is no answer; the command goes on where nobody reads that, or the disk is full."""
    with suppress(OSError, ValueError):  # ValueError: the stream was closed
        say(sys.stderr, text)


def print_text(text: str, end: str = "\n") -> None:
    """An answer that is a text, on standard output."""
    say(sys.stdout, text, end)


class _Group(TyperGroup):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        with _plain_where_narrow(self):
            super().format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, str(command.help).partition("\n\n")[0]) for name, command in self.commands.items()]
            )


GOES_ON = "the same command goes on from here"
KEPT = {
    "bench": f"what was measured stays, {GOES_ON}",
    "train": f"the epochs that were finished stay, {GOES_ON}",
    "search": f"the trials that were finished stay, {GOES_ON}",
    "recommend": f"what was measured stays, {GOES_ON}",
    "risk": f"the predictions that were stored stay, {GOES_ON}",
    "optimize": "what --out holds by now stays; remove it, or name another, and run the command again",
    "demo": "what --out holds by now stays; remove it, or name another, and run the command again",
}
"""What is kept of a command that is interrupted, and how to go on."""


def argument_text(argument: Any) -> str:
    """How an argument stands in the usage of a command: RUN, [RUN] where it may be left out, RUN... for several."""
    name = argument.metavar or argument.name.upper()
    if argument.nargs == -1 and " " not in name:
        name = f"{name}..."
    return name if argument.required else f"[{name}]"


class _Command(TyperCommand):
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for parameter in self.params:
            if parameter.param_type_name == "argument":
                parameter.metavar = parameter.metavar or str(parameter.name).upper()

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [argument_text(p) for p in self.params if p.param_type_name == "argument"]
        return [*arguments, *([self.options_metavar] if self.options_metavar else [])]

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            kept = KEPT.get(str(self.name), "nothing was written; run the same command again")
            tell(f"interrupted; {kept}")
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with _plain_where_narrow(self):
            super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
        for panel, records in panels.items():
            with formatter.section(panel):
                formatter.write_dl(records)


class _App(typer.Typer):
    def command(self, *names: Any, **settings: Any) -> Callable[[F], F]:
        return super().command(*names, **{"cls": _Command, **settings})


def command_group(**settings: Any) -> typer.Typer:
    """A group of commands whose help fits narrow terminals too."""
    return _App(cls=_Group, no_args_is_help=True, **settings)


app = _App(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from kcost.version import __version__

        print_text(f"kcost {__version__}")
        raise typer.Exit


@app.callback()
def kcost(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    classes: Annotated[
        str | None,
        typer.Option(metavar="MODULE,...", help="Your modules with custom layers of the model; kcost imports them."),
    ] = None,
) -> None:
    """Which way of running a Keras 3 model is the cheapest, in dollars, that still meets its limits."""
    if classes is not None:
        from kcost.core.own_code import CLASSES_VARIABLE

        os.environ[CLASSES_VARIABLE] = classes  # workers inherit it


DATA, MODEL, TRAINING, MEASURING, OUTPUT = "Data", "Model", "Training", "Measuring", "Output"
TRAFFIC, LIMITS, PRICES, MACHINES, SEARCH = "Traffic", "Limits", "Prices", "Machines", "Search"
ADDRESS, SERVING, PROXY = "Address", "Serving", "Proxy (with --upstream)"
"""Panels of options in the help of a command."""

All = Annotated[
    bool, typer.Option("--all", help="Every table, price and notice, not one screen.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on standard error.", rich_help_panel=OUTPUT)]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of tables.", rich_help_panel=OUTPUT)
]
BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="tensorflow, jax or torch; else KERAS_BACKEND, else the first installed.",
        rich_help_panel=MODEL,
    ),
]
ModelArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An artifact folder, or any .keras file.")]
PixelsOption = Annotated[
    str | None,
    typer.Option(
        "--pixels",
        metavar="0-1|0-255|mean-std|as-is",
        help="How the model takes the pixels of images: mean-std subtracts the mean of the training split's pixels in "
        "[0, 1] and divides by their standard deviation, as-is feeds them as the files have them. Default: as the "
        "artifact was made with, else as a layer in the file that scales them says, else 0-1.",
        rich_help_panel=DATA,
    ),
]
ProviderOption = Annotated[str | None, typer.Option("--provider", help="aws, gcp, azure, ...", rich_help_panel=PRICES)]
RegionOption = Annotated[str | None, typer.Option("--region", help="Such as us-east-1.", rich_help_panel=PRICES)]
InstanceOption = Annotated[
    str | None,
    typer.Option("--instance", help="Instance type; default: the closest to the machine.", rich_help_panel=PRICES),
]
PricesOption = Annotated[
    Path | None,
    typer.Option("--prices", help="A price book of your own (CSV), or a prices.toml.", rich_help_panel=PRICES),
]
PayOption = Annotated[
    Literal["on-demand", "spot", "committed"],
    typer.Option("--pay", help="How the instance is paid for.", rich_help_panel=PRICES),
]
Limit = Annotated[int | None, typer.Option(help="Most examples of each split, for a quick look.", rich_help_panel=DATA)]

OutputOption = Annotated[
    str | None,
    typer.Option("--output", help="Name of the model's output that labels are of.", rich_help_panel=MODEL),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="What that output answers: multiclass, binary, multilabel, regression, tags or embedding; "
        "default: as the file, the layers and the labels say.",
        rich_help_panel=MODEL,
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="Outputs above it are a yes; default: 0.5, of logits 0, or the file's metric's.",
        rich_help_panel=MODEL,
    ),
]


def examples(*commands: str) -> str:
    """What stands below the options in the help of a command."""
    return "\n\n".join(("Examples:", *commands))


def numbers(text: str) -> list[float]:
    """The numbers in a comma-separated text."""
    try:
        return [float(part) for part in parts(text) or []]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0.05,0.1") from error


def fraction(text: str) -> float:
    """A share as a fraction of 1, from `3%` or `0.03`."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a share such as 3% or 0.03") from error


def parts(text: str | None) -> list[str] | None:
    """The parts of a comma-separated text; None for None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def whole_numbers(text: str | None, such_as: str) -> list[int] | None:
    """The whole numbers of a comma-separated text; None for None. Raises BadParameter for what is none."""
    try:
        return None if text is None else [int(part) for part in parts(text) or []]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a list of {such_as}") from error


def print_answer(as_json: bool, answer: Any, show: Any) -> bool:
    """The answer of a command, on standard output: as JSON, or as `show` draws it on a console.

    Where nobody reads it any more (`| head -1`) it is dropped: the exit code is the command's all the same.

    Returns:
        Whether somebody reads it.
    """
    if as_json:
        plain = (
            [a.model_dump(mode="json") for a in answer] if isinstance(answer, list) else answer.model_dump(mode="json")
        )
        return say(sys.stdout, json.dumps(plain, indent=1))
    from kcost.core.console import UnreadConsole

    # A pipe has no width: tables keep their columns there.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
    console = UnreadConsole(file=sys.stdout, width=width)
    show(console)
    return not console.unread


@contextmanager
def progress(quiet: bool = False) -> Iterator[OnProgress]:
    """What the API tells its progress to: a bar on a terminal, elsewhere plain lines, both on standard error."""
    if quiet:
        yield silent
        return
    with shown_on(sys.stderr) as on_progress:
        yield on_progress


@contextmanager
def stage(text: str, quiet: bool) -> Iterator[None]:
    """Tells of work that is one stage, where it begins and how long it took."""
    with progress(quiet) as on_progress, stage_of(on_progress, text):
        yield

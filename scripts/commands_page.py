"""Writes docs/commands.md from the program itself: `python scripts/commands_page.py`. A test holds the page to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import kcost.cli  # noqa: F401 -- adds every command
from kcost.cli.shared import app, argument_text

FILE = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

This page is made by `python scripts/commands_page.py`, and a test holds it to the program. `kcost COMMAND --help` shows
the same. Exit codes: 0 done; 1 a gate failed or a regression was found; 2 wrong usage or bad input; 3 something asked
for is not there.
"""


def page() -> str:
    """The page, in Markdown."""
    root = typer.main.get_command(app)
    return "\n".join([HEAD, *(line for name, command in _commands(root, "kcost") for line in _section(name, command))])


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _section(name: str, command: Any) -> Iterator[str]:
    arguments = " ".join(argument_text(p) for p in command.params if p.param_type_name == "argument")
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    yield f"## {name}"
    yield ""
    yield command.help or ""
    yield ""
    yield f"    {' '.join(part for part in (name, arguments, '[OPTIONS]' if options else '') if part)}"
    yield ""
    if options:
        yield "| option | default | |"
        yield "|---|---|---|"
        for option in options:
            names = ", ".join(f"`{n}`" for n in (*option.opts, *option.secondary_opts))
            yield f"| {names} | {_default(option)} | {_cell(option.help or '')} |"
        yield ""


def _default(option: Any) -> str:
    if option.required:
        return "required"
    value = option.default
    return "" if value is None or value is False or value == () else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[")


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")

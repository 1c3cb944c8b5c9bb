"""What each command says of itself, and the options that they all have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kcost.cli import app
from kcost.core.plan import Plan, Settings
from kcost.cost.assumptions import Assumptions

FEW = 3
"""Options that need no panels."""

NO_TABLE = {"data fetch", "code", "open", "report", "prices list", "data list"}
"""Print a path or a program, or have `--all` by another test."""

ONE_SCREEN = {"doctor", "serve"}
"""Always show everything."""

QUIET = {
    *("train", "evaluate", "search", "optimize", "bench", "demo", "recommend", "risk", "card", "probe", "export"),
    *("monitor", "loadtest"),
}
"""Work for longer than a few seconds, and tell of their progress."""


def commands() -> Iterator[tuple[str, Any]]:
    def within(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from within(command, (*path, name))
            else:
                yield " ".join((*path, name)), command

    return within(typer.main.get_command(app), ())


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_panels_examples_and_the_options_of_all(name: str) -> None:
    command = COMMANDS[name]
    options = {p.name: p for p in command.params if p.param_type_name == "option" and p.name != "help"}
    named = {p.opts[0] for p in options.values()}
    assert (command.epilog or "").startswith("Examples:"), "examples stand at the end of the help"
    assert f"kcost {name} " in f"{command.epilog} ".replace("\n", " ")
    if len(options) > FEW:
        without = [p.opts[0] for p in options.values() if p.rich_help_panel is None]
        assert without == [], "options stand in named panels"
    assert all(p.help for p in options.values()), "each option says what it is"
    if name not in NO_TABLE | ONE_SCREEN:
        assert {"--all", "--json"} <= named
    assert ("--quiet" in named) == (name in QUIET)


@pytest.mark.parametrize("columns", [60, 100])
def test_no_help_is_cut_on_a_narrow_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, command in {"": typer.main.get_command(app), **COMMANDS}.items():
        context = command.make_context(f"kcost {name}", [], resilient_parsing=True)
        printed = command.get_help(context) + capsys.readouterr().out
        assert "\u2026" not in printed, f"{name}: rich cuts a word that is too long with an ellipsis"
        assert max(map(len, printed.splitlines())) <= columns, name


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        (["cost"], "cost [RUN] [OPTIONS]"),
        (["compare"], "compare RUN_A RUN_B [OPTIONS]"),
        (["bench"], "bench PLAN|ARTIFACT... [OPTIONS]"),
        (["card"], "card [verify|pages] ARTIFACT [OPTIONS]"),
        (["data", "fetch"], "data fetch NAME"),
    ],
)
def test_usage_names_arguments_as_the_documents_do(command: list[str], usage: str) -> None:
    assert re.search(rf"Usage: .*{re.escape(usage)}", CliRunner().invoke(app, [*command, "--help"]).output)


def test_examples_stand_last_in_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    printed = CliRunner().invoke(app, ["bench", "--help"]).output
    panels = [printed.index(f" {panel} ") for panel in ("Data", "Model", "Measuring", "Output", "Examples:")]
    assert max(panels) == panels[-1]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["monitor", "refernce", "x"], "reference"),
        (["card", "verfy", "x"], "verify"),
        (["export", "x", "--out", "o", "--format", "huggingfase"], "huggingface"),
        (["prices", "lst"], "list"),
        (["loadtest", "http://127.0.0.1:1/x", "--find-rat"], "--find-rate"),
    ],
)
def test_a_typo_is_told_what_it_may_have_meant(arguments: list[str], meant: str) -> None:
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 2
    assert meant in outcome.output
    assert "id you mean" in outcome.output or "Possible options" in outcome.output


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("cost", Assumptions()),
        ("recommend", Assumptions()),
        ("bench", Settings()),
        ("bench", Plan(models=("m",))),
    ],
)
def test_a_default_that_help_states_is_that_of_the_program(name: str, defaults: Any) -> None:
    """Options that are not given are None, so that the program's own default holds: help has it in words."""
    stated = {}
    for option in COMMANDS[name].params:
        words = re.search(r"[Dd]efault:? ([\d.,%a-z0-9]+?)\.?$", option.help or "")
        if option.default is None and words is not None:
            stated[option.name] = words[1]
    compared = {n: value for n in stated if (value := getattr(defaults, n, None)) is not None}
    assert compared, "some are stated"
    for option_name, value in compared.items():
        values = value if isinstance(value, tuple) else (value,)
        assert stated[option_name] in (
            ",".join(map(str, values)),
            *(f"{one:g}" for one in values if isinstance(one, (int, float))),
            *(f"{one:.0%}" for one in values if isinstance(one, float)),
        ), option_name

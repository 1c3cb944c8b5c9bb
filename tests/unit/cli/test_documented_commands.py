"""Every command that the documentation prints has the options that it is printed with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import kcost.cli  # noqa: F401 -- adds every command
from kcost.cli.shared import app

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name != "commands.md")]
COMMAND = re.compile(r"^(?:\s*(?:- run: |\$ |time )?)(kcost .*)$")


def commands_of(text: str) -> Iterator[str]:
    """The commands in blocks of code, with the lines that they go on in, without what is piped on."""
    in_fence = False
    for line in text.replace("\\\n", " ").split("\n"):
        if line.startswith("```"):
            in_fence = not in_fence
        elif (in_fence or line.startswith("    ")) and (match := COMMAND.match(line)) is not None:
            yield match[1]


def fault(command: str) -> str | None:
    """What of a printed command the program does not have; None where it has all of it."""
    try:
        words = shlex.split(command.split(" > ")[0].split(" | ")[0], comments=True)
    except ValueError:
        return None  # a sentence that begins with the program's name
    words = [w for w in words[1:] if w not in ("[OPTIONS]", "...")]
    here: Any = typer.main.get_command(app)
    while words and words[0].startswith("-") and any(words[0] in p.opts for p in here.params):
        words = words[2:]  # --classes MODULE stands before the command
    while hasattr(here, "commands") and words:
        name = words.pop(0)
        if name not in here.commands:
            return None if re.search(r"[^a-z-]", name) else f"no command {name}"
        here = here.commands[name]
    known = {name for p in here.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    unknown = [w for w in words if re.match(r"--[a-z]", w) and w.partition("=")[0] not in known]
    return None if not unknown else f"no option {', '.join(unknown)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_printed_commands_have_their_options(page: Path) -> None:
    faults = {c: why for c in commands_of(page.read_text(encoding="utf-8")) if (why := fault(c)) is not None}
    assert faults == {}


def test_the_guides_of_a_verdict_are_among_them() -> None:
    text = (ROOT / "docs" / "recommend.md").read_text(encoding="utf-8")
    printed = list(commands_of(text))
    assert any("--gates gates.toml" in c and "--strict" in c for c in printed)  # in a pull request
    assert any("--watch" in c and "--monitor" in c for c in printed)  # in a weekly job


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("kcost recommend m --minuts 3", "no option --minuts"),
        ("kcost recomend m", "no command recomend"),
        ("kcost recommend --watch run --prices book.csv", None),
        ("kcost --classes mine recommend m.keras --minutes 3", None),
    ],
)
def test_an_option_that_is_not_there_is_found(command: str, why: str | None) -> None:
    assert fault(command) == why

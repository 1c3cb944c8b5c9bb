"""docs/commands.md is what the program says of itself."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_page_of_commands_is_that_of_the_program() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "commands_page.py"))["page"]()
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == made, "run python scripts/commands_page.py"
    for command in ("kcost bench", "kcost prices list", "kcost cost"):
        assert f"\n## {command}\n" in made

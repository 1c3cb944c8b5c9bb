"""Every block of the documentation that is marked is run: shell and Python, a folder of its own for each page."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from kcost.core.process import installed
from tests.cli.documents import PAGES, ROOT, Block, blocks_of

BLOCKS = {page.name: list(blocks_of(page.read_text(encoding="utf-8"))) for page in PAGES}


def run_blocks(blocks: Iterable[Block], folder: Path) -> None:
    """Runs blocks one after another in a folder that holds docs/ of the checkout; what one writes the next one has."""
    (folder / "docs").symlink_to(ROOT / "docs")
    programs = folder / ".programs"
    programs.mkdir()
    for name, module in (("kcost", " -m kcost"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for block in blocks:
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        if block.language == "python":
            command = [sys.executable, "-c", block.text]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=environment)
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


FAST = [name for name, blocks in BLOCKS.items() if any(not block.slow for block in blocks)]
SLOW = [name for name, blocks in BLOCKS.items() if any(block.slow for block in blocks)]


@pytest.mark.parametrize("page", FAST)
def test_the_quick_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    run_blocks([block for block in BLOCKS[page] if not block.slow], tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not (installed("jax") and installed("tensorflow")), reason="needs kcost[jax,tensorflow]")
@pytest.mark.parametrize("page", SLOW)
def test_all_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    run_blocks(BLOCKS[page], tmp_path)


def test_the_readme_and_a_page_of_each_kind_are_run() -> None:
    assert {"README.md", "prices.md", "cost.md"} <= set(FAST)
    assert {"README.md", "tutorial.md", "python.md"} <= set(SLOW)


@pytest.mark.parametrize(
    ("language", "text"), [("shell", "kcost no-such-command"), ("python", "import kcost; kcost.nothing")]
)
def test_a_block_that_fails_is_found(language: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no-such-command|nothing"):
        run_blocks([Block(language, text, slow=False)], tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "<!-- runs -->\n\n```shell\nls\n```\n",
        "<!-- runs soon -->\n```shell\nls\n```\n",
        "<!-- runs -->\n```toml\na = 1\n```\n",
    ],
)
def test_a_mark_that_marks_nothing_is_found(text: str) -> None:
    with pytest.raises(ValueError, match=r"a mark stands|a block that runs"):
        list(blocks_of(text))

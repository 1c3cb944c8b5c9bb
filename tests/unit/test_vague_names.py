"""A name says what it holds: not that it was found, asked for or told; and that this test can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from .vague_names import vague_names

ROOT = Path(__file__).parents[2]
FOLDERS = ("kcost", "tests", "testing", "benchmarks", "scripts")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_name_says_what_it_holds(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    vague = {file.relative_to(ROOT).as_posix(): names for file in files if (names := vague_names(file))}
    assert vague == {}


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "found: int = 1",
        "found += 1",
        "first, *found = numbers",
        "for found in numbers: ...",
        "squares = [found**2 for found in numbers]",
        "if (found := search()): ...",
        "with search() as found: ...",
        "def search(found): ...",
        "def search(*, found=None): ...",
        "def search(*found): ...",
        "key = lambda found: found",
        "def found(): ...",
        "async def found(): ...",
        "class found: ...",
        "class Search:\n    def run(self):\n        self.found = 1",
        "from search import found",
        "import search as found",
        "try: ...\nexcept ValueError as found: ...",
        "match numbers:\n    case [found]: ...",
        "match numbers:\n    case [*found]: ...",
        "match numbers:\n    case {**found}: ...",
    ],
)
@pytest.mark.parametrize("name", ["found", "asked", "told"])
def test_a_vague_name_is_seen_wherever_it_is_bound(tmp_path: Path, source: str, name: str) -> None:
    file = tmp_path / "sample.py"
    file.write_text(source.replace("found", name))
    assert [bound for _, bound in vague_names(file)] == [name]


def test_prose_and_longer_names_are_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(
        '# as told\nnot_found = "found"\nreport(asked_for=not_found)\nraise LookupError(f"{not_found} told")\n'
    )
    assert vague_names(file) == []

"""The picture of the README is what its script makes of the run that lies beside it."""

from __future__ import annotations

import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

import kcost

ROOT = Path(__file__).parents[3]
RUN = ROOT / "docs" / "runs" / "digits-cnn"


@pytest.fixture(scope="module")
def pictures() -> dict[str, str]:
    made: dict[str, str] = runpy.run_path(str(ROOT / "scripts" / "readme_picture.py"))["pictures"](RUN)
    return made


def test_the_pictures_are_those_of_the_run(pictures: dict[str, str]) -> None:
    for name, text in pictures.items():
        assert (ROOT / "docs" / "pictures" / name).read_text(encoding="utf-8") == text, "run scripts/readme_picture.py"


def test_a_picture_has_a_row_for_each_way_and_loads_nothing(pictures: dict[str, str]) -> None:
    ranking = kcost.estimate_cost(RUN).main_ranking
    assert ranking is not None
    for text in pictures.values():
        picture = ElementTree.fromstring(text)
        circles = list(picture.iter("{http://www.w3.org/2000/svg}circle"))
        assert len(circles) == min(14, len(ranking.cells))
        assert "currentColor" not in text, "a picture in an <img> inherits no colour"
        assert "href" not in text


def test_the_readme_shows_both(pictures: dict[str, str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in pictures:
        assert f"docs/pictures/{name}" in readme


def test_the_run_that_lies_here_is_small_and_names_no_place() -> None:
    files = [path for path in RUN.rglob("*") if path.is_file() and path.parent.name != "logs"]
    assert sum(path.stat().st_size for path in files) < 350_000
    for path in files:
        content = path.read_bytes()
        assert not any(place in content for place in (b"/home/", b"/tmp/", b"/root/", b"/usr/")), path

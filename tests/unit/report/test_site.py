"""The documentation as a site: built without a warning, and the notebook's page in a real browser without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.report.browser import CHROMIUM, layout_at, opened

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow
NEEDS_BROWSER = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the PATH; on Debian: apt-get install chromium"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "material", "mkdocstrings", "nbconvert"):
        pytest.importorskip(module, reason="needs kcost[docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert built.stderr.strip() == ""
    return folder


def test_the_notebook_is_a_page_with_its_code_and_a_verdict(site: Path) -> None:
    page = (site / "quickstart.html").read_text(encoding="utf-8")
    assert "kcost.make_servable" in re.sub(r"<[^>]*>", "", page)
    assert "cheapest is jax/jit float32" in page
    assert 'href="quickstart.ipynb"' in page
    assert (site / "quickstart.ipynb").read_bytes() == (ROOT / "docs" / "quickstart.ipynb").read_bytes()
    assert 'href="quickstart.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?((?:https?:)?//[^\s\"'>]*)")
    for path in site.rglob("*.html"):
        assert loaded.findall(path.read_text(encoding="utf-8")) == [], path.name


@NEEDS_BROWSER
def test_the_search_finds_pages_that_are_opened_as_files(site: Path, tmp_path: Path) -> None:
    document = opened(f"{(site / 'index.html').as_uri()}?q=invoice", tmp_path)
    assert re.search(r"\d+ matching documents", document)
    assert re.search(r"href=\"[^\"]*monitoring.html\" class=\"md-search-result__link", document)


@NEEDS_BROWSER
@pytest.mark.parametrize("width", [400, 1400])
def test_the_notebooks_page_fits_a_phone_and_a_wide_screen(site: Path, width: int, tmp_path: Path) -> None:
    layout = layout_at(site / "quickstart.html", width, tmp_path)
    assert layout.inner_width == width
    assert layout.scroll_width <= width
    assert layout.smallest_text >= 9

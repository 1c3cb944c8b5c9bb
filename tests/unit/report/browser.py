"""Pages in a real browser."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import NamedTuple

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def rendered(page: bytes, tmp_path: Path) -> str:
    """The page's document after its scripts ran."""
    path = tmp_path / "page.html"
    path.write_bytes(page)
    return opened(path.as_uri(), tmp_path)


def opened(address: str, tmp_path: Path) -> str:
    """The document at an address after its scripts ran, without a network."""
    assert CHROMIUM is not None
    command = [
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9", "--virtual-time-budget=20000"),
        "--allow-file-access-from-files",  # a page may look into a file that it shows
        *("--dump-dom", address),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


class Layout(NamedTuple):
    """How a document lies in a window of some width; all in CSS pixels."""

    inner_width: float
    scroll_width: float
    """Of the document: more than the inner width where the whole page has to be moved sideways."""
    smallest_text: float
    """Height of the smallest text that is shown, as it is drawn, pictures included."""


# A browser without a screen has no window narrower than 500 pixels: the page stands in a frame of the width.
_MEASURE = """
addEventListener("load", () => setTimeout(() => {
  const frame = document.getElementById("page"), page = frame.contentDocument;
  const texts = [...page.body.querySelectorAll("*")].filter((e) =>
    [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && e.getClientRects().length
    && !["SCRIPT", "STYLE"].includes(e.tagName));
  const heights = texts.map((e) => e.ownerSVGElement ? e.getBoundingClientRect().height
    : parseFloat(frame.contentWindow.getComputedStyle(e).fontSize));
  document.body.dataset.layout = JSON.stringify([frame.contentWindow.innerWidth,
    page.documentElement.scrollWidth, Math.min(...heights)]);
}, 4000));
"""


def layout_at(page: bytes | Path, width: int, tmp_path: Path) -> Layout:
    """How a page, or a file with others beside it, lies in a window of that many pixels."""
    source = f'src="{page.as_uri()}"' if isinstance(page, Path) else f'srcdoc="{escape(page.decode())}"'
    frame = f'<iframe id="page" style="width:{width}px;height:900px;border:0" {source}></iframe>'
    wrapper = f"<!doctype html><body><script>{_MEASURE}</script>{frame}</body>"
    (measured,) = re.findall(r'data-layout="([^"]*)"', rendered(wrapper.encode(), tmp_path))
    return Layout(*json.loads(unescape(measured)))

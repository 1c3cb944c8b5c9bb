"""Accessibility of pages by axe-core, in the widths and colours that people read them in; and whether they fit.

    npm i axe-core                       # in a folder of its own
    python benchmarks/page_checks.py node_modules/axe-core/axe.min.js PAGE.html...

Each page is opened in headless Chromium at 400 and 1,400 pixels, light and dark, and `axe.run()` is asked with all of
its rules. Exit code 1 where something serious or critical is found, or a page has to be moved sideways. `--print OUT`
also writes what the printer gets, as PDF, which is to be looked at.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from html import escape, unescape
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (400, 1400)
SERIOUS = ("serious", "critical")

# A browser without a screen has no window narrower than 500 pixels: the page stands in a frame of the width.
RUN = """
addEventListener("load", () => setTimeout(() => {
  const frame = document.getElementById("page"), page = frame.contentDocument;
  frame.contentWindow.axe.run(page).then((r) => {
    document.body.dataset.result = JSON.stringify({
      violations: r.violations.map((v) => [v.id, v.impact, v.nodes.length, v.nodes[0].target.join(" ")]),
      unsure: r.incomplete.map((v) => [v.id, v.impact, v.nodes.length, v.nodes[0].target.join(" ")]),
      passes: r.passes.length,
      width: [frame.contentWindow.innerWidth, page.documentElement.scrollWidth],
      dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    });
  });
}, 3000));
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axe", type=Path, help="axe.min.js")
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--print", type=Path, dest="printed", help="folder for PDF files")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of each page")
    given = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("A browser is needed. Received: no chromium on the PATH. On Debian: apt-get install chromium.")
    bad = False
    for page in given.pages:
        for width in WIDTHS:
            for dark in (False, True):
                result = checked(page, given.axe, width, dark)
                assert result["dark"] == dark
                serious = [v for v in result["violations"] if v[1] in SERIOUS]
                sideways = result["width"][1] > result["width"][0]
                bad = bad or bool(serious) or sideways
                look = f"{page.name}, {width} px, {'dark' if dark else 'light'}"
                print(f"{look}: {len(result['violations'])} violations, {result['passes']} rules pass", end="")
                print("; it is wider than the window" if sideways else "")
                for kind in ("violations", "unsure"):
                    for rule, impact, count, first in result[kind]:
                        print(
                            f"  {'' if kind == 'violations' else 'to be looked at: '}{rule} ({impact}) {count}: {first}"
                        )
                if given.pictures is not None:
                    picture(
                        page, width, dark, given.pictures / f"{page.stem}-{width}-{'dark' if dark else 'light'}.png"
                    )
        if given.printed is not None:
            given.printed.mkdir(parents=True, exist_ok=True)
            browse(f"--print-to-pdf={(given.printed / f'{page.stem}.pdf').absolute()}", page.absolute().as_uri())
    sys.exit(bad)


def checked(page: Path, axe: Path, width: int, dark: bool) -> dict[str, Any]:
    """What axe-core says of a page in a frame of that width."""
    own = page.read_text(encoding="utf-8")
    with_axe = own.replace("</body>", f"<script>{axe.read_text(encoding='utf-8')}</script></body>")
    frame = f'<iframe id="page" style="width:{width}px;height:900px;border:0" srcdoc="{escape(with_axe)}"></iframe>'
    wrapper = f"<!doctype html><body><script>{RUN}</script>{frame}</body>"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frame.html"
        file.write_text(wrapper, encoding="utf-8")
        document = browse(*scheme(dark), "--virtual-time-budget=30000", "--dump-dom", file.as_uri())
    (result,) = re.findall(r'data-result="([^"]*)"', document)
    answer: dict[str, Any] = json.loads(unescape(result))
    return answer


def picture(page: Path, width: int, dark: bool, out: Path) -> None:
    """A picture of a page; of a narrow one in a frame."""
    out.parent.mkdir(parents=True, exist_ok=True)
    size = f"width:{width}px;height:2600px;border:0"
    frame = f'<body style="margin:0"><iframe src="{page.absolute().as_uri()}" style="{size}">'
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frame.html"
        file.write_text(f"<!doctype html>{frame}</iframe></body>", encoding="utf-8")
        size = f"--window-size={max(width, 500)},2600"
        browse(*scheme(dark), size, "--virtual-time-budget=8000", f"--screenshot={out.absolute()}", file.as_uri())


def scheme(dark: bool) -> tuple[str, ...]:
    """The option of a browser whose user likes dark pages."""
    return ("--blink-settings=preferredColorScheme=0",) if dark else ("--blink-settings=preferredColorScheme=1",)


def browse(*arguments: str) -> str:
    """Opens a page without a network, and gives what the browser prints."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as profile:
        command = [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *("--no-first-run", f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


if __name__ == "__main__":
    main()

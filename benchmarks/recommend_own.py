"""`kcost recommend` of five models as users bring them: does each get a verdict, in how long, and what failed?

    python benchmarks/recommend_own.py --out OWN --minutes 3
    python benchmarks/recommend_own.py --out OWN --minutes 3 --only subclassed,own-class

A functional model like a ResNet, a subclassed one, MobileNetV3Small of keras.applications, one with two inputs, and a
file with a class of the user's own. Each is recommended by the program in a process of its own, over every backend and
runtime that is installed, as a user would call it. A model whose answer is there is not recommended again. Beside other
work a cell gets no figure, and the verdict says so: run it again in the same folder while nothing else runs, after
`--again`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MOST_MINUTES = 15.0
"""What a verdict may take, in all."""

QPS = {"resnet": 300.0, "subclassed": 20_000.0, "mobilenet": 50.0, "two-inputs": 5_000.0, "own-class": 20_000.0}
"""Requests a second, of a size that one or a few machines serve."""

P99_MS = 200.0
RESULT = "result.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("recommend-own"))
    parser.add_argument("--minutes", type=float, default=3.0, help="to spend on measuring each")
    parser.add_argument("--only", default=",".join(QPS), help="comma-separated")
    parser.add_argument("--again", action="store_true", help="recommend those that have an answer as well")
    parser.add_argument("--backends", help="comma-separated; default: all that are installed")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := sorted(set(names) - QPS.keys()):
        sys.exit(f"Models are {', '.join(QPS)}. Received: {', '.join(unknown)}.")
    for name in names:
        file = given.out / name / RESULT
        if given.again or not file.exists():
            file.write_text(json.dumps(recommended(given, made(given.out, name)), indent=1))
    results = {n: json.loads((given.out / n / RESULT).read_text()) for n in names}
    for name, result in results.items():
        show(name, result)
    held = [n for n, r in results.items() if r["outcome"] is not None and r["seconds"] <= 60 * MOST_MINUTES]
    figures = [n for n, r in results.items() if r["winner"] is not None]
    print(f"a verdict within {MOST_MINUTES:g} minutes: {len(held)} of {len(names)}; with figures: {len(figures)}")


def made(out: Path, name: str) -> Path:
    """The folder with NAME.keras and NAME.npz, made where they are not there yet."""
    folder = out / name
    file = folder / f"{name}.keras"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(ROOT))
        from benchmarks.own_models import OWN, arrays_of

        np.savez(folder / f"{name}.npz", **arrays_of(name))
        OWN[name]().save(file)
    return folder


def recommended(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One call of the program, and what its answer says."""
    name = folder.name
    answer = folder / "answer"
    command = [
        *(sys.executable, "-m", "kcost", "--classes", "benchmarks.own_models"),
        *("recommend", str(folder / f"{name}.keras"), "--data", str(folder / f"{name}.npz")),
        *("--qps", f"{QPS[name]:g}", "--p99-ms", f"{P99_MS:g}", "--provider", "aws"),
        *("--minutes", f"{given.minutes:g}", "--out", str(answer)),
        *(() if given.backends is None else ("--backends", given.backends)),
    ]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    began = time.monotonic()
    with (folder / "output.txt").open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False,
                              env={**os.environ, "PYTHONPATH": paths})  # fmt: skip
    verdict = answer / "verdict.json"
    document = json.loads(verdict.read_text()) if verdict.exists() else {}
    states: dict[str, list[str]] = {}
    for one in document.get("tried", ()):
        states.setdefault(one["state"], []).append(f"{one['name']}: {one['reason']}")
    return {
        "seconds": time.monotonic() - began,
        "exit_code": done.returncode,
        "outcome": document.get("outcome"),
        "winner": document.get("winner"),
        "words": document.get("words", ()),
        "first_figures_s": document.get("first_figures_s"),
        "states": states,
        "traceback": "Traceback" in (folder / "output.txt").read_text(),
    }


def show(name: str, result: dict[str, Any]) -> None:
    counts = ", ".join(f"{len(ways)} {state}" for state, ways in result["states"].items())
    crash = "; a TRACEBACK was printed" if result["traceback"] else ""
    print(f"{name}: {result['outcome']}, exit code {result['exit_code']} after {result['seconds']:.0f} s{crash}")
    print(f"  {result['words'][0] if result['words'] else 'no verdict: output.txt says why'}")
    print(f"  {counts}")
    for reason in result["states"].get("failed", ()):
        print(f"  failed: {reason}")


if __name__ == "__main__":
    main()

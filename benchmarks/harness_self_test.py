"""Figures of the self-test for docs/results.md: python benchmarks/harness_self_test.py PLAN [--short] [--out FOLDER]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from kcost.bench.self_test import FULL, SHORT, self_test
from kcost.core.plan import Plan
from kcost.report.bench_terminal import show_self_test


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path, help="TOML plan; its cells share the 200 pairs")
    parser.add_argument("--short", action="store_true", help="24 pairs of 5 rounds, as in continuous integration")
    parser.add_argument("--quiet-only", action="store_true", help="leave out the busy neighbours")
    parser.add_argument("--out", type=Path, help="keeps the runs, and self-test.json")
    given = parser.parse_args()
    form = SHORT if given.short else FULL
    report = self_test(Plan.read(given.plan), form=form, noisy=not given.quiet_only, out=given.out)
    if given.out is not None:
        (given.out / "self-test.json").write_text(report.model_dump_json(indent=1) + "\n")
    show_self_test(Console(width=160), report)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())

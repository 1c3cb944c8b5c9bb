"""Export a model for TensorFlow Serving: python scripts/export_for_serving.py MODEL OUT NAME"""

from __future__ import annotations

import sys

import kcost


def main(model: str, out: str, name: str) -> None:
    report = kcost.export(model, out, name=name, version=1)
    for check in report.checks:
        print(f"batch {check.batch}: outputs differ from the model's by at most {check.max_abs_difference:.1e}")
    print(f"serve it: docker compose -f {out}/docker-compose.yaml up")


if __name__ == "__main__":
    main(*sys.argv[1:])

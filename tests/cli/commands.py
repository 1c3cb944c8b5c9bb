"""Commands as a user gives them."""

from __future__ import annotations

import os
import subprocess
import sys


def kcost(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kcost.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def check(found: subprocess.CompletedProcess[str], code: int, *told: str) -> None:
    assert found.returncode == code, found.stderr
    for text in told:
        assert text in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stdout == ""

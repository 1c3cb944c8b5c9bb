"""Commands as a user gives them."""

from __future__ import annotations

import os
import subprocess
import sys


def kcost(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kcost.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def check(finished: subprocess.CompletedProcess[str], code: int, *messages: str) -> None:
    assert finished.returncode == code, finished.stderr
    for text in messages:
        assert text in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""

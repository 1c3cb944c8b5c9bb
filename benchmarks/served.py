"""Programs of kcost that a benchmark starts, asks and ends: `kcost serve` with models, or as a proxy."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil


class Served:
    """`kcost serve` in a process of its own; what it says goes to a file.

    Args:
        log: a path.
        options: of `kcost serve`, without --port.
    """

    def __init__(self, log: Path, *options: object) -> None:
        self._log = log.open("w+")
        command = [sys.executable, "-m", "kcost", "serve", *map(str, options), "--port", "0"]
        proxy = "--upstream" in options
        self.process = subprocess.Popen(
            command if proxy else [*command, "--json"],
            stdout=self._log if proxy else subprocess.PIPE,
            stderr=subprocess.PIPE if proxy else self._log,
            text=True,
        )
        pipe = self.process.stderr if proxy else self.process.stdout
        assert pipe is not None
        self.started: dict[str, Any] = {}
        if proxy:
            self.url = pipe.readline().split(" ")[0].strip()
        else:
            lines = []
            for line in pipe:
                lines.append(line)
                if line.rstrip() == "}":
                    break
            self.started = json.loads("".join(lines) or "{}")
            self.url = self.started.get("url", "")
        if not self.url.startswith("http"):
            self._log.flush()
            raise SystemExit(f"{' '.join(command)} did not start: {self.url} {self.said()}")

    @property
    def mother(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def workers(self) -> list[psutil.Process]:
        """The processes that run models."""
        return list(self.mother.children())

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.loads(answer.read())

    def said(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._log.close()


def mib(process: psutil.Process) -> float:
    """What a process has in memory."""
    return float(process.memory_info().rss) / 2**20

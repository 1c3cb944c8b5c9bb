"""A real server and a real proxy, either of which, or a process of theirs, is killed at any moment.

What was acknowledged is on disk, no file is broken, and what is started again goes on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from kcost.risk.drift_reference import Reading, Reference
from kcost.serving.monitor.store import read_samples
from testing.references import made_up_reference
from tests.serving.conftest import RunningServer
from tests.unit.serving.monitored import RNG

MONITOR = '[samples]\nfolder = "samples"\nshare = 1.0\ninputs = true\n[events]\nfile = "events.jsonl"\n'


class RunningProxy:
    """`kcost serve --upstream` in a process of its own."""

    def __init__(self, upstream: str, folder: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "kcost", "serve", "--usd-per-hour", "1", "--port", str(port)]
        command += ["--upstream", upstream, "--monitor", "monitor.toml", "--reference", "half_plus_two=reference.json"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        self.url = self.process.stderr.readline().decode().split(" ")[0]

    def watcher(self) -> int:
        """Process id of what watches."""
        (child,) = psutil.Process(self.process.pid).children()
        return int(child.pid)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def reference() -> Reference:
    """Of a model whose answer is the logit of a yes."""
    confidence = RNG.uniform(0.5, 1, 500)
    outputs = {"confidence": confidence, "class": RNG.choice(["no", "yes"], 500)}
    reading = Reading(kind="binary", logits=True, form="arrays", shape=())
    return made_up_reference("half_plus_two", ("no", "yes"), reading, outputs, {}, RNG.random(500) < confidence)


def posted(url: str, document: object) -> tuple[dict[str, str], bytes]:
    with urllib.request.urlopen(url, json.dumps(document).encode(), timeout=10) as answer:
        return dict(answer.headers), answer.read()


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["proxy", "the process that watches", "server", "the process of the model"])
def test_a_kill_loses_nothing_that_was_acknowledged(saved_models: Path, tmp_path: Path, killed: str) -> None:
    (tmp_path / "reference.json").write_text(reference().model_dump_json())
    (tmp_path / "monitor.toml").write_text(MONITOR)
    server = RunningServer(saved_models)
    proxy = RunningProxy(server.url, tmp_path)
    chooser = random.Random(killed)
    acknowledged: set[str] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                headers, _ = posted(f"{proxy.url}/v1/models/half_plus_two/versions/1:predict", {"instances": [1.0]})
                name = headers["x-request-id"]
                labels = {"labels": [{"id": name, "label": "yes"}]}
                _, body = posted(f"{proxy.url}/kcost/labels", labels)
                if json.loads(body) == {"accepted": 1, "unknown_ids": 0, "stored": True}:
                    acknowledged.add(name)
            except (OSError, urllib.error.HTTPError):
                time.sleep(0.02)  # the kill

    def wait_for_more() -> None:
        before, end = len(acknowledged), time.monotonic() + 60
        while len(acknowledged) < before + 5:
            assert time.monotonic() < end
            time.sleep(0.02)

    victims: dict[str, Callable[[], int]] = {
        "proxy": lambda: proxy.process.pid,
        "the process that watches": lambda: proxy.watcher(),
        "server": lambda: server.process.pid,
        "the process of the model": lambda: chooser.choice(server.workers()),
    }
    asking = [threading.Thread(target=ask) for _ in range(3)]
    try:
        for thread in asking:
            thread.start()
        for _ in range(2):
            wait_for_more()
            time.sleep(chooser.uniform(0, 0.2))
            os.kill(victims[killed](), signal.SIGKILL)
            if killed == "proxy":
                proxy.close()
                proxy = RunningProxy(server.url, tmp_path)
            elif killed == "server":
                port = server.started["url"].rpartition(":")[2]
                server.process.communicate()
                server = RunningServer(saved_models, "--port", port)
            else:
                time.sleep(1.5)  # it is started again by itself
        wait_for_more()
    finally:
        over.set()
        for thread in asking:
            thread.join()
        proxy.close()
        code, errors = server.stop()
    assert (code, "Traceback" in errors) == (0, False), errors
    samples = read_samples(tmp_path / "samples")
    assert acknowledged <= {s["id"] for s in samples.samples if s["kind"] == "label"}
    assert samples.torn <= 3  # at most one line of each process that was killed while it wrote
    assert len((tmp_path / "samples" / "salt").read_bytes()) == 32
    assert not [p for p in (tmp_path / "samples").iterdir() if p.name.startswith(".")]

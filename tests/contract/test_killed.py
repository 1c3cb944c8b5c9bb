"""Training as a user runs it, from the command line: killed with SIGKILL, started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EPOCHS = 16
SETTINGS = ("--data", "digits", "--limit", "200", "--epochs", str(EPOCHS), "--patience", str(EPOCHS), "--seed", "3")
OPTIONS = ("--batch-size", "16", "--schedule", "linear", "--augment")


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kcost", "train", "cnn", *SETTINGS, *OPTIONS, "--out", str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
    )


def finish(process: subprocess.Popen[str]) -> str:
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stderr


def epochs_stored(out: Path) -> int:
    try:
        progress: dict[str, Any] = json.loads((out.parent / f".{out.name}.training" / "progress.json").read_text())
    except FileNotFoundError:
        return 0
    return int(progress["epoch"])


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_the_one_that_was_let_be(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole))
    process = start(killed)
    while epochs_stored(killed) < 2:
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()  # ends when the worker is gone too: it holds the same pipe
    assert process.returncode == -signal.SIGKILL
    done = epochs_stored(killed)
    assert 2 <= done < EPOCHS
    assert not killed.exists()

    stderr = finish(start(killed))
    assert f"epoch {done + 1}/{EPOCHS}:" in stderr
    assert f"epoch {done}/{EPOCHS}:" not in stderr, "what was done is not done again"
    histories = [json.loads((out / "history.json").read_text()) for out in (whole, killed)]
    assert [len(h) for h in histories] == [EPOCHS, EPOCHS]
    for uninterrupted, resumed in zip(*histories, strict=True):
        assert resumed == pytest.approx(uninterrupted, rel=1e-3, abs=1e-4)
    artifacts = [json.loads((out / "artifact.json").read_text()) for out in (whole, killed)]
    scores = [a["scores"][0]["value"] for a in artifacts]
    assert scores[1] == pytest.approx(scores[0], abs=0.01)
    assert f"resumed after epoch {done}" in artifacts[1]["steps"][0]["changed"][-1]
    assert not (tmp_path / ".killed.training").exists()

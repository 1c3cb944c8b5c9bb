"""A command whose reader goes away, as of `kcost ... 2>&1 | head -1`, does its work and ends with its own exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import kcost
from kcost.bench.store import open_run
from kcost.cli import app
from kcost.cli.shared import print_answer
from testing.runs import write_run
from testing.unread import unread_pipe, unread_stdout
from tests.unit.bench.runs_to_compare import run_of, slowed

TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm"}
"""Has a bar drawn on whatever the stream is."""


def unread(*arguments: object) -> int:
    """The exit code of a command of which neither stream is read."""
    command = [sys.executable, "-m", "kcost", *map(str, arguments)]
    with unread_pipe() as pipe:
        return subprocess.run(command, stdout=pipe, stderr=pipe, timeout=120).returncode


@pytest.mark.parametrize("environment", [{}, TERMINAL], ids=["lines", "bar"])
def test_a_bench_whose_first_line_alone_is_read_measures_all(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "fake.keras").write_text("{}")
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'models = ["fake.keras"]\nbackends = ["fake"]\nphases = ["inference"]\nmethods = ["eager", "predict"]\n'
        'batches = [1, 2]\nprecisions = ["float32"]\n[settings]\nrounds = 3\nround_s = 0.01\nwarmup_s = 0.01\n'
    )
    command = [sys.executable, "-m", "kcost", "bench", str(plan), "--out", str(tmp_path / "run")]
    read_fd, write_fd = os.pipe()
    bench = subprocess.Popen(command, stdout=write_fd, stderr=write_fd, env={**os.environ, **environment})
    os.close(write_fd)
    os.read(read_fd, 1)
    os.close(read_fd)
    assert bench.wait(timeout=120) == 0
    assert {(c.status, len(c.rounds)) for c in open_run(tmp_path / "run").cells} == {("ok", 3)}


@pytest.mark.parametrize("environment", [{}, TERMINAL], ids=["lines", "bar"])
def test_a_job_goes_on_where_nobody_reads_how_far_it_is(environment: dict[str, str]) -> None:
    job = (
        "import sys; from kcost.worker.progress import counted\n"
        "with counted(3, 'sentences') as of_pass:\n"
        "    of_pass('predicting train')(1)\n"
        "    of_pass('scoring test')(1)\n"
        "sys.stderr.write('done')"
    )
    with unread_pipe() as pipe:
        child = subprocess.run(
            [sys.executable, "-c", job],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env={**os.environ, **environment},
        )
    assert (child.returncode, child.stderr) == (0, "done")


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["table", "json"])
def test_a_limit_that_fails_is_exit_code_1_though_nobody_reads_why(tmp_path: Path, options: tuple[str, ...]) -> None:
    before = run_of(0)
    a, b = (write_run(tmp_path / name, run).path for name, run in (("a", before), ("b", slowed(before, 2.0))))
    assert unread("compare", a, b, "--fail-if", "median_ms>5%", *options) == 1
    assert unread("compare", a, a, "--fail-if", "median_ms>5%", *options) == 0


def test_an_error_that_nobody_reads_has_its_exit_code(tmp_path: Path) -> None:
    assert unread("cost", tmp_path / "nowhere") == 2


@pytest.mark.parametrize("as_json", [True, False])
def test_an_answer_says_that_nobody_reads_it(as_json: bool) -> None:
    answer = SimpleNamespace(model_dump=lambda mode: {"a": 1})
    with unread_stdout():
        was_read = [print_answer(as_json, answer, lambda console: console.print("a")) for _ in range(2)]
    assert was_read == [False, True], "by then it goes to /dev/null"


def test_watching_ends_where_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[str] = []

    def monitor_proxy(url: str) -> SimpleNamespace:
        assert not reports, "it is looked at once more"
        reports.append(url)
        return SimpleNamespace(model_dump=lambda mode: {}, outcome="failing")

    monkeypatch.setattr(kcost, "monitor_proxy", monitor_proxy)
    with unread_stdout(), pytest.raises(SystemExit) as ended:
        app(["monitor", "http://127.0.0.1:1", "--watch", "--every-s", "0.5", "--json"])
    assert ended.value.code == 1
    assert reports == ["http://127.0.0.1:1"]

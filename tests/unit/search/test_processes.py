"""Searches as processes of their own: killed and started again, and two on one study."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from kcost.search import SearchRequest
from kcost.search.result import SearchResult
from tests.unit.search import fake

ROOT = Path(__file__).parents[3]
SERVER = "KCOST_TEST_DATABASE"


def start(request: SearchRequest, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.search.fake", request.model_dump_json(), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def finish(process: subprocess.Popen[str]) -> list[int]:
    """The trials that a process finished."""
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return [int(line) for line in stdout.split()]


def read(request: SearchRequest) -> SearchResult:
    """The study as it stands: it is full, so that nothing more is tried."""
    return fake.run(request)


def check_shared(request: SearchRequest, *others: SearchRequest) -> None:
    """Processes that share a study make as many trials as were asked for together, each a trial of its own."""
    finished = [finish(p) for p in [start(r, 0.3) for r in (request, *others)]]
    assert all(finished), "each process does a part"
    assert Counter(n for numbers in finished for n in numbers).most_common(1)[0][1] == 1, "no trial is run twice"
    result = read(request)
    assert Counter(t.state for t in result.trials) == {"complete": request.trials}
    assert sorted(t.number for t in result.trials) == sorted(n for numbers in finished for n in numbers)
    assert len({tuple(t.params.items()) for t in result.trials}) == request.trials, "no two trials are the same"


def test_sigkill_loses_only_the_trial_that_was_running_and_that_one_is_tried_again(tmp_path: Path) -> None:
    request = fake.request(tmp_path / "out", trials=5)
    first = start(request, 0.5)
    assert first.stdout is not None
    done = [int(first.stdout.readline()) for _ in range(2)]
    assert done == [0, 1]
    # Trial 2 begins a moment after trial 1 has printed its line.
    while not (tmp_path / "out" / "trials" / "0002").is_dir():
        assert first.poll() is None
    first.kill()
    first.communicate()
    rest = finish(start(request, 0.0))
    result = read(request)
    assert Counter(t.state for t in result.trials) == {"complete": 5, "stopped": 1}
    (lost,) = result.in_state("stopped")
    assert lost.number == 2
    assert lost.reason is not None
    assert "its process ended" in lost.reason
    assert sorted([*done, *rest]) == [t.number for t in result.in_state("complete")]
    again = [t for t in result.in_state("complete") if t.params == lost.params]
    assert len(again) == 1
    assert again[0].number > lost.number


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    check_shared(*[fake.request(tmp_path / "out", trials=7)] * 2)


needs_server = pytest.mark.skipif(
    SERVER not in os.environ, reason=f"{SERVER} names no PostgreSQL database to test on: .ci/run starts one"
)


@needs_server
def test_two_machines_share_a_study_on_a_server(tmp_path: Path) -> None:
    request = fake.request(tmp_path / "one", trials=7, storage=os.environ[SERVER], study=str(tmp_path))
    check_shared(request, request.model_copy(update={"out": tmp_path / "two"}))


@needs_server
def test_a_machine_that_dies_leaves_its_trial_to_the_other_one(tmp_path: Path) -> None:
    request = fake.request(tmp_path / "one", trials=5, storage=os.environ[SERVER], study=str(tmp_path))
    dying = start(request, 0.5)
    assert dying.stdout is not None
    done = int(dying.stdout.readline())
    other = start(request.model_copy(update={"out": tmp_path / "two"}), 0.5)
    assert dying.stdout.readline(), "its second trial: a third one follows"
    dying.kill()
    dying.communicate()
    assert finish(other), "the other machine goes on"
    result = read(request)
    states = Counter(t.state for t in result.trials)
    assert states["complete"] == 5
    (lost,) = result.in_state("stopped")
    again = [t for t in result.in_state("complete") if t.params == lost.params]
    assert len(again) == 1, "what it was at is tried again"
    assert done in [t.number for t in result.in_state("complete")], "what it finished stays"

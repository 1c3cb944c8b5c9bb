"""The harness, driven by the simulated backend: turns, faults, and going on where a run stopped."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from kcost.bench import runner
from kcost.bench.plan_models import open_models, request_for, specs_of
from kcost.bench.pool import Pool, Prepared
from kcost.bench.runner import measure
from kcost.bench.store import open_run
from kcost.core.cpu_quota import default_threads
from kcost.core.errors import PlanError, StorageError
from kcost.core.plan import CellSpec
from kcost.core.request import MeasureRequest
from kcost.core.result import CellResult, Run
from tests.unit.bench.plans import SETTINGS, by_label, fake_plan


def rounds_of(run: Run) -> dict[str, tuple[Any, ...]]:
    return {c.spec.cell_id: c.rounds for c in run.cells}


def test_every_cell_gets_every_round_of_one_session_from_one_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Counter[str]()

    def counted(spec: CellSpec, *parts: Any) -> MeasureRequest:
        requests[spec.cell_id] += 1
        return request_for(spec, *parts)

    monkeypatch.setattr(runner, "request_for", counted)
    run = measure(fake_plan(tmp_path, {}), tmp_path / "run")
    assert requests == Counter(c.spec.cell_id for c in run.cells)
    assert len(run.cells) == 6
    assert {c.status for c in run.cells} == {"ok"}
    assert {tuple(r.number for r in c.rounds) for c in run.cells} == {(0, 1, 2)}
    assert len({r.session for c in run.cells for r in c.rounds}) == 1
    assert all(c.preparation is not None and c.preparation.simulated for c in run.cells)


def test_cells_take_turns_in_shuffled_order(tmp_path: Path) -> None:
    lines: list[str] = []
    plan = fake_plan(tmp_path, {}, settings={**SETTINGS, "rounds": 6})
    measure(plan, tmp_path / "run", lambda done, total, text: lines.append(text))
    turns = [t.split(": ", 1) for t in lines if t.startswith("round")]
    orders = [tuple(cell for r, cell in turns if r == f"round {n} of 6") for n in range(1, 7)]
    assert len({frozenset(o) for o in orders}) == 1, "each round has each cell once"
    assert len(set(orders)) > 1, "the order changes between rounds"


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("crash", "crash", "SIGKILL"),
        ("hang", "timeout", "no answer"),
        ("garbage", "crash", "not json"),
        ("oom", "oom", "MemoryError"),
        ("fill", "oom", "MemoryError"),
        ("unsupported", "unsupported", "told to lack this"),
    ],
)
def test_a_fault_costs_its_own_cell_only(tmp_path: Path, fault: str, status: str, reason: str) -> None:
    plan = fake_plan(
        tmp_path,
        {fault: ["bfloat16/32"], "healthy_calls": 3},
        methods=["eager"],
        settings={**SETTINGS, "timeout_s": 6, "warmup_s": 0},
    )
    cells = by_label(measure(plan, tmp_path / "run"))
    broken = cells.pop("eager bfloat16 cpu batch 32")
    assert (broken.status, reason in str(broken.reason)) == (status, True)
    assert {c.status for c in cells.values()} == {"ok"}
    assert {len(c.rounds) for c in cells.values()} == {3}


def test_a_worker_that_the_kernel_ended_for_want_of_memory_is_told_from_one_that_crashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = itertools.count()  # /proc/vmstat counts on, whichever process it was
    monkeypatch.setattr("kcost.bench.pool._oom_kills", lambda: next(kills))
    plan = fake_plan(tmp_path, {"crash": ["float32/32"], "healthy_calls": 3}, methods=["eager"], precisions=["float32"])
    cells = by_label(measure(plan, tmp_path / "run"))
    broken, healthy = cells["eager float32 cpu batch 32"], cells["eager float32 cpu batch 1"]
    assert (broken.status, "want of memory" in str(broken.reason)) == ("oom", True)
    assert (healthy.status, len(healthy.rounds)) == ("ok", 3)


def test_starting_again_measures_nothing_twice_and_tries_the_failed_cell_once_more(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {}, methods=["eager"])
    out = tmp_path / "run"
    first = measure(plan, out)
    lost = first.cells[0]
    path = out / "cells" / f"{lost.spec.cell_id}.json"
    path.write_text(lost.model_copy(update={"status": "crash", "reason": "test", "rounds": ()}).model_dump_json())
    again = measure(plan, out)
    before, after = rounds_of(first), rounds_of(again)
    assert {c.status for c in again.cells} == {"ok"}
    assert before.pop(lost.spec.cell_id) != after.pop(lost.spec.cell_id)
    assert before == after


def test_a_partly_measured_cell_gets_only_the_rounds_it_lacks(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {}, methods=["eager"])
    out = tmp_path / "run"
    cell = measure(plan, out).cells[0]
    part = cell.model_copy(update={"status": "partial", "rounds": cell.rounds[:2]})
    (out / "cells" / f"{cell.spec.cell_id}.json").write_text(part.model_dump_json())
    again = {c.spec.cell_id: c for c in measure(plan, out).cells}[cell.spec.cell_id]
    assert again.status == "ok"
    assert again.rounds[:2] == cell.rounds[:2]
    assert [r.session == cell.rounds[0].session for r in again.rounds] == [True, True, False]


def test_a_cell_that_failed_in_a_further_round_has_all_that_it_needs(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {}, methods=["eager"], batches=[1])
    out = tmp_path / "run"
    cell = measure(plan, out).cells[0]
    failed = cell.model_copy(update={"status": "crash", "reason": "test"})
    (out / "cells" / f"{cell.spec.cell_id}.json").write_text(failed.model_dump_json())
    again = {c.spec.cell_id: c for c in measure(plan, out).cells}[cell.spec.cell_id]
    assert (again.status, again.reason, again.rounds) == ("ok", None, cell.rounds)


def test_a_wider_plan_measures_only_what_is_new(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = measure(fake_plan(tmp_path, {}, batches=[1]), out)
    wider = measure(fake_plan(tmp_path, {}, batches=[1, 8]), out)
    assert len(wider.cells) == 2 * len(first.cells)
    assert {k: v for k, v in rounds_of(wider).items() if k in rounds_of(first)} == rounds_of(first)


def test_another_environment_does_not_count_as_measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    plan = fake_plan(tmp_path, {}, methods=["eager"], batches=[1])
    first = measure(plan, out)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    with_flags = measure(fake_plan(tmp_path, {}, methods=["eager"], batches=[1, 2]), out)
    assert len(with_flags.environments) == 2
    assert {k: v for k, v in rounds_of(with_flags).items() if k in rounds_of(first)} == rounds_of(first)


def write_plan(folder: Path, rounds: int) -> Path:
    fake_plan(folder, {"step_s": 0.002})
    plan = folder / "plan.toml"
    plan.write_text(
        'models = ["fake.keras"]\nbackends = ["fake"]\nphases = ["inference"]\nmethods = ["eager"]\n'
        'batches = [1, 2, 4, 8]\nprecisions = ["float32"]\n'
        f"[settings]\nrounds = {rounds}\nround_s = 0.05\nwarmup_s = 0.01\n"
    )
    return plan


def start_bench(folder: Path, out: Path) -> subprocess.Popen[str]:
    plan = write_plan(folder, rounds=40)
    command = [sys.executable, "-m", "kcost", "bench", str(plan), "--out", str(out), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_measuring(out: Path, process: subprocess.Popen[str]) -> Run:
    for _ in range(400):
        if (out / "run.json").exists() and any((out / "cells").glob("*.json")):
            run = open_run(out)
            if run.cells and min(len(c.rounds) for c in run.cells) >= 2:
                return run
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("the bench did not begin to measure")


def test_sigkill_of_a_worker_loses_at_most_its_cell_and_the_run_can_be_finished(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start_bench(tmp_path, out)
    held = wait_until_measuring(out, process)
    for worker in psutil.Process(process.pid).children():
        os.kill(worker.pid, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    first = open_run(out)
    lost = [c for c in first.cells if c.status != "ok"]
    assert len(lost) <= 1, stdout
    assert all(c.status == "crash" and "SIGKILL" in str(c.reason) for c in lost)
    for cell in held.cells:
        now = next(c for c in first.cells if c.spec == cell.spec)
        assert now.rounds[: len(cell.rounds)] == cell.rounds, "what was measured before stays"
    again = start_bench(tmp_path, out)
    again.communicate(timeout=60)
    assert again.returncode == 0
    finished = open_run(out)
    assert {(c.status, len(c.rounds)) for c in finished.cells} == {("ok", 40)}
    kept = {c.spec.cell_id for c in first.cells if c.status == "ok"}
    assert {k: v for k, v in rounds_of(finished).items() if k in kept} == {
        k: v for k, v in rounds_of(first).items() if k in kept
    }


def test_sigkill_of_the_bench_itself_loses_nothing_that_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start_bench(tmp_path, out)
    wait_until_measuring(out, process)
    process.kill()
    process.communicate(timeout=60)
    held = open_run(out)
    again = start_bench(tmp_path, out)
    _, stderr = again.communicate(timeout=60)
    assert again.returncode == 0, stderr
    finished = {c.spec.cell_id: c for c in open_run(out).cells}
    assert {c.status for c in finished.values()} == {"ok"}
    for cell in held.cells:
        assert finished[cell.spec.cell_id].rounds[: len(cell.rounds)] == cell.rounds


def test_a_full_disk_is_one_message_and_keeps_what_was_stored(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes a write fail as a full disk does; /dev/full cannot stand in for a folder."""
    out = tmp_path / "run"
    plan = fake_plan(tmp_path, {}, methods=["eager"], batches=[1])
    held = measure(plan, out)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200));"
        "from pathlib import Path;"
        "from kcost.core.schema import write_bytes; from kcost.core.errors import KcostError\n"
        f"try: write_bytes(Path({str(out / 'cells' / 'new.json')!r}), b'x' * 1000)\n"
        "except KcostError as e: print(e); sys.exit(e.exit_code)"
    )
    assert resource.RLIMIT_FSIZE
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.returncode == 2, child.stderr
    assert "Received: File too large" in child.stdout
    assert not list((out / "cells").glob("*new*")), "no half file stays"
    assert open_run(out) == held


def test_a_disk_that_fills_while_a_bench_runs_ends_it_and_costs_nothing_that_was_stored(tmp_path: Path) -> None:
    """A cell's file grows with each of its rounds: under a limit for files some rounds are stored, and then no more."""
    out, plan = tmp_path / "run", write_plan(tmp_path, rounds=40)
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY));"
        "sys.argv[0] = 'kcost'; runpy.run_module('kcost', run_name='__main__')"
    )
    command = ["bench", str(plan), "--out", str(out), "--json"]
    full = subprocess.run([sys.executable, "-c", limited, *command], capture_output=True, text=True, timeout=120)
    assert full.returncode == 2, full.stderr
    assert "Received: File too large" in full.stderr
    assert "Traceback" not in full.stderr
    held = open_run(out)
    assert {c.status for c in held.cells} == {"partial"}
    assert all(0 < len(c.rounds) < 40 for c in held.cells)
    assert not list((out / "cells").glob(".*")), "no half file stays"
    again = subprocess.run([sys.executable, "-m", "kcost", *command], capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    finished = {c.spec.cell_id: c for c in open_run(out).cells}
    assert {(c.status, len(c.rounds)) for c in finished.values()} == {("ok", 40)}
    for cell in held.cells:
        assert finished[cell.spec.cell_id].rounds[: len(cell.rounds)] == cell.rounds


def test_an_output_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "letter.txt").write_text("mine")
    with pytest.raises(StorageError, match="never overwrites"):
        measure(fake_plan(tmp_path, {}), out)
    assert [p.name for p in out.iterdir()] == ["letter.txt"]


def test_methods_that_no_backend_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="at least one cell"):
        measure(fake_plan(tmp_path, {}, methods=["xla"]), tmp_path / "run")


def test_each_number_of_threads_has_a_worker_of_its_own(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {}, methods=["eager"], batches=[1], precisions=["float32"], threads=[1, 0])
    run = measure(plan, tmp_path / "run")
    threads = {c.spec.threads: c.preparation.threads for c in run.cells if c.preparation is not None}
    assert threads == {1: 1, 0: default_threads()}
    assert {c.preparation.started_beside for c in run.cells if c.preparation is not None} == {1}
    assert {p.name for p in (tmp_path / "run" / "logs").iterdir()} == {"fake-cpu.log", "fake-cpu-1-threads.log"}


def test_some_cells_of_a_plan_are_measured_alone(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {}, precisions=["float32"])
    every = [s.cell_id for s in specs_of(plan, open_models(plan))]
    run = measure(plan, tmp_path / "run", only=frozenset(every[:1]))
    assert [c.spec.cell_id for c in run.cells] == every[:1]
    again = measure(plan, tmp_path / "run")
    assert rounds_of(again)[every[0]] == rounds_of(run)[every[0]]
    assert len(again.cells) == len(every)


def test_workers_that_live_on_keep_what_they_hold(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {}, precisions=["float32"], batches=[1, 2], methods=["eager"])
    specs = specs_of(plan, open_models(plan))
    prepared: list[str] = []

    class Counted(Pool):
        def prepare(self, request: MeasureRequest) -> Prepared:
            prepared.append(request.spec.cell_id)
            return super().prepare(request)

    logs = tmp_path / "run" / "logs"
    with Counted(logs, plan.settings) as pool:
        for count, rounds in ((1, 3), (2, 5)):
            run = measure(
                plan,
                tmp_path / "run",
                only=frozenset(s.cell_id for s in specs[:count]),
                choose=lambda cells, most=rounds: [c for c in cells if len(c.rounds) < most],
                pool=pool,
            )
        assert all(pool.holds(s) for s in specs)
    assert sorted(prepared) == sorted(s.cell_id for s in specs)  # each once, though the first took part twice
    assert [len(c.rounds) for c in run.cells] == [5, 5]
    assert not any(pool.holds(s) for s in specs)


def test_who_takes_a_turn_may_be_chosen_round_by_round(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {}, precisions=["float32"], batches=[1, 2], methods=["eager"])

    def choose(cells: list[CellResult]) -> list[CellResult]:
        return [c for c in cells if len(c.rounds) < 3 * c.spec.batch]

    run = measure(plan, tmp_path / "run", choose=choose)
    assert {c.spec.batch: (len(c.rounds), c.status) for c in run.cells} == {1: (3, "ok"), 2: (6, "ok")}
    more = measure(plan, tmp_path / "run", choose=lambda cells: [c for c in cells if len(c.rounds) < 7])
    assert {len(c.rounds) for c in more.cells} == {7}


def test_after_a_time_no_further_cell_is_got_ready_but_one(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {}, precisions=["float32"], batches=[1, 2], methods=["eager"])

    def choose(cells: list[CellResult]) -> list[CellResult]:
        return [c for c in cells if len(c.rounds) < 3]

    run = measure(plan, tmp_path / "run", choose=choose, ready_by=time.monotonic())
    assert [(c.spec.batch, len(c.rounds)) for c in run.cells if c.rounds] == [(1, 3)]
    more = measure(plan, tmp_path / "run", choose=choose)
    assert {c.spec.batch: len(c.rounds) for c in more.cells} == {1: 3, 2: 3}


def test_what_another_machine_measured_is_kept_but_where_turns_are_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds of two environments are not of one cell: `kcost recommend` reads those of this one alone."""
    plan = fake_plan(tmp_path, {}, methods=["eager"], batches=[1], precisions=["float32"])
    (cell,) = measure(plan, tmp_path / "run").cells
    here = runner.environment.collect()
    other = here.model_copy(update={"cores": here.cores + 2, "cpu_quota_cores": 1.0})
    monkeypatch.setattr(runner.environment, "collect", lambda: other)
    assert measure(plan, tmp_path / "run").cells == (cell,)
    (anew,) = measure(plan, tmp_path / "run", choose=lambda cells: [c for c in cells if len(c.rounds) < 4]).cells
    assert anew.environment_id == other.environment_id != cell.environment_id
    assert len(anew.rounds) == 4
    assert cell.rounds[0] not in anew.rounds

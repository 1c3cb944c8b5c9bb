import json
import statistics
from pathlib import Path

import pytest

import kcost
from kcost.bench import probe as module
from kcost.bench.probe import probe, thread_counts
from kcost.core import schema
from kcost.core.cpu_quota import CpuQuota
from kcost.core.errors import InputError, SchemaError, WorkerError
from kcost.core.probe import (
    ConvolutionTimes,
    MoveTimes,
    Probe,
    ProbeAnswer,
    ProbedQuota,
    ProbeRequest,
    ProductTimes,
    TransferTimes,
)
from kcost.core.progress import silent
from kcost.report.probe_terminal import show_probe
from kcost.worker import probe as worker
from testing.quotas import under_quota
from testing.terminal import printed


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probe") / "probe.json"
    probe("fake", out, 20, silent)
    return out


def test_rates_are_of_the_median() -> None:
    assert ProductTimes(dtype="float32", size=100, ns=(1000, 2000, 9000)).flops_per_s == pytest.approx(2e6 / 2e-6)
    assert ConvolutionTimes(dtype="float32", images=2, side=10, channels=3, ns=(5,)).flops == 2 * 9 * 9 * 100 * 2
    assert TransferTimes(elements=1000, ns=(1000,)).bytes_per_s == pytest.approx(8e3 / 1e-6)
    assert MoveTimes(elements=1000, ns=(1000,)).bytes_per_s == pytest.approx(12e3 / 1e-6)


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 48, 192])
def test_threads_go_from_one_to_all(cores: int) -> None:
    counts = thread_counts(cores)
    assert counts[0] == 1
    assert counts[-1] == cores
    assert len(counts) <= 4
    assert sorted(set(counts)) == list(counts)


def test_a_probe_is_stored_and_read_again(stored: Path, tmp_path: Path) -> None:
    answer = schema.read("probe", stored, Probe).by_threads[0].answer
    assert answer.simulated
    assert answer.call_ns
    assert "float32" in {p.dtype for p in answer.products}
    assert max(p.flops_per_s for p in answer.products) < 1.1e13  # the fake backend sleeps as 10 TFLOP/s would take
    newer = tmp_path / "probe.json"
    newer.write_text(json.dumps({"schema": 99}))
    with pytest.raises(SchemaError, match="up to schema 1"):
        schema.read("probe", newer, Probe)


def test_the_answer_marks_what_was_simulated(stored: Path) -> None:
    lines = printed(show_probe, schema.read("probe", stored, Probe), stored)
    assert "[simulated]" in " ".join(" ".join(lines).split("threads")[0].split())
    assert any("GFLOP/s" in line for line in lines)


@pytest.mark.parametrize("seconds", [0, -1, 121, float("nan")])
def test_bad_seconds_are_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(InputError, match="at most 120"):
        kcost.run_probe(tmp_path / "p.json", seconds=seconds)


@pytest.mark.parametrize("threads", [[], [0], [1, 10_000]])
def test_threads_that_there_are_no_cores_for_are_refused(tmp_path: Path, threads: list[int]) -> None:
    with pytest.raises(InputError, match="Threads of a probe"):
        probe("fake", tmp_path / "p.json", 5, silent, threads)


@pytest.mark.parametrize(("quota_cores", "held"), [(None, []), (1.0, [2]), (0.5, [1, 2]), (2.0, []), (1.5, [2])])
def test_a_worker_is_told_of_a_quota_that_its_threads_can_use_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota_cores: float | None, held: list[int]
) -> None:
    class Asked:
        def __init__(self, *_: object, threads: int, **__: object) -> None:
            self.threads = threads

        def __enter__(self) -> "Asked":
            return self

        def __exit__(self, *_: object) -> None: ...

        def ask(self, request: ProbeRequest, timeout_s: float) -> ProbeAnswer:
            requests.append((self.threads, request.dtype, request.quota))
            return answer

    requests: list[tuple[int, str, ProbedQuota | None]] = []
    answer = ProbeAnswer(version="0", simulated=True, products=(), moves=(), call_ns=())
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(module, "Worker", Asked)
    quota = None if quota_cores is None else CpuQuota(quota_cores, 0.1, tmp_path / "cpu.stat")
    monkeypatch.setattr(module, "cpu_quota", lambda: quota)
    probe("fake", tmp_path / "p.json", 20, silent, [1, 2])
    quotas = {n: ProbedQuota(cores=quota_cores or 0, period_s=0.1, threads=n) if n in held else None for n in (1, 2)}
    assert requests == [(n, dtype, quotas[n]) for n in (1, 2) for dtype in ("float32", "bfloat16")]


@pytest.mark.parametrize(("cores", "counts"), [(1.0, [1]), (2.5, [1, 2]), (8.0, [1, 2, 4])])
def test_no_more_threads_than_a_quota_has_cores_are_probed_unless_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: float, counts: list[int]
) -> None:
    class Counted:
        def __init__(self, *_: object, threads: int, **__: object) -> None:
            started.append(threads)
            raise WorkerError("A worker stays alive.", "it ended", cause="ended")

    started: list[int] = []
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(module, "Worker", Counted)
    under_quota(tmp_path, monkeypatch, cores)
    for threads in (None, [4]):
        with pytest.raises(WorkerError):
            probe("fake", tmp_path / "p.json", 20, silent, threads)
    assert started == [*counts, 4]


def test_under_a_quota_a_product_is_timed_over_its_periods_too() -> None:
    quota = ProbedQuota(cores=1, period_s=0.01, threads=2)
    answer = worker.run(ProbeRequest(backend="fake", seconds=60, quota=quota))
    assert answer.held is not None
    assert len(answer.held.ns) >= 4
    # The fake backend sleeps, so that no product of it keeps a thread busy: the largest that fits into a period.
    assert answer.held.size == max(p.size for p in answer.products)
    assert all(statistics.median(p.ns) < 0.5 * quota.window_s * 1e9 for p in answer.products)
    assert answer.held.cores < 1
    assert worker.run(ProbeRequest(backend="fake", seconds=1)).held is None


def test_the_smallest_product_that_keeps_threads_busy_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "cores_used", lambda program, seconds: 1.9)
    quota = ProbedQuota(cores=1, period_s=0.01, threads=2)
    answer = worker.run(ProbeRequest(backend="fake", seconds=60, quota=quota))
    assert answer.held is not None
    assert (answer.held.size, answer.held.cores) == (worker.SMALLEST_HELD, 1.9)


def test_a_product_that_fails_under_a_quota_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> tuple[int, ...]:
        raise MemoryError("no room")

    monkeypatch.setattr(worker, "mean_ns", fails)
    answer = worker.run(ProbeRequest(backend="fake", seconds=60, quota=ProbedQuota(cores=1, period_s=0.01, threads=2)))
    assert answer.held is None
    assert [reason for reason in answer.not_measured if "no room" in reason] == [
        "a product under the CPU quota: MemoryError: no room"
    ]
    assert worker.ELEMENTS[1] in {m.elements for m in answer.moves}, "what comes after it is measured"


@pytest.mark.parametrize(("part", "is_kept"), [(0.4, True), (0.6, False), (0.9, False)])
def test_a_median_that_may_hold_a_pause_is_left_out(
    monkeypatch: pytest.MonkeyPatch, part: float, is_kept: bool
) -> None:
    """What takes more than half of the time between two pauses is stopped in every second run or more."""
    quota = ProbedQuota(cores=1.9, period_s=0.1, threads=2)
    ns = round(part * quota.window_s * 1e9)
    monkeypatch.setattr(worker, "repeated_ns", lambda *_: (ns,) * 5)
    monkeypatch.setattr(worker, "mean_ns", lambda *_: (2 * ns,))
    answer = worker.run(ProbeRequest(backend="fake", seconds=60, quota=quota))
    assert bool(answer.call_ns) == is_kept
    assert any("CPU quota lets" in reason for reason in answer.not_measured) != is_kept


def test_what_takes_longer_than_a_quota_lets_run_is_left_out() -> None:
    """Its median would hold pauses."""
    quota = ProbedQuota(cores=1, period_s=0.002, threads=2)
    answer = worker.run(ProbeRequest(backend="fake", seconds=60, quota=quota))
    assert all(statistics.median(p.ns) <= quota.window_s * 1e9 / 2 for p in answer.products)
    assert any("product of 2048: it takes longer than the CPU quota" in reason for reason in answer.not_measured)


def test_named_threads_alone_are_probed(tmp_path: Path) -> None:
    made = probe("fake", tmp_path / "p.json", 20, silent, [1, 1])
    assert [t.threads for t in made.by_threads] == [1]


def test_workers_that_fail_are_told_and_nothing_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, *_: object, **__: object) -> None:
            raise WorkerError("A worker stays alive.", "it ended", cause="ended")

    monkeypatch.setattr(module, "Worker", Broken)
    with pytest.raises(WorkerError, match="stays alive"):
        probe("fake", tmp_path / "p.json", 5, silent)
    assert not (tmp_path / "p.json").exists()


def test_what_there_was_no_time_for_has_its_reason() -> None:
    answer = worker.run(ProbeRequest(backend="fake", seconds=1e-9))
    assert answer.products == ()
    assert any("no time was left" in reason for reason in answer.not_measured)


def test_a_whole_probe_has_every_kind_of_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "REPEATED_S", 0.01)
    answer = worker.run(ProbeRequest(backend="fake", seconds=60))
    assert answer.not_measured == ()
    assert {c.dtype for c in answer.convolutions} == {"float32"}
    assert max(t.bytes_per_s for t in answer.transfers) < 1.1e10  # the fake backend sleeps as 10 GB/s would take
    assert [m.elements for m in answer.moves] == list(worker.ELEMENTS)
    assert [p.size for p in answer.products] == list(worker.SIZES)


def test_a_program_that_fails_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from kcost.backends.fake import FakeDriver

    sound = FakeDriver.square_product

    def small_ones(self: FakeDriver, size: int, dtype: str) -> object:
        if size > 64:
            raise TypeError("no such size")
        return sound(self, size, dtype)

    monkeypatch.setattr(FakeDriver, "square_product", small_ones)
    answer = worker.run(ProbeRequest(backend="fake", seconds=20))
    assert [p.size for p in answer.products] == [64]
    assert answer.call_ns
    assert any("no such size" in reason for reason in answer.not_measured)


def test_a_product_that_would_take_seconds_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LONGEST_S", 1e-6)
    answer = worker.run(ProbeRequest(backend="fake", seconds=20))
    assert len(answer.products) == 1
    assert any("product of 256: it would take over" in reason for reason in answer.not_measured)


def test_a_dtype_is_asked_for_by_itself() -> None:
    answer = worker.run(ProbeRequest(backend="fake", dtype="bfloat16", seconds=20))
    assert {p.dtype for p in answer.products} == {"bfloat16"}
    assert (answer.call_ns, answer.moves) == ((), ())


def test_a_backend_that_ends_on_bfloat16_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN held to AVX2 does so in TensorFlow."""

    class EndsOnBfloat16:
        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> "EndsOnBfloat16":
            return self

        def __exit__(self, *_: object) -> None: ...

        def ask(self, request: ProbeRequest, timeout_s: float) -> object:
            if request.dtype == "bfloat16":
                raise WorkerError("A worker stays alive.", "killed by SIGABRT", cause="ended")
            return worker.run(request)

    monkeypatch.setattr(module, "Worker", EndsOnBfloat16)
    made = probe("fake", tmp_path / "p.json", 20, silent, [1])
    (answer,) = (t.answer for t in made.by_threads)
    assert {p.dtype for p in answer.products} == {"float32"}
    assert any("bfloat16 products" in reason and "SIGABRT" in reason for reason in answer.not_measured)
